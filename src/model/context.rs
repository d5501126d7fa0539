//! What somebody had seen of one object, as a token that they keep and give back.
//!
//! A client without a version vector cannot say which events it knows. It can say which state of an object it was shown:
//! the context that came with it. A write that comes with a context replaces what the client had seen, and nothing else.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use super::object::Object;
use crate::causal::{Dot, VersionVector};
use crate::codec;

/// The longest context as text, in bytes. Who writes to one object through so many replicas that it is longer is shown
/// it all the same, and told that it is too long when it comes back.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;
const FORM: u8 = 1;

/// What somebody had seen of one object.
///
/// Of each replica the last event that added something which was there. Events of a replica are taken in in order, so
/// whatever that replica had added before was there too, or was gone already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(VersionVector);

/// A text that is no context. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no context of a row; send the one that came with the row, or none")]
pub struct InvalidContext;

impl Context {
    /// Of whoever sees this state.
    pub fn of(object: &Object) -> Self {
        let mut seen = VersionVector::new();
        object.entries().for_each(|(_, dot, _)| seen.advance(dot));
        Self(seen)
    }

    /// The same, and what the event `dot` did besides.
    #[must_use]
    pub fn with(mut self, dot: Dot) -> Self {
        self.0.advance(dot);
        self
    }

    /// Whether nothing had been there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of an object had been seen.
    pub(crate) fn seen_of(&self, object: &Object) -> Object {
        let mut seen = Object::new();
        for (slot, dot, entry) in object.entries().filter(|(_, dot, _)| self.0.contains(*dot)) {
            seen.insert(slot.clone(), dot, entry.clone());
        }
        seen
    }

    /// The dots, for those who store it.
    pub(crate) fn vector(&self) -> &VersionVector {
        &self.0
    }

    /// From what [`Context::vector`] gave.
    pub(crate) fn from_vector(seen: VersionVector) -> Self {
        Self(seen)
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORM];
        bytes.extend(codec::encode(&self.0));
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
            Some((&FORM, seen)) => codec::decode("context", seen).map(Self).map_err(|_| InvalidContext),
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
        for context in [Context::default(), Context::default().with(dot(1, 7)).with(dot(2, u64::MAX))] {
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
