//! How far somebody has read: replica → highest counter known with no gap below it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Dot, ReplicaId};

/// How two vectors stand to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causality {
    /// The left one knows strictly less.
    Before,
    /// Both know the same.
    Equal,
    /// The left one knows strictly more.
    After,
    /// Each knows something that the other does not.
    Concurrent,
}

/// A version vector. A replica that is absent stands at 0; no entry is ever stored as 0, so equal vectors are equal
/// values.
///
/// Its serial form is its dots in replica order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Dot>", into = "Vec<Dot>")]
pub struct VersionVector(BTreeMap<ReplicaId, u64>);

impl VersionVector {
    /// The vector that knows nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The highest counter known of `replica`; 0 if none is.
    pub fn counter(&self, replica: ReplicaId) -> u64 {
        self.0.get(&replica).copied().unwrap_or(0)
    }

    /// Whether the event named `dot` is known.
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.counter(dot.replica)
    }

    /// Knows all events of `dot.replica` up to and including `dot`. A vector never goes back.
    pub fn advance(&mut self, dot: Dot) {
        if dot.counter > 0 {
            let counter = self.0.entry(dot.replica).or_default();
            *counter = dot.counter.max(*counter);
        }
    }

    /// Knows nothing of `replica`. Only for what is believed of others, and turned out to be wrong.
    pub fn forget(&mut self, replica: ReplicaId) {
        self.0.remove(&replica);
    }

    /// Knows whatever either of the two knew.
    pub fn join(&mut self, other: &Self) {
        for dot in other.iter() {
            self.advance(dot);
        }
    }

    /// Whether this vector knows all that `other` knows.
    pub fn descends(&self, other: &Self) -> bool {
        other.iter().all(|dot| self.contains(dot))
    }

    /// How this vector stands to `other`.
    pub fn compare(&self, other: &Self) -> Causality {
        match (self.descends(other), other.descends(self)) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::After,
            (false, true) => Causality::Before,
            (false, false) => Causality::Concurrent,
        }
    }

    /// What this vector knows and `other` does not: per replica the first and the last missing counter.
    pub fn missing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (ReplicaId, u64, u64)> + 'a {
        self.iter().filter_map(|dot| {
            let known = other.counter(dot.replica);
            // Only then is there a next one: a liar may claim the last number that there is.
            (known < dot.counter).then(|| (dot.replica, known + 1, dot.counter))
        })
    }

    /// The number of events that this vector knows and `other` does not.
    pub fn count_missing_from(&self, other: &Self) -> u64 {
        self.missing_from(other).fold(0, |sum: u64, (_, first, last)| sum.saturating_add(last - first + 1))
    }

    /// The last known event of every replica, in replica order.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|(&replica, &counter)| Dot { replica, counter })
    }

    /// The number of replicas of which anything is known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::new();
        for dot in dots {
            vector.advance(dot);
        }
        vector
    }
}

impl From<Vec<Dot>> for VersionVector {
    fn from(dots: Vec<Dot>) -> Self {
        dots.into_iter().collect()
    }
}

impl From<VersionVector> for Vec<Dot> {
    fn from(vector: VersionVector) -> Self {
        vector.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(a: u64, b: u64) -> VersionVector {
        [dot(1, a), dot(2, b)].into_iter().collect()
    }

    fn dot(replica: u8, counter: u64) -> Dot {
        Dot::new(ReplicaId::from_bytes([replica; 16]), counter)
    }

    #[test]
    fn zero_is_not_an_entry() {
        assert_eq!(vector(0, 3).len(), 1);
        assert_eq!(vector(0, 0), VersionVector::new());
    }

    #[test]
    fn compares_as_a_partial_order() {
        assert_eq!(vector(1, 2).compare(&vector(1, 2)), Causality::Equal);
        assert_eq!(vector(1, 2).compare(&vector(1, 3)), Causality::Before);
        assert_eq!(vector(2, 2).compare(&vector(1, 2)), Causality::After);
        assert_eq!(vector(2, 1).compare(&vector(1, 2)), Causality::Concurrent);
    }

    #[test]
    fn join_is_the_least_upper_bound() {
        let mut joined = vector(4, 1);
        joined.join(&vector(2, 3));
        assert_eq!(joined, vector(4, 3));
    }

    #[test]
    fn names_exactly_what_is_missing() {
        let (mine, theirs) = (vector(5, 2), vector(3, 4));
        let missing: Vec<_> = mine.missing_from(&theirs).collect();
        assert_eq!(missing, [(ReplicaId::from_bytes([1; 16]), 4, 5)]);
        assert_eq!(mine.count_missing_from(&theirs), 2);
        assert!(mine.contains(dot(1, 5)) && !mine.contains(dot(1, 6)));
    }

    #[test]
    fn a_claim_of_the_last_number_that_there_is_lacks_nothing() {
        let (mine, liar) = (vector(5, 2), vector(u64::MAX, 1));
        let missing: Vec<_> = mine.missing_from(&liar).collect();
        assert_eq!(missing, [(ReplicaId::from_bytes([2; 16]), 2, 2)]);
        assert_eq!(liar.count_missing_from(&VersionVector::new()), u64::MAX);
    }
}
