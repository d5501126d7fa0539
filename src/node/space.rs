//! A space of a running node, as an embedding program uses it.

use serde_json::{Map, Value as Json};

use super::{Node, NodeError};
use crate::model::{CollectionName, InvalidName, ObjectKey, Operation, Path, Request, SpaceId};
use crate::store::{Change, Found, View, WriteError, Written};

/// Operations that become one event: all of them are visible or none.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use serde_json::json;
/// use thence::node::Transaction;
///
/// let move_milk = Transaction::new()
///     .patch("lists", "today", json!({"milk": null}))?
///     .put("lists", "tomorrow", json!({"milk": 2}))?
///     .increment("stats", "moves", "count", 1)?;
/// assert_eq!(Vec::from(move_milk).len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    requests: Vec<Request>,
}

/// Why an operation cannot become part of a transaction. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// A collection, key or field that cannot be.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The fields of an object are a JSON object.
    #[error("the fields of an object are a JSON object, not {0}")]
    NotAnObject(String),
}

impl Transaction {
    /// A transaction that does nothing yet.
    pub const fn new() -> Self {
        Self { requests: Vec::new() }
    }

    fn with(mut self, collection: &str, key: &str, operation: Operation) -> Result<Self, InvalidRequest> {
        self.requests.push(Request { collection: CollectionName::user(collection)?, key: key.parse()?, operation });
        Ok(self)
    }

    /// Replaces an object.
    pub fn put(self, collection: &str, key: &str, fields: Json) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Put(members(fields)?))
    }

    /// Writes some fields of an object and leaves the others.
    pub fn patch(self, collection: &str, key: &str, fields: Json) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Patch(members(fields)?))
    }

    /// Makes an object show exactly these fields, writing only what differs.
    pub fn update(self, collection: &str, key: &str, fields: Json) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Update(members(fields)?))
    }

    /// Removes a field: its name, or a JSON pointer to a nested one.
    pub fn unset(self, collection: &str, key: &str, field: &str) -> Result<Self, InvalidRequest> {
        let path: Path = field.parse()?;
        self.with(collection, key, Operation::Unset(vec![path]))
    }

    /// Deletes an object.
    pub fn delete(self, collection: &str, key: &str) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Delete)
    }

    /// Adds to a counter, which begins at 0.
    pub fn increment(self, collection: &str, key: &str, field: &str, by: i64) -> Result<Self, InvalidRequest> {
        let path: Path = field.parse()?;
        self.with(collection, key, Operation::Increment(path, by))
    }

    /// Adds an element to a set.
    pub fn add(self, collection: &str, key: &str, field: &str, element: Json) -> Result<Self, InvalidRequest> {
        let path: Path = field.parse()?;
        self.with(collection, key, Operation::Add(path, element))
    }

    /// Removes an element from a set.
    pub fn remove(self, collection: &str, key: &str, field: &str, element: Json) -> Result<Self, InvalidRequest> {
        let path: Path = field.parse()?;
        self.with(collection, key, Operation::Remove(path, element))
    }

    /// Decides a conflict.
    pub fn resolve(self, collection: &str, key: &str, field: &str, value: Json) -> Result<Self, InvalidRequest> {
        let path: Path = field.parse()?;
        self.with(collection, key, Operation::Resolve(path, value))
    }

    /// Brings back what was left of edits that lost to a delete.
    pub fn restore(self, collection: &str, key: &str) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Restore)
    }

    /// Gives up what was left of edits that lost to a delete.
    pub fn discard(self, collection: &str, key: &str) -> Result<Self, InvalidRequest> {
        self.with(collection, key, Operation::Discard)
    }
}

fn members(fields: Json) -> Result<Map<String, Json>, InvalidRequest> {
    match fields {
        Json::Object(members) => Ok(members),
        other => Err(InvalidRequest::NotAnObject(other.to_string())),
    }
}

impl From<Transaction> for Vec<Request> {
    fn from(transaction: Transaction) -> Self {
        transaction.requests
    }
}

/// A space of a running node. Its node answers for it; this is only the shorter way to say things.
#[derive(Clone, Debug)]
pub struct Space {
    node: Node,
    id: SpaceId,
}

impl Space {
    pub(super) fn new(node: Node, id: SpaceId) -> Self {
        Self { node, id }
    }

    /// Its id.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// A view at this instant, for everything that reads more than one object.
    pub fn view(&self) -> Result<View, NodeError> {
        self.node.view(self.id)
    }

    /// Writes a transaction: all of it or nothing. Durable when it returns.
    pub async fn write(&self, transaction: Transaction) -> Result<Written, NodeError> {
        self.node.write(self.id, transaction.into()).await
    }

    /// The object, if it is there.
    pub fn get(&self, collection: &str, key: &str) -> Result<Option<Found>, NodeError> {
        let name = |error: InvalidName| WriteError::Edit { index: 0, error: error.into() };
        let collection = CollectionName::user(collection).map_err(name)?;
        let key: ObjectKey = key.parse().map_err(name)?;
        Ok(self.view()?.get(&collection, &key)?)
    }

    /// The objects with a field that holds several values.
    pub fn conflicts(&self) -> Result<Vec<Found>, NodeError> {
        Ok(self.view()?.conflicts()?)
    }

    /// What is left of edits that lost to a delete.
    pub fn lost(&self) -> Result<Vec<Found>, NodeError> {
        Ok(self.view()?.lost()?)
    }

    /// Waits until the feed has something after `after`, and returns it: at most `limit` changes.
    pub async fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, NodeError> {
        self.node.changes(self.id, after, limit).await
    }
}
