//! What somebody had seen of one object, as a token that they keep and give back.
//!
//! A client without a version vector cannot say which events it knows. It can say which state of an object it was shown:
//! the context that came with it. A write that comes with a context replaces what the client had seen, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::object::{FieldKind, Object, Slot};
use super::{Operation, Path};
use crate::causal::{Dot, VersionVector};
use crate::codec;

/// The longest context as text, in bytes. Who writes to one object through so many replicas that it is longer is shown
/// it all the same, and told that it is too long when it comes back.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;
const FORM: u8 = 1;
/// What so many counters and sets of an object showed is told in its context. Of an object with more nothing is, since a
/// context is also a header: who writes to one that has changed since is told to read it again.
const SHOWN_MAX: usize = 128;

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
    /// What counters and sets showed. Those change in parts, and what they showed before cannot be told from what they are
    /// now; but who writes back what they were shown leaves them alone, and who writes something else is refused.
    shown: BTreeMap<Digest, Shown>,
    /// Whether that is not known: there were more than [`SHOWN_MAX`], or nobody can say any more what was shown.
    is_untold: bool,
}

type Digest = [u8; 6];

/// What a counter or a set showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shown {
    is_set: bool,
    value: Digest,
}

impl Shown {
    /// In JSON, as far as a counter or a set can show that.
    fn of(json: &Json) -> Option<Self> {
        let (is_set, mut parts) = match json {
            Json::Number(number) => (false, vec![number.to_string()]),
            Json::Array(elements) => (true, elements.iter().map(Json::to_string).collect()),
            _ => return None,
        };
        // The order of a set's elements says nothing.
        parts.sort_unstable();
        Some(Self { is_set, value: digest_of(&parts) })
    }

    fn kind(self) -> FieldKind {
        if self.is_set { FieldKind::Set } else { FieldKind::Counter }
    }
}

fn digest_of(what: &impl Serialize) -> Digest {
    let mut digest = Digest::default();
    let length = digest.len();
    digest.copy_from_slice(&blake3::hash(&codec::encode(what)).as_bytes()[..length]);
    digest
}

/// The fields that hold counters and sets, as far as entries of the events are concerned that `is_of` agrees to.
fn counters_and_sets(object: &Object, is_of: impl Fn(Dot) -> bool) -> BTreeSet<&Path> {
    let entries = object.entries().filter(|(_, dot, _)| is_of(*dot));
    let paths = entries.filter_map(|(slot, ..)| match slot {
        Slot::Counter { path, .. } | Slot::Set(path) | Slot::Element { path, .. } => Some(path),
        _ => None,
    });
    paths.collect()
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
        let mut context = Self { revision, seen, digest: u64::from_le_bytes(digest), ..Self::default() };
        context.show(object, counters_and_sets(object, |_| true));
        context
    }

    /// Adds what these fields show, of which nothing is told yet.
    fn show(&mut self, object: &Object, paths: BTreeSet<&Path>) {
        self.is_untold |= self.shown.len() + paths.len() > SHOWN_MAX;
        if self.is_untold {
            self.shown.clear();
            return;
        }
        for path in paths {
            if let Some((FieldKind::Counter | FieldKind::Set, json)) = object.field(path).winner()
                && let Some(value) = Shown::of(&json)
            {
                self.shown.insert(digest_of(path), value);
            }
        }
    }

    /// Of whoever wrote an event, and saw nothing else.
    pub(crate) fn of_author(revision: u64, dot: Dot) -> Self {
        Self { revision, wrote: BTreeSet::from([dot]), is_untold: true, ..Self::default() }
    }

    /// Of whoever had seen this much and then did `operation` by the event `dot`, with which the object came to stand at
    /// `object`.
    pub(crate) fn after(
        mut self,
        revision: u64,
        dot: Dot,
        operation: &Operation,
        object: &Object,
        source_version: Option<i64>,
    ) -> Self {
        // Whoever had seen nothing had seen as much of this revision.
        (self.revision, self.digest) = (revision, 0);
        self.wrote.insert(dot);
        if self.covers(object) {
            let mut now = Self::of(self.revision, object, source_version);
            if matches!(operation, Operation::Put(_) | Operation::Patch(_)) {
                // Of counters and sets its writer was told nothing new, and goes on to repeat what they had shown.
                let known = self.shown.into_iter().filter(|(path, _)| now.shown.contains_key(path));
                let known: Vec<_> = known.collect();
                now.shown.extend(known);
            }
            return now;
        }
        // What is gone need not be replaced any more.
        let left: BTreeSet<Dot> = object.entries().map(|(_, dot, _)| dot).collect();
        self.wrote.retain(|dot| left.contains(dot));
        let left: BTreeSet<Digest> = counters_and_sets(object, |_| true).into_iter().map(digest_of).collect();
        self.shown.retain(|path, _| left.contains(path));
        // Whoever counts knows a counter, though they were never shown one.
        let mut own = counters_and_sets(object, |other| other == dot);
        own.retain(|path| !self.shown.contains_key(&digest_of(path)));
        self.show(object, own);
        self
    }

    /// Whether both were given with the same state of one object, and that is known whole.
    pub(crate) fn is_of_the_state_of(&self, other: &Self) -> bool {
        let state = |context: &Self| (context.revision, context.digest, context.wrote.is_empty());
        state(self) == state(other) && self.seen == other.seen && self.wrote.is_empty()
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

    /// Whether the field `path` showed this, if it was a counter or a set: which of them it was.
    pub(crate) fn repeated(&self, path: &Path, json: &Json) -> Option<FieldKind> {
        let shown = self.shown_at(path)?;
        (Shown::of(json)? == shown).then_some(shown.kind())
    }

    /// Which of both the field `path` of an object had been, if it was a counter or a set.
    pub(crate) fn kind_seen(&self, path: &Path, object: &Object) -> Option<FieldKind> {
        if self.is_untold {
            return object.kind(path).filter(|kind| matches!(kind, FieldKind::Counter | FieldKind::Set));
        }
        self.shown_at(path).map(Shown::kind)
    }

    fn shown_at(&self, path: &Path) -> Option<Shown> {
        // Most objects have neither, and many fields.
        (!self.shown.is_empty()).then(|| self.shown.get(&digest_of(path)).copied())?
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
    use serde_json::json;

    use super::*;
    use crate::causal::ReplicaId;

    #[test]
    fn a_context_comes_back_as_it_went() {
        let dot = |replica, counter| Dot::new(ReplicaId::from_bytes([replica; 16]), counter);
        let seen = VersionVector::from_iter([dot(1, 7), dot(2, u64::MAX)]);
        let wrote = BTreeSet::from([dot(1, 9), dot(3, 1)]);
        let shown = Shown::of(&json!(["x", 1])).expect("a set can show that");
        let shown = BTreeMap::from([(digest_of(&"n"), shown)]);
        for context in [
            Context::default(),
            Context::of_author(1, dot(1, 7)),
            Context { revision: 2, seen, wrote, digest: 9, shown, is_untold: true },
        ] {
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
