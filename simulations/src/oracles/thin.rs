//! Thin clients: who has no version vector misses nothing all the same, and each of their writes takes effect once.
//!
//! - **Nothing is missed**: whoever is told that there is no more has exactly the rows that the node shows in that very
//!   moment.
//! - **Once**: no author writes an event that bears an id which an event that it knows bears already; unless it was told to
//!   forget that id. Two relays that do not know of each other yet may both have written it: nobody can prevent that.
//! - **Nothing is lost**: what a client was told is taken lies on the disk of who said so.
//! - **No reset without a cause**: who has to begin anew is at another node, or at one whose store was put back, copied or
//!   made anew since; or deletions were forgotten since, or the space was wiped.
//!
//! A store that was put back, and does not know it, may number other changes as a client has seen them numbered. Nothing tells
//! that to anybody before a peer does: a client whose sync point is taken there is not judged until it begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde_json::{Map, Value as Json};
use thence::causal::EventHash;
use thence::model::{ClientId, DeviceId, Event, Operation};
use thence::relay::Gone;
use thence::store::{StoreError, Upload, View};

use super::{Era, History, ObjectName, Shelf, Verdict, broken};

/// What is shown to thin clients.
pub(crate) type Shown = BTreeMap<ObjectName, Map<String, Json>>;

/// Where a sync point was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) node: usize,
    /// How often something else had been put on that disk by then.
    pub(crate) generation: u64,
    /// How often deletions had been forgotten there by then.
    pub(crate) forgot: u64,
    /// In which revision of the space.
    pub(crate) revision: u64,
}

impl Origin {
    /// Whether positions mean the same here and there.
    pub(crate) fn numbers_as(self, other: Self) -> bool {
        (self.node, self.generation) == (other.node, other.generation)
    }
}

/// All rows that a node shows.
pub(crate) fn shown_to(view: &View) -> Result<Shown, StoreError> {
    let mut shown = Shown::new();
    view.visit(None, &mut |collection, key, object| {
        shown.insert((collection.clone(), key), object.shown().unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    Ok(shown)
}

/// Whether a client that was told that there is no more has what the node showed.
pub(crate) fn check_has_all(client: &str, has: &Shown, shown: &Shown) -> Verdict {
    let differs = |name: &&ObjectName| has.get(*name) != shown.get(*name);
    let Some(name) = has.keys().chain(shown.keys()).find(differs) else { return Ok(()) };
    let (has, shows) = (has.get(name), shown.get(name));
    let detail = format!("{client} has {}/{} as {has:?}, the node shows {shows:?}", name.0, name.1);
    broken("thin clients miss nothing", detail)
}

/// Whether no id of an event that `device` writes when it knows `past` was borne before.
pub(super) fn check_once(
    history: &History,
    era: Era,
    device: DeviceId,
    past: &BTreeSet<EventHash>,
    event: &Event,
) -> Verdict {
    let mut ids = BTreeSet::new();
    for id in event.remarks.iter().filter_map(|(_, remark)| remark.id.as_ref()) {
        let before = history.bearing(era, id).find(|other| past.contains(other));
        if (before.is_some() && !history.forgotten.contains(&(device, era, id.clone()))) || !ids.insert(id) {
            let before = before.and_then(|before| history.dot(era, before));
            let detail = format!("{:?} bears {:?}, as {before:?} does, which its author knew", event.dot, id.as_str());
            return broken("an id takes effect once", detail);
        }
    }
    Ok(())
}

/// Whether what a client was told is taken lies on the disk of who said so. Returns what that is.
pub(crate) fn check_taken(
    history: &History,
    era: Era,
    shelf: Option<&Shelf>,
    upload: &Upload,
) -> Result<Vec<EventHash>, super::Broken> {
    let Some(id) = &upload.remark.id else { return Ok(Vec::new()) };
    let bears = |event: &EventHash| shelf.is_some_and(|shelf| shelf.events.contains(event));
    let taken: Vec<EventHash> = history.bearing(era, id).filter(bears).collect();
    // What is put is like nothing that was there before; other requests may change nothing.
    if taken.is_empty() && matches!(upload.request.operation, Operation::Put(_)) {
        return broken("durability", format!("{:?} is said to be taken, and lies nowhere", id.as_str()));
    }
    Ok(taken)
}

/// Whether a client whose sync point was made at `made` may have to begin anew at `here`.
pub(crate) fn check_reset(client: &str, gone: Gone, made: Origin, here: Origin, may_be_copied: bool) -> Verdict {
    let is_renumbered = !made.numbers_as(here);
    let is_due = match gone {
        Gone::Epoch => is_renumbered || may_be_copied,
        Gone::Retention => is_renumbered || made.forgot != here.forgot,
        Gone::Revision => made.revision != here.revision,
        Gone::Filter | Gone::Schema => false,
    };
    let detail = || format!("{client} has to begin anew at node {}, because of {gone:?}", here.node);
    if is_due { Ok(()) } else { broken("no reset without a cause", detail()) }
}

/// An id that a client may have given a write.
pub(crate) fn id_of(client: usize, number: u64) -> ClientId {
    let text = format!("c{client}-{number}");
    ClientId::try_from(text).unwrap_or_else(|error| unreachable!("{error}"))
}
