//! The generations of a space: an owner can begin it anew, and then nothing of what was in it counts any more.
//!
//! **Invariant**: a revision after the first one is vouched for by an owner's signature, and who that owner is follows
//! from how the space began: a chain of vouchers leads from its creator to it. So any node can tell, however long it was
//! away and whatever is left of the events that said so.
//!
//! Owners who begin a space anew without knowing of one another come to the same revision: it has both their words, and
//! what is written in it is joined like anything else.
//!
//! What it does not do: hold owners back whose grant was taken away. What they were vouched for stays true.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{DeviceId, DeviceKey, SpaceId};
use crate::codec;

/// So many owners may lie between the creator of a space and one that begins it anew.
pub const VOUCHERS_MAX: usize = 16;
/// So many owners may begin a space anew without knowing of one another.
pub const WIPES_MAX: usize = 16;
/// The highest number of a revision: no space is begun anew so often.
const REVISION_MAX: u64 = 1 << 48;

/// An owner's word that another device owns a space too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voucher {
    /// The owner.
    pub by: DeviceId,
    #[serde(with = "codec::signature")]
    signature: [u8; 64],
}

impl Voucher {
    /// The word of whoever has `key` that `device` owns `space`.
    pub fn sign(space: SpaceId, device: DeviceId, key: &DeviceKey) -> Self {
        Self { by: key.device(), signature: key.sign(&Self::message(space, device)) }
    }

    /// Whether it is the word of [`Voucher::by`] that `device` owns `space`.
    pub fn is_for(&self, space: SpaceId, device: DeviceId) -> bool {
        self.by.verifies(&Self::message(space, device), &self.signature)
    }

