//! The equation: an object's entries are those that known events added and that no known event observed.
//!
//! It is convergence, no loss, no resurrection and true knowledge at once. The right side is computed here in the
//! slow and obvious way, from the definition.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::{Dot, VersionVector};
use thence::model::{Entry, Object, Slot, SpaceId};

use super::{History, ObjectName, Verdict, broken};

/// Whether `object`, as it stands on a disk whose vector is `known`, is what the events say.
pub(crate) fn check_object(
    history: &History,
    space: SpaceId,
    name: &ObjectName,
    known: &VersionVector,
    object: Option<&Object>,
) -> Verdict {
    let expected = expected(history, space, name, known);
    let held: BTreeMap<(Slot, Dot), Entry> = (object.iter())
        .flat_map(|object| object.entries().map(|(slot, dot, entry)| ((slot.clone(), dot), entry.clone())))
        .collect();
    if held == expected {
        return Ok(());
    }
    let extra: Vec<_> = held.keys().filter(|entry| !expected.contains_key(entry)).collect();
    let missing: Vec<_> = expected.keys().filter(|entry| !held.contains_key(entry)).collect();
    let altered: Vec<_> = (held.iter()).filter(|(at, entry)| expected.get(at).is_some_and(|e| e != *entry)).collect();
    let (collection, key) = name;
    broken("the equation", format!("{collection}/{key}: too much {extra:?}, missing {missing:?}, altered {altered:?}"))
}

fn expected(
    history: &History,
    space: SpaceId,
    name: &ObjectName,
    known: &VersionVector,
) -> BTreeMap<(Slot, Dot), Entry> {
    let mutations = history.mutations.get(&(space, name.clone())).map(Vec::as_slice).unwrap_or_default();
    let mut added = BTreeMap::new();
    let mut observed_whole: BTreeSet<Dot> = BTreeSet::new();
    let mut observed: BTreeSet<(&Slot, Dot)> = BTreeSet::new();
    for (dot, depth, mutation) in mutations.iter().filter(|(dot, ..)| known.contains(*dot)) {
        observed_whole.extend(mutation.whole.iter().flatten());
        for edit in &mutation.edits {
            if let Some(content) = &edit.add {
                added.insert((edit.slot.clone(), *dot), Entry { depth: *depth, content: content.clone() });
            }
            observed.extend(edit.observed.iter().map(|dot| (&edit.slot, *dot)));
        }
    }
    added.retain(|(slot, dot), _| !observed_whole.contains(dot) && !observed.contains(&(slot, *dot)));
    added
}
