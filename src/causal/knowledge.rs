//! What a node claims to know, and about which part of a space.
//!
//! **Invariant**: every claim is true. A node whose knowledge of a range covers a dot has joined that event's effect
//! on the range; so within a range, *covered and absent means deleted*.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Dot, EventHash, HashPrefix, ReplicaId, VersionVector, Witness};

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

/// What an event says of its own place in causality: all that decides whether it may be applied now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Its name.
    pub dot: Dot,
    /// The hash of its replica's event before it, or [`EventHash::start`].
    pub previous: EventHash,
    /// Its own hash.
    pub hash: EventHash,
    /// Its causal depth.
    pub depth: u64,
    /// Its direct dependencies: events that were known when it was written, and that nothing else known then already
    /// depended on.
    pub dependencies: &'a [Witness],
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
    branches: BTreeMap<ReplicaId, Branch>,
    /// What branches go on from.
    split: BTreeSet<ReplicaId>,
}

/// One of several histories that go on from the same event of one replica: its store was copied, or put back to an
/// older state, and wrote twice under one id.
///
/// From where they part each history counts as a replica of its own, under an id that is made of the replica's and the
/// hash of the branch's first event: every node that knows of the branches gives them the same ids, in whatever order
/// it learnt of them. What they go on from is *split*: it ends there, and never grows again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The id under which all of it was written.
    pub root: ReplicaId,
    /// What it goes on from: the root itself, or another branch.
    pub parent: ReplicaId,
    /// How many events of the root's chain come before its first.
    pub after: u64,
    /// The hash of its first event.
    pub first: EventHash,
}