    fn message(space: SpaceId, device: DeviceId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 owner");
        hasher.update(space.as_bytes()).update(device.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// An owner's word that a space begins anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Wipe {
    by: DeviceId,
    /// How it came to own the space: the first one is for it, each of the others for whoever gave the one before it. The
    /// last one is the creator's; the creator itself needs none.
    vouchers: Vec<Voucher>,
    #[serde(with = "codec::signature")]
    signature: [u8; 64],
}

impl Wipe {
    fn message(space: SpaceId, number: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 wipe");
        hasher.update(space.as_bytes()).update(&number.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    fn is_genuine(&self, space: SpaceId, creator: DeviceId, number: u64) -> bool {
        if self.vouchers.len() > VOUCHERS_MAX {
            return false;
        }
        // From the creator on: whoever made the whole chain up has one signature looked at, and no more.
        let mut owner = creator;
        for (at, voucher) in self.vouchers.iter().enumerate().rev() {
            let next = at.checked_sub(1).map_or(self.by, |before| self.vouchers[before].by);
            if voucher.by != owner || !voucher.is_for(space, next) && !planted!("anybody-wipes") {
                return false;
            }
            owner = next;
        }
        owner == self.by && self.by.verifies(&Self::message(space, number), &self.signature)
    }
}

/// Which generation of a space it is, and whose word it is that there is such a one.
///
/// What comes from outside is not to be believed before [`Revision::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    number: u64,
    /// In order, each owner once.
    wipes: Vec<Wipe>,
}

/// A revision that no owner vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no owner of the space has said that it begins anew with this revision")]
pub struct ForgedRevision;

impl Revision {
    /// The first one, with which every space begins.
    pub fn first() -> Self {
        Self { number: 1, wipes: Vec::new() }
    }

    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The owners whose word it is.
    pub fn owners(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.wipes.iter().map(|wipe| wipe.by)
    }

    /// The same, each with the word of whoever made it an owner; the creator of the space needs none.
    pub fn begun(&self) -> impl Iterator<Item = (DeviceId, Option<Voucher>)> + '_ {
        self.wipes.iter().map(|wipe| (wipe.by, wipe.vouchers.first().cloned()))
    }

    /// The one after this, on the word of whoever has `key`, who came to own the space by `vouchers`. None if there were
    /// too many before it.
    pub fn next(&self, space: SpaceId, vouchers: Vec<Voucher>, key: &DeviceKey) -> Option<Self> {
        let number = self.number.checked_add(1).filter(|number| *number <= REVISION_MAX)?;
        let signature = key.sign(&Wipe::message(space, number));
        Some(Self { number, wipes: vec![Wipe { by: key.device(), vouchers, signature }] })
    }

    /// Refuses what owners of a space that began so did not say.
    pub fn verify(&self, space: SpaceId, creator: DeviceId) -> Result<(), ForgedRevision> {
        let is_first = self.number == 1 && self.wipes.is_empty();
        let is_counted = (2..=REVISION_MAX).contains(&self.number) && (1..=WIPES_MAX).contains(&self.wipes.len());
        let in_order = self.wipes.windows(2).all(|pair| pair[0].by < pair[1].by);
        let genuine = || self.wipes.iter().all(|wipe| wipe.is_genuine(space, creator, self.number));
        if is_first || is_counted && in_order && genuine() { Ok(()) } else { Err(ForgedRevision) }
    }

    /// Whether it says something that `held` does not: a later revision, or another owner's word for the same.
    pub fn adds_to(&self, held: &Self) -> bool {
        let mut joined = held.clone();
        joined.join(self);
        joined != *held
    }

    /// Takes in what another one says: the later one holds, and for one revision the words of all who began it.
    ///
    /// Beyond [`WIPES_MAX`] those of the lowest devices are kept, so that all nodes keep the same ones.
    pub fn join(&mut self, other: &Self) {
        match other.number.cmp(&self.number) {
            Ordering::Less => {}
            Ordering::Greater => self.clone_from(other),
            Ordering::Equal => {
                // One owner may have said it twice, by other vouchers: the first of both in order is kept.
                self.wipes.extend(other.wipes.iter().cloned());
                self.wipes.sort();
                self.wipes.dedup_by_key(|wipe| wipe.by);
                self.wipes.truncate(WIPES_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Genesis;

    fn key(n: u8) -> DeviceKey {
        DeviceKey::from_secret(&[n; 32])
    }

    fn genesis() -> Genesis {
        Genesis { creator: key(1).device(), nonce: [7; 16] }
    }

    fn verify(revision: &Revision) -> Result<(), ForgedRevision> {
        revision.verify(genesis().space(), genesis().creator)
    }

    /// How the device `n` came to own the space: each by the one before it.
    fn vouchers(n: u8) -> Vec<Voucher> {
        (2..=n).rev().map(|n| Voucher::sign(genesis().space(), key(n).device(), &key(n - 1))).collect()
    }

    #[test]
    fn only_who_was_made_an_owner_begins_a_space_anew() {
        let (space, first) = (genesis().space(), Revision::first());
        assert_eq!(verify(&first), Ok(()));
        for n in 1..=5 {
            let next = first.next(space, vouchers(n), &key(n)).expect("the second");
            assert_eq!((verify(&next), next.number()), (Ok(()), 2));
            // By whoever was not vouched for, or for another space, or by somebody else's chain.
            let forged = first.next(space, vouchers(n), &key(n + 1)).expect("the second");
            assert_eq!(verify(&forged), Err(ForgedRevision));
            assert_eq!(next.verify(SpaceId::from_bytes([1; 16]), genesis().creator), Err(ForgedRevision));
            assert_eq!(next.verify(space, key(9).device()), Err(ForgedRevision));
            for (number, wipes) in [(3, next.wipes.clone()), (2, Vec::new()), (1, next.wipes.clone()), (0, Vec::new())]
            {
                assert_eq!(verify(&Revision { number, wipes }), Err(ForgedRevision));
            }
        }
        assert_eq!(verify(&first.next(space, vouchers(17), &key(17)).expect("the second")), Ok(()));
        assert_eq!(verify(&first.next(space, vouchers(18), &key(18)).expect("the second")), Err(ForgedRevision));
    }

    #[test]
    fn revisions_join_to_the_latest_and_to_all_who_began_it() {
        let (space, first) = (genesis().space(), Revision::first());
        let by = |n| first.next(space, vouchers(n), &key(n)).expect("the second");
        let all: Vec<Revision> = (1..=20).map(|n| by(n.min(17))).collect();
        let join = |of: &mut dyn Iterator<Item = &Revision>| {
            let mut joined = first.clone();
            of.for_each(|other| joined.join(other));
            joined
        };
        let joined = join(&mut all.iter());
        assert_eq!(joined, join(&mut all.iter().rev().chain(&all)));
        assert_eq!((joined.number(), joined.owners().count(), verify(&joined)), (2, WIPES_MAX, Ok(())));
        assert!(!first.adds_to(&joined) && joined.adds_to(&first) && !joined.adds_to(&joined));
        let third = by(1).next(space, Vec::new(), &key(1)).expect("the third");
        assert!(third.adds_to(&joined) && !joined.adds_to(&third));
        assert!(by(1).adds_to(&by(2)) && by(2).adds_to(&by(1)));
    }
}
