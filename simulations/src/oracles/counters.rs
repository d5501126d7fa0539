//! Counters come to what was counted: of each run of each replica the latest total, less what was taken away of it.
//!
//! Which entries there are is the equation's affair. Here it is what people are shown of them: a replica that counts on
//! while somebody else saves the whole object leaves two totals of one run, and only the later one is true.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use thence::causal::ReplicaId;
use thence::model::{Content, Object, Path, Slot};

use super::asked::at;
use super::{ObjectName, Verdict, broken};

/// The latest total of a run, and the latest that was taken away of it, each with its counter.
type Run = (Option<(u64, i64)>, Option<(u64, i64)>);

/// Whether every counter that `object` shows, and nothing beside it, shows what was counted.
pub(crate) fn check_counters(name: &ObjectName, object: &Object) -> Verdict {
    let Some(shown) = object.shown() else { return Ok(()) };
    let mut counters: BTreeMap<&Path, BTreeMap<(ReplicaId, u64), Run>> = BTreeMap::new();
    for (slot, _, entry) in object.entries() {
        match (slot, &entry.content) {
            (Slot::Counter { path, replica, run }, &Content::Total { at, total }) => {
                let (latest, _) = counters.entry(path).or_default().entry((*replica, *run)).or_default();
                *latest = (*latest).max(Some((at, total)));
            }
            (Slot::Base { path, replica, run }, &Content::Total { at, total }) => {
                let (_, taken) = counters.entry(path).or_default().entry((*replica, *run)).or_default();
                *taken = (*taken).max(Some((at, total)));
            }
            _ => {}
        }
    }
    let others: Vec<&Path> = (object.entries())
        .filter(|(slot, ..)| !matches!(slot, Slot::Counter { .. } | Slot::Base { .. }))
        .filter_map(|(slot, ..)| slot.path())
        .collect();
    for (path, runs) in &counters {
        let names = path.names();
        let is_beside = |other: &&Path| other.is_within(names) || path.is_within(other.names());
        let is_nested = counters.keys().any(|other| other != path && is_beside(other));
        let Some(Json::Number(number)) = at(&shown, names) else { continue };
        if is_nested || others.iter().any(is_beside) || runs.values().all(|(latest, _)| latest.is_none()) {
            continue;
        }
        let sum: i128 = runs.values().map(worth).sum();
        if number.as_i64().map(i128::from) != Some(sum) {
            let (collection, key) = name;
            let detail = format!("{collection}/{key}: {path} shows {number}, and {sum} was counted");
            return broken("counters come to what was counted", detail);
        }
    }
    Ok(())
}

/// What is left of a run. A total from before it was taken away, which somebody repeats who had not heard of that, is not.
fn worth(run: &Run) -> i128 {
    match *run {
        (Some((at, total)), Some((seen, taken))) if at > seen => i128::from(total) - i128::from(taken),
        (Some((_, total)), None) => i128::from(total),
        _ => 0,
    }
}
