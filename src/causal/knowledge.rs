//! What a node claims to know, and about which part of a space.
//!
//! **Invariant**: every claim is true. A node whose knowledge of a range covers a dot has joined that event's effect
//! on the range; so within a range, *covered and absent means deleted*.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Dot, EventHash, HashPrefix, ReplicaId, VersionVector};

/// An interval of object keys: `from` is the first key inside, `to` the first one after it, or none for no end.
/// Keys are compared as the bytes of collection, a zero byte, and object key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRange {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// A whole space.
    pub const FULL: Self = Self { from: Vec::new(), to: None };

    /// The interval `from <= key < to`; none if it would be empty.
    pub fn new(from: Vec<u8>, to: Option<Vec<u8>>) -> Option<Self> {
        to.as_ref().is_none_or(|to| from < *to).then_some(Self { from, to })
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }

    /// Whether every key of this interval is below every key of `other`.
    fn lies_before(&self, other: &Self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= other.from)
    }
}

/// The last known event of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its counter; all below it are known too.
    pub counter: u64,
    /// Its causal depth: 1 + the greatest depth that its author knew.
    pub depth: u64,
    /// Its hash, chained over all events below it.
    pub hash: EventHash,
}

/// A direct dependency: an event that was known when another was written, and that nothing else known then already
/// depended on. The hash prefix shows when a dot was used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The event depended on.
    pub dot: Dot,
    /// The first eight bytes of its hash.
    pub hash: HashPrefix,
}

/// What an event says of its own place in causality: all that decides whether it may be applied now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Its name.
    pub dot: Dot,
    /// The hash of its replica's event before it, or [`EventHash::START`].
    pub previous: EventHash,
    /// Its own hash.
    pub hash: EventHash,
    /// Its causal depth.
    pub depth: u64,
    /// Its direct dependencies.
    pub dependencies: &'a [Dependency],
}

/// The answer to a [`Proposal`] that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is the next event of its replica, and all that it depends on is here.
    Next,
    /// It is here already.
    Known,
}

/// Why an event cannot be applied. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Inadmissible {
    /// An earlier event of the same replica is missing: ask for what lies between.
    #[error("event {dot:?} comes after a gap: only {known} are known")]
    Gap {
        /// The event.
        dot: Dot,
        /// The highest counter known of its replica.
        known: u64,
    },
    /// An event that it depends on is missing: ask for it.
    #[error("event {dot:?} depends on {dependency:?}, which is not here")]
    Dependency {
        /// The event.
        dot: Dot,
        /// What it needs.
        dependency: Dot,
    },
    /// Two events bear one name: a replica id was used twice, after a restored backup or a copied store, or on purpose.
    #[error("two events are named {dot:?}")]
    Fork {
        /// The name.
        dot: Dot,
    },
    /// The depth is not what its dependencies allow; an event forged so would win every conflict for ever.
    #[error("event {dot:?} claims depth {depth}, at most {depth_max} is possible")]
    Depth {
        /// The event.
        dot: Dot,
        /// What it claims.
        depth: u64,
        /// What is possible.
        depth_max: u64,
    },
}

/// What is known of one key range: the head of every replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    heads: BTreeMap<ReplicaId, Head>,
    /// The replicas whose head no other known event depends on: the direct dependencies of the next local event.
    tips: BTreeSet<ReplicaId>,
    /// The greatest depth of any head.
    depth: u64,
}

impl Known {
    /// Nothing.
    pub const fn new() -> Self {
        Self { heads: BTreeMap::new(), tips: BTreeSet::new(), depth: 0 }
    }

    /// What is stored: heads, each with whether it is a tip.
    pub fn from_heads(heads: impl IntoIterator<Item = (ReplicaId, Head, bool)>) -> Self {
        let mut known = Self::new();
        for (replica, head, tip) in heads {
            known.set(replica, head, tip);
        }
        known
    }

    /// The head of `replica`, if anything is known of it.
    pub fn head(&self, replica: ReplicaId) -> Option<&Head> {
        self.heads.get(&replica)
    }

