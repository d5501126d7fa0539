//! No lost update: every value that nobody observed and overwrote or deleted is readable somewhere: as what a field
//! shows, as one of its other values, or as a lost edit.
//!
//! That it is *there* is what the equation says; this says that a user gets to see it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use thence::model::{Conflict, Content, Object, Path, Slot, Value};
use thence::store::{StoreError, View};

use super::asked::at;
use super::{ObjectName, Verdict, broken};

/// What every counter of an object comes to: in each run the latest total counts, without what the latest reset had seen
/// of it; nothing, if that had seen more.
fn sums(object: &Object) -> BTreeMap<&Path, i64> {
    let mut runs: BTreeMap<_, [Option<(u64, i64)>; 2]> = BTreeMap::new();
    for (slot, _, entry) in object.entries() {
        let (run, which) = match slot {
            Slot::Counter { path, replica, run } => ((path, *replica, *run), 0),
            Slot::Base { path, replica, run } => ((path, *replica, *run), 1),
            _ => continue,
        };
        if let Content::Total { at, total } = entry.content {
            let latest = &mut runs.entry(run).or_default()[which];
            *latest = (*latest).max(Some((at, total)));
        }
    }
    let mut sums = BTreeMap::new();
    for ((path, ..), [counted, taken]) in runs {
        let sum: &mut i64 = sums.entry(path).or_default();
        *sum += match (counted, taken) {
            (Some((at, _)), Some((seen, _))) if seen >= at => 0,
            (counted, taken) => counted.map_or(0, |(_, total)| total - taken.map_or(0, |(_, base)| base)),
        };
    }
    sums
}

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
        for (path, sum) in sums(object) {
            // Somebody may have written a plain number there since it was counted.
            let mut slots = object.entries().map(|(slot, ..)| slot);
            if slots.any(|slot| matches!(slot, Slot::Register(at) if at == path)) {
                continue;
            }
            let is_alone = conflicts.iter().all(|conflict| !path.is_within(conflict.path.names()));
            if let Some(shown) = at(&shown, path.names()).and_then(Json::as_i64)
                && is_alone
                && shown != sum
            {
                return broken(
                    "no lost update",
                    format!("{collection}/{key}: {path} shows {shown}, counted was {sum}"),
                );
            }
        }
        Ok(())
    }
}
