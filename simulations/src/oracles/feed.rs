//! No misses: whoever follows a node's feed by position has exactly what the node shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde_json::{Map, Value as Json};
use thence::store::{ChangeKind, StoreError, View};

use super::{Broken, ObjectName, broken};

/// An application that applies every change to a model of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    position: u64,
    model: BTreeMap<ObjectName, Map<String, Json>>,
}

impl Follower {
    /// Takes in one page of at most `limit` changes. Returns whether there was any.
    pub(crate) fn follow(&mut self, view: &View, limit: usize) -> Result<Result<bool, Broken>, StoreError> {
        if self.position < view.horizon()? {
            // Deletions that it was not told of are not told any more: whoever follows begins anew.
            (self.position, self.model) = (view.horizon()?, BTreeMap::new());
            view.visit(None, &mut |collection, key, object| {
                self.model.insert((collection.clone(), key), object.shown().unwrap_or_default());
                ControlFlow::Continue(())
            })?;
        }
        let changes = view.changes(self.position, limit)?;
        let any = !changes.is_empty();
        for change in changes {
            if change.position <= self.position {
                return Ok(broken("feed", format!("position {} comes after {}", change.position, self.position)));
            }
            self.position = change.position;
            let name = (change.collection, change.key);
            match change.kind {
                ChangeKind::Put(fields) => self.model.insert(name, fields),
                ChangeKind::Delete => self.model.remove(&name),
            };
        }
        Ok(Ok(any))
    }

    /// Whether the model is what the node shows, once everything was followed; and each object stands in the feed once.
    pub(crate) fn check(&self, view: &View) -> Result<Result<(), Broken>, StoreError> {
        let mut told = BTreeSet::new();
        for change in view.changes(0, usize::MAX)? {
            let name = (change.collection, change.key);
            if !told.insert(name.clone()) {
                return Ok(broken("feed", format!("{}/{} stands in it twice", name.0, name.1)));
            }
        }
        let mut shown = BTreeMap::new();
        view.visit(None, &mut |collection, key, object| {
            shown.insert((collection.clone(), key), object.shown().unwrap_or_default());
            ControlFlow::Continue(())
        })?;
        if shown == self.model {
            return Ok(Ok(()));
        }
        let names = |of: &BTreeMap<ObjectName, _>| of.keys().map(|(c, k)| format!("{c}/{k}")).collect::<Vec<_>>();
        let detail = format!("a follower has {:?}, the node shows {:?}", names(&self.model), names(&shown));
        Ok(broken("feed", detail))
    }
}