    /// Every head, in replica order, each with whether it is a tip.
    pub fn heads(&self) -> impl Iterator<Item = (ReplicaId, &Head, bool)> + '_ {
        self.heads.iter().map(|(replica, head)| (*replica, head, self.tips.contains(replica)))
    }

    /// Whether no other known event depends on the head of `replica`.
    pub fn is_tip(&self, replica: ReplicaId) -> bool {
        self.tips.contains(&replica)
    }

    /// Whether the event named `dot` is known.
    pub fn contains(&self, dot: Dot) -> bool {
        self.heads.get(&dot.replica).is_some_and(|head| dot.counter <= head.counter)
    }

    /// The counters alone.
    pub fn vector(&self) -> VersionVector {
        self.heads.iter().map(|(&replica, head)| Dot::new(replica, head.counter)).collect()
    }

    /// The greatest causal depth of any known event; 0 if none is known.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// The direct dependencies of an event that `author` writes now, in replica order.
    ///
    /// Its own last event is not among them: that one is implied by its counter and its chained hash.
    pub fn dependencies(&self, author: ReplicaId) -> Vec<Dependency> {
        self.tips
            .iter()
            .filter(|&&replica| replica != author)
            .filter_map(|&replica| {
                let head = self.heads.get(&replica)?;
                Some(Dependency { dot: Dot::new(replica, head.counter), hash: head.hash.prefix() })
            })
            .collect()
    }

    /// Whether an event can be applied now. See [`Inadmissible`] for what to do when it cannot.
    pub fn admit(&self, event: &Proposal<'_>) -> Result<Admission, Inadmissible> {
        let Proposal { dot, previous, hash, depth, dependencies } = *event;
        let head = self.heads.get(&dot.replica);
        let known = head.map_or(0, |head| head.counter);
        if dot.counter <= known {
            // Only the head's own hash is at hand; a fork further down shows in the chain above it.
            let forked = head.is_some_and(|head| head.counter == dot.counter && head.hash != hash);
            return if forked { Err(Inadmissible::Fork { dot }) } else { Ok(Admission::Known) };
        }
        if dot.counter - known > 1 {
            return Err(Inadmissible::Gap { dot, known });
        }
        if head.map_or(EventHash::START, |head| head.hash) != previous {
            return Err(Inadmissible::Fork { dot: Dot::new(dot.replica, known) });
        }
        for dependency in dependencies {
            match self.heads.get(&dependency.dot.replica) {
                Some(head) if dependency.dot.counter < head.counter => {}
                Some(head) if dependency.dot.counter == head.counter => {
                    if head.hash.prefix() != dependency.hash {
                        return Err(Inadmissible::Fork { dot: dependency.dot });
                    }
                }
                _ => return Err(Inadmissible::Dependency { dot, dependency: dependency.dot }),
            }
        }
        // Saturating, since heads also come from peers that vouch for state.
        let depth_min = head.map_or(0, |head| head.depth).saturating_add(1);
        let depth_max = self.depth().saturating_add(1);
        if depth < depth_min || depth > depth_max {
            return Err(Inadmissible::Depth { dot, depth, depth_max });
        }
        Ok(Admission::Next)
    }

    /// Takes over the head of one replica from another copy of the same knowledge.
    pub fn set(&mut self, replica: ReplicaId, head: Head, tip: bool) {
        self.heads.insert(replica, head);
        self.depth = self.depth.max(head.depth);
        if tip {
            self.tips.insert(replica);
        } else {
            self.tips.remove(&replica);
        }
    }

    /// Knows an event that [`Known::admit`] called [`Admission::Next`]. Returns the replicas whose entry changed.
    pub fn advance(&mut self, event: &Proposal<'_>) -> BTreeSet<ReplicaId> {
        let Proposal { dot, hash, depth, dependencies, .. } = *event;
        let mut changed = BTreeSet::from([dot.replica]);
        for dependency in dependencies {
            let is_head = self.heads.get(&dependency.dot.replica).is_some_and(|h| h.counter == dependency.dot.counter);
            if is_head && self.tips.remove(&dependency.dot.replica) {
                changed.insert(dependency.dot.replica);
            }
        }
        self.set(dot.replica, Head { counter: dot.counter, depth, hash }, true);
        changed
    }
}

/// What a node claims to know of a space: key ranges in order and without overlap, each with what is known of it.
///
/// One full range is the usual case. A node that takes only a part of a space, or that is in the middle of taking
/// state, holds several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(KeyRange, VersionVector)>", into = "Vec<(KeyRange, VersionVector)>")]
pub struct Knowledge {
    ranges: Vec<(KeyRange, VersionVector)>,
}

impl Knowledge {
    /// One vector for a whole space.
    pub fn full(vector: VersionVector) -> Self {
        Self { ranges: vec![(KeyRange::FULL, vector)] }
    }

    /// These ranges; none if they overlap or are out of order.
    pub fn new(ranges: Vec<(KeyRange, VersionVector)>) -> Option<Self> {
        let proper = ranges.iter().all(|(range, _)| range.to.as_ref().is_none_or(|to| range.from < *to));
        let ordered = proper && ranges.windows(2).all(|pair| pair[0].0.lies_before(&pair[1].0));
        ordered.then_some(Self { ranges })
    }

    /// The vector, if this is one full range.
    pub fn as_full(&self) -> Option<&VersionVector> {
        match self.ranges.as_slice() {
            [(range, vector)] if *range == KeyRange::FULL => Some(vector),
            _ => None,
        }
    }

    /// The ranges in key order.
    pub fn ranges(&self) -> impl Iterator<Item = &(KeyRange, VersionVector)> + '_ {
        self.ranges.iter()
    }

    /// Whether the effect of `dot` on `key` is known.
    pub fn contains(&self, key: &[u8], dot: Dot) -> bool {
        self.ranges.iter().any(|(range, vector)| range.contains(key) && vector.contains(dot))
    }
}

impl TryFrom<Vec<(KeyRange, VersionVector)>> for Knowledge {
    type Error = &'static str;