impl Known {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            heads: BTreeMap::new(),
            tips: BTreeSet::new(),
            depth: 0,
            branches: BTreeMap::new(),
            split: BTreeSet::new(),
        }
    }

    /// Nothing but where replicas are split; none unless every branch goes on from its root, by way of others of the same
    /// root or at once.
    pub fn of_branches(branches: impl IntoIterator<Item = (ReplicaId, Branch)>) -> Option<Self> {
        let mut known = Self::new();
        branches.into_iter().for_each(|(id, branch)| known.set_branch(id, branch));
        let mut rooted: BTreeSet<ReplicaId> = BTreeSet::new();
        for (mut id, branch) in &known.branches {
            let mut passed: BTreeSet<ReplicaId> = BTreeSet::new();
            while *id != branch.root && !rooted.contains(id) {
                let here = known.branches.get(id).filter(|here| here.root == branch.root)?;
                if known.offset(here.parent) > here.after || !passed.insert(*id) {
                    return None;
                }
                id = &here.parent;
            }
            if known.root(*id) != branch.root {
                return None;
            }
            rooted.append(&mut passed);
        }
        Some(known)
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

    /// All branches, by id.
    pub fn branches(&self) -> impl Iterator<Item = (ReplicaId, &Branch)> + '_ {
        self.branches.iter().map(|(id, branch)| (*id, branch))
    }

    /// The branch that `id` names, if it is one.
    pub fn branch(&self, id: ReplicaId) -> Option<&Branch> {
        self.branches.get(&id)
    }

    /// Gives a branch its id, or tells what it goes on from now.
    pub fn set_branch(&mut self, id: ReplicaId, branch: Branch) {
        self.branches.insert(id, branch);
        self.split.insert(branch.parent);
    }

    /// Ends the history of `id` with `last`, or before its first event. What came after it is `rest` from now on.
    pub fn split(&mut self, id: ReplicaId, last: Option<Head>, rest: (ReplicaId, Branch)) {
        let (rest, branch) = rest;
        for child in self.branches.values_mut().filter(|child| child.parent == id) {
            child.parent = rest;
        }
        self.branches.insert(rest, branch);
        self.split = self.branches.values().map(|branch| branch.parent).collect();
        let before = last.map_or(0, |last| last.counter);
        if let Some(head) = self.heads.remove(&id) {
            let tip = self.tips.remove(&id);
            self.set(rest, Head { counter: head.counter - before, ..head }, tip);
        }
        if let Some(last) = last {
            self.set(id, last, false);
        }
    }

    /// Whether the history of `id` ends where others go on from it.
    pub fn is_split(&self, id: ReplicaId) -> bool {
        self.split.contains(&id)
    }

    /// The id under which the events of `id` were written.
    pub fn root(&self, id: ReplicaId) -> ReplicaId {
        self.branches.get(&id).map_or(id, |branch| branch.root)
    }

    /// How many events of the root's chain come before the first of `id`.
    pub fn offset(&self, id: ReplicaId) -> u64 {
        self.branches.get(&id).map_or(0, |branch| branch.after)
    }

    /// A root and all of its branches.
    pub fn family(&self, root: ReplicaId) -> impl Iterator<Item = ReplicaId> + '_ {
        let branches = self.branches.iter().filter(move |(_, branch)| branch.root == root).map(|(id, _)| *id);
        std::iter::once(root).chain(branches)
    }

    /// From `id` back to its root: each goes on from the next.
    pub fn lineage(&self, id: ReplicaId) -> impl Iterator<Item = ReplicaId> + '_ {
        std::iter::successors(Some(id), |id| self.branches.get(id).map(|branch| branch.parent))
    }

    /// The last known event of `id`, or what its first event goes on from.
    pub fn predecessor(&self, id: ReplicaId) -> Option<&Head> {
        self.lineage(id).find_map(|id| self.heads.get(&id))
    }

    /// The highest counter known of `id`; 0 if nothing is.
    pub fn counter(&self, id: ReplicaId) -> u64 {
        self.heads.get(&id).map_or(0, |head| head.counter)
    }

    /// The last known event of `id`, if anything is known of it.
    pub fn witness(&self, id: ReplicaId) -> Option<Witness> {
        let head = self.heads.get(&id)?;
        Some(Witness { dot: Dot::new(id, head.counter), hash: head.hash.prefix() })
    }

    /// What is told to others.
    pub fn claims(&self) -> Claims {
        self.heads.keys().filter_map(|id| self.witness(*id)).collect()
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
    pub fn dependencies(&self, author: ReplicaId) -> Vec<Witness> {
        let forgotten = usize::from(planted!("dependency-forgotten"));
        let tips = self.tips.iter().filter(|&&replica| replica != author).skip(forgotten);
        tips.filter_map(|&replica| self.witness(replica)).collect()
    }

    /// Whether an event can be applied now. See [`Inadmissible`] for what to do when it cannot.
    pub fn admit(&self, event: &Proposal<'_>) -> Result<Admission, Inadmissible> {
        let Proposal { dot, previous, hash, depth, dependencies } = *event;
        let head = self.heads.get(&dot.replica);
        let known = head.map_or(0, |head| head.counter);
        if dot.counter <= known {
            // Only the head's own hash is at hand: whoever has the log looks further down.
            let forked = head.is_some_and(|head| head.counter == dot.counter && head.hash != hash);
            return if forked { Err(Inadmissible::Fork { dot }) } else { Ok(Admission::Known) };
        }
        if dot.counter - known > 1 {
            return Err(Inadmissible::Gap { dot, known });
        }
        let before = self.predecessor(dot.replica);
        if self.is_split(dot.replica)
            || before.map_or_else(|| EventHash::start(self.root(dot.replica)), |head| head.hash) != previous
        {
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
        let depth_min = before.map_or(0, |head| head.depth).saturating_add(1);
        let depth_max = self.depth().saturating_add(1);
        if depth < depth_min || depth > depth_max && !planted!("depth-unchecked") {
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
        if !self.heads.contains_key(&dot.replica) {
            // The first event of a branch depends on what the branch goes on from.
            let before = self.lineage(dot.replica).find(|id| self.heads.contains_key(id));
            changed.extend(before.filter(|id| self.tips.remove(id)));
        }
        for dependency in dependencies {
            let is_head = self.heads.get(&dependency.dot.replica).is_some_and(|h| h.counter == dependency.dot.counter);
            if is_head && !planted!("dependencies-pile-up") && self.tips.remove(&dependency.dot.replica) {
                changed.insert(dependency.dot.replica);
            }
        }
        self.set(dot.replica, Head { counter: dot.counter, depth, hash }, true);
        changed
    }
}

/// A version vector whose every entry bears the beginning of its event's hash, so that whoever hears it can tell whether
/// it is their own history that is claimed, or another that was written under the same ids.
///
/// Its serial form is its witnesses in replica order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Witness>", into = "Vec<Witness>")]
pub struct Claims(BTreeMap<ReplicaId, (u64, HashPrefix)>);

impl Claims {
    /// The last event claimed of every replica, in replica order.
    pub fn iter(&self) -> impl Iterator<Item = Witness> + '_ {
        let witness = |(&replica, &(counter, hash)): (&ReplicaId, &(u64, HashPrefix))| {
            let dot = Dot::new(replica, counter);
            Witness { dot, hash }
        };
        self.0.iter().map(witness)
    }

    /// Whether the event named `dot` is claimed.
    pub fn contains(&self, dot: Dot) -> bool {
        self.0.get(&dot.replica).is_some_and(|(counter, _)| dot.counter <= *counter)
    }

    /// The number of replicas of which anything is claimed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Witness> for Claims {
    fn from_iter<I: IntoIterator<Item = Witness>>(witnesses: I) -> Self {
        let entries = witnesses.into_iter().filter(|witness| witness.dot.counter > 0);
        Self(entries.map(|witness| (witness.dot.replica, (witness.dot.counter, witness.hash))).collect())
    }
}

impl From<Vec<Witness>> for Claims {
    fn from(witnesses: Vec<Witness>) -> Self {
        witnesses.into_iter().collect()
    }
}

impl From<Claims> for Vec<Witness> {
    fn from(claims: Claims) -> Self {
        claims.iter().collect()
    }
}

/// What a node claims to know of a space: key ranges in order and without overlap, each with what is known of it.
///
/// One full range is the usual case. A node that takes only a part of a space, or that is in the middle of taking
/// state, holds several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(KeyRange, Claims)>", into = "Vec<(KeyRange, Claims)>")]
pub struct Knowledge {
    ranges: Vec<(KeyRange, Claims)>,
}

impl Knowledge {
    /// The same for a whole space.
    pub fn full(claims: Claims) -> Self {
        Self { ranges: vec![(KeyRange::FULL, claims)] }
    }

    /// These ranges; none if they overlap or are out of order.
    pub fn new(ranges: Vec<(KeyRange, Claims)>) -> Option<Self> {
        let proper = ranges.iter().all(|(range, _)| range.to.as_ref().is_none_or(|to| range.from < *to));
        let ordered = proper && ranges.windows(2).all(|pair| pair[0].0.lies_before(&pair[1].0));
        ordered.then_some(Self { ranges })
    }

    /// What is claimed, if this is one full range.
    pub fn as_full(&self) -> Option<&Claims> {
        match self.ranges.as_slice() {
            [(range, claims)] if *range == KeyRange::FULL => Some(claims),
            _ => None,
        }
    }

    /// The ranges in key order.
    pub fn ranges(&self) -> impl Iterator<Item = &(KeyRange, Claims)> + '_ {
        self.ranges.iter()
    }

    /// Whether the effect of `dot` on `key` is known.
    pub fn contains(&self, key: &[u8], dot: Dot) -> bool {
        self.ranges.iter().any(|(range, claims)| range.contains(key) && claims.contains(dot))
    }
}

