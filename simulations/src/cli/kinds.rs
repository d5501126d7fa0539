//! Failures, told apart: by level, by invariant, and by what is said of them, without numbers.

use std::collections::BTreeMap;

use crate::level::Level;
use crate::oracles::Violation;

/// What makes two failures the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) level: Level,
    pub(super) invariant: &'static str,
    words: String,
}

impl Kind {
    pub(super) fn of(level: Level, violation: &Violation) -> Self {
        // Names of bytes are words with digits in them.
        let first = violation.detail.lines().next().unwrap_or_default();
        let has_digit = |word: &str| word.contains(|c: char| c.is_ascii_digit());
        let words = first.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty() && !has_digit(word));
        let mut words: Vec<&str> = words.collect();
        // However many of them are told of.
        words.dedup();
        Self { level, invariant: violation.invariant, words: words.join(" ") }
    }
}

/// The seeds of each kind.
pub(super) type Kinds = BTreeMap<Kind, Vec<u64>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_make_a_kind() {
        let of = |detail: &str| {
            let (at, node, detail) = (7, Some(1), detail.to_owned());
            Kind::of(Level::Core, &Violation { invariant: "true claims", at, node, detail })
        };
        let first = of("an opening covers 1d5f0a22:7, which is not on that disk");
        assert_eq!(first, of("an opening covers e0b1cc90:12, which is not on that disk"));
        assert_ne!(first, of("an acknowledgement covers e0b1cc90:12, which is not on that disk"));
    }
}
