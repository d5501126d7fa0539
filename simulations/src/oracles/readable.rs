//! No lost update: every value that nobody observed and overwrote or deleted is readable somewhere: as what a field
//! shows, as one of its other values, or as a lost edit.
//!
//! That it is *there* is what the equation says; this says that a user gets to see it.

use std::collections::{BTreeMap, BTreeSet};

use thence::model::{Conflict, Content, Object, Slot, Value};
use thence::store::{StoreError, View};

use super::asked::at;
use super::{ObjectName, Verdict, broken};

/// What a node lists beside what its objects show.
#[derive(Debug)]
pub(crate) struct Listed {
    conflicts: BTreeMap<ObjectName, Vec<Conflict>>,
    lost: BTreeSet<ObjectName>,
}

impl Listed {
    pub(crate) fn read(view: &View) -> Result<Self, StoreError> {
        let conflicts = view.conflicts()?.into_iter().map(|found| ((found.collection, found.key), found.conflicts));
        let lost = view.lost()?.into_iter().map(|found| (found.collection, found.key));
        Ok(Self { conflicts: conflicts.collect(), lost: lost.collect() })
    }

    /// Whether all that an object holds can be read.
    pub(crate) fn check(&self, name: &ObjectName, object: &Object) -> Verdict {
        let (collection, key) = name;
        if collection.is_reserved() {
            return Ok(());
        }
        let unreadable = |what: String| broken("no lost update", format!("{collection}/{key}: {what} is not listed"));
        let Some(shown) = object.shown() else {
            let shows = |slot: &Slot| !matches!(slot, Slot::Life | Slot::Base { .. });
            let is_lost = object.entries().any(|(slot, ..)| shows(slot));
            return if is_lost && !self.lost.contains(name) { unreadable("a lost edit".to_owned()) } else { Ok(()) };
        };
        let nothing = Vec::new();
        let conflicts = self.conflicts.get(name).unwrap_or(&nothing);
        let registers = object.entries().filter_map(|(slot, _, entry)| match (slot, &entry.content) {
            (Slot::Register(path), Content::Value(value)) if *value != Value::EmptyMap => Some((path, value.to_json())),
            _ => None,
        });
        for (path, json) in registers {
            // A value in a field that stands against its own map is in one of the values of that.
            let around = |conflict: &&Conflict| path.is_within(conflict.path.names());
            let is_told = conflicts.iter().filter(around).any(|c| c.path != *path || c.values.contains(&json));
            if !is_told && at(&shown, path.names()) != Some(&json) {
                return unreadable(format!("{json} at {path}"));
            }
        }
        Ok(())
    }
}