    fn try_from(ranges: Vec<(KeyRange, VersionVector)>) -> Result<Self, Self::Error> {
        Self::new(ranges).ok_or("key ranges overlap or are out of order")
    }
}

impl From<Knowledge> for Vec<(KeyRange, VersionVector)> {
    fn from(knowledge: Knowledge) -> Self {
        knowledge.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId::from_bytes([1; 16]);
    const B: ReplicaId = ReplicaId::from_bytes([2; 16]);

    fn hash(n: u8) -> EventHash {
        EventHash::from_bytes([n; 32])
    }

    fn event(dot: Dot, previous: u8, own: u8, depth: u64, dependencies: &[Dependency]) -> Proposal<'_> {
        let previous = if previous == 0 { EventHash::START } else { hash(previous) };
        Proposal { dot, previous, hash: hash(own), depth, dependencies }
    }

    /// A wrote one event, then B wrote one that had seen it.
    fn story() -> Known {
        let mut known = Known::new();
        known.advance(&event(Dot::new(A, 1), 0, 10, 1, &[]));
        let seen = [Dependency { dot: Dot::new(A, 1), hash: hash(10).prefix() }];
        let second = event(Dot::new(B, 1), 0, 20, 2, &seen);
        assert_eq!(known.admit(&second), Ok(Admission::Next));
        assert_eq!(known.advance(&second), BTreeSet::from([A, B]));
        known
    }

    #[test]
    fn a_new_event_depends_on_what_nothing_else_depends_on() {
        let known = story();
        assert_eq!(known.dependencies(A), [Dependency { dot: Dot::new(B, 1), hash: hash(20).prefix() }]);
        assert_eq!(known.dependencies(B), []);
        assert_eq!(known.depth(), 2);
    }

    #[test]
    fn gaps_missing_dependencies_forks_and_forged_depths_are_told_apart() {
        let known = story();
        let (dot, gap) = (Dot::new(A, 2), Dot::new(A, 3));
        assert_eq!(known.admit(&event(Dot::new(A, 1), 0, 10, 1, &[])), Ok(Admission::Known));
        assert_eq!(known.admit(&event(Dot::new(A, 1), 0, 11, 1, &[])), Err(Inadmissible::Fork { dot: Dot::new(A, 1) }));
        assert_eq!(known.admit(&event(gap, 10, 11, 3, &[])), Err(Inadmissible::Gap { dot: gap, known: 1 }));
        assert_eq!(known.admit(&event(dot, 99, 11, 3, &[])), Err(Inadmissible::Fork { dot: Dot::new(A, 1) }));
        let later = Dot::new(B, 2);
        let missing = [Dependency { dot: later, hash: [0; 8] }];
        assert_eq!(
            known.admit(&event(dot, 10, 11, 3, &missing)),
            Err(Inadmissible::Dependency { dot, dependency: later })
        );
        let other = [Dependency { dot: Dot::new(B, 1), hash: [7; 8] }];
        assert_eq!(known.admit(&event(dot, 10, 11, 3, &other)), Err(Inadmissible::Fork { dot: Dot::new(B, 1) }));
        for depth in [0, 1, 4, u64::MAX] {
            assert_eq!(
                known.admit(&event(dot, 10, 11, depth, &[])),
                Err(Inadmissible::Depth { dot, depth, depth_max: 3 })
            );
        }
        assert_eq!(known.admit(&event(dot, 10, 11, 3, &[])), Ok(Admission::Next));
    }

    #[test]
    fn heads_of_the_greatest_numbers_do_not_overflow() {
        let head = Head { counter: u64::MAX, depth: u64::MAX, hash: hash(10) };
        let known = Known::from_heads([(A, head, true)]);
        let seen = [Dependency { dot: Dot::new(A, u64::MAX), hash: hash(10).prefix() }];
        assert_eq!(known.admit(&event(Dot::new(B, 1), 0, 20, u64::MAX, &seen)), Ok(Admission::Next));
        let gap = Err(Inadmissible::Gap { dot: Dot::new(B, u64::MAX), known: 0 });
        assert_eq!(known.admit(&event(Dot::new(B, u64::MAX), 0, 20, 1, &seen)), gap);
    }

    #[test]
    fn ranges_are_ordered_and_disjoint() {
        let low = KeyRange::new(b"a".to_vec(), Some(b"m".to_vec())).expect("a < m");
        let high = KeyRange::new(b"m".to_vec(), None).expect("no end");
        assert!(KeyRange::new(b"m".to_vec(), Some(b"a".to_vec())).is_none());
        let vector: VersionVector = [Dot::new(A, 1)].into_iter().collect();
        assert!(Knowledge::new(vec![(high.clone(), vector.clone()), (low.clone(), vector.clone())]).is_none());
        let partial = Knowledge::new(vec![(low, vector.clone()), (high, VersionVector::new())]).expect("in order");
        assert!(partial.contains(b"b", Dot::new(A, 1)) && !partial.contains(b"z", Dot::new(A, 1)));
        assert_eq!(partial.as_full(), None);
        assert_eq!(Knowledge::full(vector.clone()).as_full(), Some(&vector));
    }
}
