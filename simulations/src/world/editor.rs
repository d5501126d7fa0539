//! An editor: it opens an object and saves it whole, with another title and everything else as it was shown.

use serde_json::Value as Json;
use thence::model::{CollectionName, ObjectKey, Operation, Request};
use thence::store::View;

/// What it saves; none if there is no such object, or it cannot be read.
pub(crate) fn resave(view: &View, collection: &CollectionName, key: &ObjectKey, title: usize) -> Option<Vec<Request>> {
    let mut fields = view.get(collection, key).ok()??.fields;
    fields.insert("title".to_owned(), Json::from(title));
    Some(vec![Request { collection: collection.clone(), key: key.clone(), operation: Operation::Put(fields) }])
}
