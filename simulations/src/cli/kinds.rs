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
        let first = without_lists(violation.detail.lines().next().unwrap_or_default());
        // Names of bytes are words with digits in them; names of objects have a slash.
        let is_name = |word: &str| word.contains(|c: char| c.is_ascii_digit() || c == '/');
        let words: Vec<&str> = first.split_whitespace().filter(|word| !is_name(word)).collect();
        Self { level, invariant: violation.invariant, words: words.join(" ") }
    }
}

/// A text in which of each list, and of whatever else stands in brackets, only this is left: whether anything is in it.
fn without_lists(text: &str) -> String {
    let (mut left, mut depth, mut is_empty) = (String::new(), 0_u32, true);
    for c in text.chars() {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' if depth == 1 => {
                left += if is_empty { "none" } else { "some" };
                (depth, is_empty) = (0, true);
            }
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => is_empty = false,
            c => left.push(c),
        }
    }
    left
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
        let missing = of("notes/k1: too much [], missing [(Register(Path([\"m\"])), e0b1cc90:12)], altered []");
        assert_eq!(
            missing,
            of("things/k: too much [], missing [(Alive, aaaaaaaa:1), (Alive, bbbbbbbb:2)], altered []")
        );
        assert_ne!(missing, of("notes/k1: too much [(Alive, aaaaaaaa:1)], missing [], altered []"));
    }
}
