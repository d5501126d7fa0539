//! One space as the protocol knows it, and what peers mean when they say what they have of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Millis;
use crate::causal::{Claims, Dot, Known, ReplicaId, VersionVector, Witness};
use crate::model::{Access, Revision};

#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) revision: Revision,
    /// The revision that the ledger was asked to go over to.
    pub(super) following: Option<Revision>,
    pub(super) access: Access,
    pub(super) known: Known,
    /// The same, counters only: what is durable here.
    pub(super) vector: VersionVector,
    /// That, and what is on its way to the disk.
    pub(super) incoming: VersionVector,
    /// The digest of `known`, until it changes.
    pub(super) digest: Option<[u8; 16]>,
}

impl Space {
    pub(super) fn digest(&mut self) -> [u8; 16] {
        let Self { known, digest, .. } = self;
        *digest.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_derive_key("thence 1 knowledge");
            for (replica, head, _) in known.heads() {
                hasher.update(replica.as_bytes());
                hasher.update(&head.counter.to_le_bytes());
                hasher.update(if planted!("digest-of-counters") { &[0; 32] } else { head.hash.as_bytes() });
            }
            let mut digest = [0; 16];
            digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            digest
        })
    }

    /// What a peer has, in the names that are used here.
    ///
    /// A peer that does not know yet that a history was split means, by an event beyond where it is split, one in a
    /// branch: unless that is the last of it, it is not looked up, and the peer may get some of it again. Where the
    /// peer's last event is not the one that bears its name here, nothing that it has under that id is certain; these
    /// ids are returned too.
    pub(super) fn translate(
        &self,
        claims: &Claims,
        distrusted: &BTreeMap<ReplicaId, Millis>,
    ) -> (VersionVector, BTreeSet<ReplicaId>) {
        let known = &self.known;
        let mut vector = VersionVector::new();
        let mut uncertain: BTreeSet<ReplicaId> = BTreeSet::new();
        for claim in claims.iter() {
            let id = claim.dot.replica;
            let is_it =
                known.head(id).map(|head| (head.counter == claim.dot.counter, head.hash.prefix() == claim.hash));
            match is_it {
                Some((true, false)) if !planted!("other-history-believed") => _ = uncertain.insert(known.root(id)),
                Some((false, _)) if distrusted.contains_key(&known.root(id)) => _ = uncertain.insert(known.root(id)),
                _ => self.translate_one(&claim).into_iter().for_each(|dot| vector.advance(dot)),
            }
        }
        uncertain.iter().flat_map(|root| known.family(*root)).for_each(|id| vector.forget(id));
        (vector, uncertain)
    }

    /// What a peer has that has this event and all before it.
    pub(super) fn translate_one(&self, claim: &Witness) -> Vec<Dot> {
        let (known, named) = (&self.known, claim.dot.replica);
        let end = known.counter(named);
        if !known.is_split(named) || claim.dot.counter <= end {
            return vec![claim.dot];
        }
        let is_it = |id: &ReplicaId| known.head(*id).is_some_and(|head| head.hash.prefix() == claim.hash);
        let last = known.family(known.root(named)).find(is_it).unwrap_or(named);
        known.lineage(last).map(|id| Dot::new(id, known.counter(id))).collect()
    }

    /// Replaces what is known, since some events have other names now.
    pub(super) fn rename(&mut self, known: Known) {
        self.vector = known.vector();
        self.incoming = self.vector.clone();
        self.known = known;
        self.digest = None;
    }
}
