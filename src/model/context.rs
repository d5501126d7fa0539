//! What somebody had seen of one object, as a token that they keep and give back.
//!
//! A client without a version vector cannot say which events it knows. It can say which state of an object it was shown:
//! the context that came with it. A write that comes with a context replaces what the client had seen, and nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::Path;
use super::object::{Object, Slot};
use crate::causal::{Dot, VersionVector};
use crate::codec;

/// The longest context as text, in bytes. Who writes to one object through so many replicas that it is longer is shown
/// it all the same, and told that it is too long when it comes back.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;
const FORM: u8 = 1;

/// What somebody had seen of one object.
///
/// Of each replica the last event that added something which was there. Events of a replica are taken in in order, so
/// whatever that replica had added before was there too, or was gone already. Only what somebody wrote themselves stands
/// apart: a relay writes for many, so who wrote its last event has not seen the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Of the space: what was seen in one is nothing in another.
    revision: u64,
    seen: VersionVector,
    wrote: BTreeSet<Dot>,
    /// Of all that was there, if it is known: what is only removed, or only called another version by its client, leaves the
    /// rest as it was, and is a change all the same.
    digest: u64,
}

/// A text that is no context. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no context of a row; send the one that came with the row, or none")]
pub struct InvalidContext;

impl Context {
    /// Of whoever sees this state, with the version that a client gave it, if one did.
    pub fn of(revision: u64, object: &Object, source_version: Option<i64>) -> Self {
        let mut seen = VersionVector::new();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode(&source_version));
        for (slot, dot, _) in object.entries() {
            seen.advance(dot);
            hasher.update(&codec::encode(&(slot, dot)));
        }
        let mut digest = [0; 8];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self { revision, seen, wrote: BTreeSet::new(), digest: u64::from_le_bytes(digest) }
    }

    /// Of whoever wrote an event, and saw nothing else.
    pub(crate) fn of_author(revision: u64, dot: Dot) -> Self {
        Self { revision, seen: VersionVector::new(), wrote: BTreeSet::from([dot]), digest: 0 }
    }

    /// Of whoever had seen this much and then wrote the event `dot`, with which the object came to stand at `object`.
    pub(crate) fn after(mut self, revision: u64, dot: Dot, object: &Object, source_version: Option<i64>) -> Self {
        // Whoever had seen nothing had seen as much of this revision.
        (self.revision, self.digest) = (revision, 0);
        self.wrote.insert(dot);
        if self.covers(object) {
            return Self::of(self.revision, object, source_version);
        }
        // What is gone need not be replaced any more.
        let left: BTreeSet<Dot> = object.entries().map(|(_, dot, _)| dot).collect();
        self.wrote.retain(|dot| left.contains(dot));
        self
    }

    /// The revision of the space in which it was seen.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether nothing had been there.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.wrote.is_empty()
    }

    fn contains(&self, dot: Dot) -> bool {
        self.seen.contains(dot) || self.wrote.contains(&dot)
    }

    /// Whether all of an object had been seen.
    pub(crate) fn covers(&self, object: &Object) -> bool {
        object.entries().all(|(_, dot, _)| self.contains(dot))
    }

    /// The counters that had been seen, and were counted on since: a run of a counter has one entry, its latest.
    pub(crate) fn counted(&self, object: &Object) -> BTreeSet<Path> {
        let unseen = object.entries().filter(|(_, dot, _)| !self.contains(*dot));
        unseen
            .filter_map(|(slot, ..)| match slot {
                Slot::Counter { path, replica, run } if self.contains(Dot::new(*replica, *run)) => Some(path.clone()),
                _ => None,
            })
            .collect()
    }

    /// What of an object had been seen.
    pub(crate) fn seen_of(&self, object: &Object) -> Object {
        let mut seen = Object::new();
        for (slot, dot, entry) in object.entries().filter(|(_, dot, _)| self.contains(*dot)) {
            seen.insert(slot.clone(), dot, entry.clone());
        }
        seen
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORM];
        bytes.extend(codec::encode(self));
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Context {
    type Err = InvalidContext;

    fn from_str(text: &str) -> Result<Self, InvalidContext> {
        if text.len() > CONTEXT_BYTES_MAX {
            return Err(InvalidContext);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidContext)?;
        match bytes.split_first() {
            Some((&FORM, seen)) => codec::decode("context", seen).map_err(|_| InvalidContext),
            _ => Err(InvalidContext),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::ReplicaId;

    #[test]
    fn a_context_comes_back_as_it_went() {
        let dot = |replica, counter| Dot::new(ReplicaId::from_bytes([replica; 16]), counter);
        let seen = VersionVector::from_iter([dot(1, 7), dot(2, u64::MAX)]);
        let wrote = BTreeSet::from([dot(1, 9), dot(3, 1)]);
        for context in
            [Context::default(), Context::of_author(1, dot(1, 7)), Context { revision: 2, seen, wrote, digest: 9 }]
        {
            let text = context.to_string();
            assert_eq!(text.parse(), Ok(context));
            let mut longer = text.clone();
            longer.push('A');
            for broken in [&text[1..], &text[..text.len() - 1], longer.as_str(), "", "AA", "?", "é"] {
                assert!(broken.parse::<Context>() != text.parse::<Context>(), "{broken:?}");
            }
        }
    }
}