impl TryFrom<Vec<(KeyRange, Claims)>> for Knowledge {
    type Error = &'static str;

    fn try_from(ranges: Vec<(KeyRange, Claims)>) -> Result<Self, Self::Error> {
        Self::new(ranges).ok_or("key ranges overlap or are out of order")
    }
}

impl From<Knowledge> for Vec<(KeyRange, Claims)> {
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

    fn event(dot: Dot, previous: u8, own: u8, depth: u64, dependencies: &[Witness]) -> Proposal<'_> {
        let previous = if previous == 0 { EventHash::start(dot.replica) } else { hash(previous) };
        Proposal { dot, previous, hash: hash(own), depth, dependencies }
    }

    /// A wrote one event, then B wrote one that had seen it.
    fn story() -> Known {
        let mut known = Known::new();
        known.advance(&event(Dot::new(A, 1), 0, 10, 1, &[]));
        let seen = [Witness { dot: Dot::new(A, 1), hash: hash(10).prefix() }];
        let second = event(Dot::new(B, 1), 0, 20, 2, &seen);
        assert_eq!(known.admit(&second), Ok(Admission::Next));
        assert_eq!(known.advance(&second), BTreeSet::from([A, B]));
        known
    }

    #[test]
    fn a_new_event_depends_on_what_nothing_else_depends_on() {
        let known = story();
        assert_eq!(known.dependencies(A), [Witness { dot: Dot::new(B, 1), hash: hash(20).prefix() }]);
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
        let missing = [Witness { dot: later, hash: [0; 16] }];
        assert_eq!(
            known.admit(&event(dot, 10, 11, 3, &missing)),
            Err(Inadmissible::Dependency { dot, dependency: later })
        );
        let other = [Witness { dot: Dot::new(B, 1), hash: [7; 16] }];
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
        let seen = [Witness { dot: Dot::new(A, u64::MAX), hash: hash(10).prefix() }];
        assert_eq!(known.admit(&event(Dot::new(B, 1), 0, 20, u64::MAX, &seen)), Ok(Admission::Next));
        let gap = Err(Inadmissible::Gap { dot: Dot::new(B, u64::MAX), known: 0 });
        assert_eq!(known.admit(&event(Dot::new(B, u64::MAX), 0, 20, 1, &seen)), gap);
    }

    #[test]
    fn branches_lead_to_their_root() {
        let branch = |root, parent, after| Branch { root, parent, after, first: hash(1) };
        let ids: Vec<ReplicaId> = (3..=6).map(|n| ReplicaId::from_bytes([n; 16])).collect();
        let sound = [(ids[0], branch(A, A, 2)), (ids[1], branch(A, ids[0], 2)), (ids[2], branch(A, ids[1], 5))];
        assert_eq!(Known::of_branches(sound).map(|known| known.lineage(ids[2]).count()), Some(4));
        for damaged in [branch(A, ids[3], 9), branch(B, ids[0], 9), branch(A, B, 9), branch(A, ids[2], 4)] {
            assert_eq!(Known::of_branches(sound.into_iter().chain([(ids[3], damaged)])), None, "{damaged:?}");
        }
        let circle = [(ids[0], branch(A, ids[1], 2)), (ids[1], branch(A, ids[0], 2))];
        assert_eq!(Known::of_branches(circle), None);
    }

    #[test]
    fn ranges_are_ordered_and_disjoint() {
        let low = KeyRange::new(b"a".to_vec(), Some(b"m".to_vec())).expect("a < m");
        let high = KeyRange::new(b"m".to_vec(), None).expect("no end");
        assert!(KeyRange::new(b"m".to_vec(), Some(b"a".to_vec())).is_none());
        let claims: Claims = [Witness { dot: Dot::new(A, 1), hash: [7; 16] }].into_iter().collect();
        assert!(Knowledge::new(vec![(high.clone(), claims.clone()), (low.clone(), claims.clone())]).is_none());
        let partial = Knowledge::new(vec![(low, claims.clone()), (high, Claims::default())]).expect("in order");
        assert!(partial.contains(b"b", Dot::new(A, 1)) && !partial.contains(b"z", Dot::new(A, 1)));
        assert_eq!(partial.as_full(), None);
        assert_eq!(Knowledge::full(claims.clone()).as_full(), Some(&claims));
    }

    #[test]
    fn splitting_a_history_gives_its_end_another_name() {
        let mut known = story();
        known.advance(&event(Dot::new(A, 2), 10, 11, 2, &[]));
        let rest = ReplicaId::from_bytes([11; 16]);
        let branch = Branch { root: A, parent: A, after: 1, first: hash(11) };
        known.split(A, Some(Head { counter: 1, depth: 1, hash: hash(10) }), (rest, branch));
        let dots: Vec<Dot> = known.vector().iter().collect();
        assert_eq!(dots, [Dot::new(A, 1), Dot::new(B, 1), Dot::new(rest, 1)]);
        assert!(known.is_tip(rest) && !known.is_tip(A) && known.is_tip(B));
        // Once more, before its first event: nothing of A's own is left.
        let mut other = Known::new();
        other.advance(&event(Dot::new(A, 1), 0, 10, 1, &[]));
        other.split(A, None, (rest, Branch { after: 0, ..branch }));
        assert_eq!(other.vector().iter().collect::<Vec<_>>(), [Dot::new(rest, 1)]);
    }

    /// A wrote two events; then another copy of its store turned out to have gone on from the first one too.
    #[test]
    fn a_branch_goes_on_from_where_its_replica_is_split() {
        let (one, two) = (ReplicaId::from_bytes([11; 16]), ReplicaId::from_bytes([12; 16]));
        let branch = |first| Branch { root: A, parent: A, after: 1, first: hash(first) };
        let mut known = Known::of_branches([(one, branch(11)), (two, branch(12))]).expect("both go on from it");
        let early = event(Dot::new(one, 1), 10, 11, 2, &[]);
        assert_eq!(known.admit(&early), Err(Inadmissible::Fork { dot: Dot::new(one, 0) }), "A's first is not here yet");
        known.advance(&event(Dot::new(A, 1), 0, 10, 1, &[]));
        assert_eq!(known.advance(&early), BTreeSet::from([A, one]), "A's first is no tip any more");
        assert_eq!(known.advance(&event(Dot::new(two, 1), 10, 12, 2, &[])), BTreeSet::from([two]));
        let third = event(Dot::new(A, 2), 10, 13, 2, &[]);
        assert_eq!(known.admit(&third), Err(Inadmissible::Fork { dot: Dot::new(A, 1) }), "A itself ends there");
        let seen: Vec<Dot> = known.dependencies(B).iter().map(|witness| witness.dot).collect();
        assert_eq!(seen, [Dot::new(one, 1), Dot::new(two, 1)]);
        assert_eq!((known.root(two), known.offset(two), known.is_split(A)), (A, 1, true));
        assert_eq!(known.lineage(two).collect::<Vec<_>>(), [two, A]);
    }
}
