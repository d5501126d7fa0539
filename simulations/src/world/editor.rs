//! An editor: what a user does who sees an object first. Values that are drawn are hardly ever those that are shown.

use serde_json::Value as Json;
use thence::model::{CollectionName, ObjectKey, Operation, Request};
use thence::store::View;

/// An object is saved whole, with another title and everything else as it was shown; none if there is no such object, or it cannot be read.
pub(crate) fn resave(view: &View, collection: &CollectionName, key: &ObjectKey, title: usize) -> Option<Vec<Request>> {
    let mut fields = view.get(collection, key).ok()??.fields;
    fields.insert("title".to_owned(), Json::from(title));
    Some(vec![Request { collection: collection.clone(), key: key.clone(), operation: Operation::Put(fields) }])
}

/// The first conflict that is listed is decided for what is shown; none if there is none, or it cannot be read.
pub(crate) fn decide(view: &View) -> Option<Vec<Request>> {
    let found = view.conflicts().ok()?.into_iter().next()?;
    let conflict = found.conflicts.into_iter().next()?;
    let operation = Operation::Resolve(conflict.path, conflict.values.into_iter().next()?);
    Some(vec![Request { collection: found.collection, key: found.key, operation }])
}
