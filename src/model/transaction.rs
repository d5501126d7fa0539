//! What a user asks for: operations on objects, all of them or none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{CollectionName, Draft, InvalidEdit, ObjectKey, Path};

/// One thing to do to one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Replace the object.
    Put(Map<String, Json>),
    /// Write some fields.
    Patch(Map<String, Json>),
    /// Make the object show exactly this, writing only what differs.
    Update(Map<String, Json>),
    /// Remove fields.
    Unset(Vec<Path>),
    /// Delete the object.
    Delete,
    /// Add to a counter.
    Increment(Path, i64),
    /// Add an element to a set.
    Add(Path, Json),
    /// Remove an element from a set.
    Remove(Path, Json),
    /// Decide a conflict.
    Resolve(Path, Json),
    /// Bring back what was left of edits that lost to a delete.
    Restore,
    /// Give up what was left of edits that lost to a delete.
    Discard,
}

/// An operation and the object that it is meant for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The object's collection.
    pub collection: CollectionName,
    /// The object's key.
    pub key: ObjectKey,
    /// What to do to it.
    pub operation: Operation,
}

impl Operation {
    /// Whether it means the same whatever its author had seen: it adds to what is there.
    pub fn is_blind(&self) -> bool {
        matches!(self, Self::Increment(..) | Self::Add(..))
    }

    /// Does it to an object that is being written.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), InvalidEdit> {
        match self {
            Self::Put(fields) => draft.put(fields),
            Self::Patch(fields) => draft.patch(fields),
            Self::Update(fields) => draft.update(fields),
            Self::Unset(paths) => paths.iter().try_for_each(|path| draft.unset(path)),
            Self::Delete => draft.delete(),
            Self::Increment(path, by) => draft.increment(path, *by),
            Self::Add(path, element) => draft.add(path, element),
            Self::Remove(path, element) => draft.remove(path, element),
            Self::Resolve(path, json) => draft.resolve(path, json),
            Self::Restore => draft.restore(),
            Self::Discard => draft.discard(),
        }
    }
}

impl Request {
    /// Some bytes that it takes in memory, to tell how much is gathered: its text, and something for each part of it.
    pub(crate) fn weight(&self) -> usize {
        let name = self.collection.as_str().len() + self.key.as_str().len();
        name + match &self.operation {
            Operation::Put(fields) | Operation::Patch(fields) | Operation::Update(fields) => members(fields),
            Operation::Unset(paths) => PART * paths.len(),
            Operation::Add(_, element) | Operation::Remove(_, element) | Operation::Resolve(_, element) => {
                weight(element)
            }
            Operation::Increment(..) | Operation::Delete | Operation::Restore | Operation::Discard => PART,
        }
    }
}

/// What a value costs besides its text.
const PART: usize = 32;

fn weight(json: &Json) -> usize {
    PART + match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.len(),
        Json::Array(elements) => elements.iter().map(weight).sum(),
        Json::Object(fields) => members(fields),
    }
}

fn members(fields: &Map<String, Json>) -> usize {
    fields.iter().map(|(name, value)| name.len() + weight(value)).sum()
}
