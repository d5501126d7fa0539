//! How far a thin client is, as a text that only a relay can read.
//!
//! The relay stores nothing about it: whoever brings a sync point is served from there. It is sealed (ChaCha20-Poly1305,
//! RFC 8439), and bound to whom it was made for; the number of its key and the form stand before it in the clear.
//!
//! **Invariant**: what is opened here was made here, unaltered, for this tenant, database and principal. Whether it is
//! still of use is for the reader to find out: it says under which epoch, revision and filter it was made.

use data_encoding::BASE64URL_NOPAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::keys::{Keys, Secret};
use crate::codec;
use crate::model::{CollectionName, ObjectKey};

const FORM: u8 = 1;
const CLEAR_BYTES: usize = 1 + 4 + NONCE_LEN;
/// The longest sync point as text, in bytes: a row's table and key are the largest things in it.
pub const SYNC_POINT_BYTES_MAX: usize = 2 << 10;

/// How far a thin client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPoint {
    /// Which numbering of positions it means.
    pub epoch: u64,
    /// Which generation of the database.
    pub revision: u64,
    /// What the schemas of its tables came to, as a number.
    pub schema: u64,
    /// What the filter came to, as a number.
    pub filter: u64,
    /// Where in it.
    pub phase: Phase,
}

/// Where in a synchronisation a client is. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is being given all rows, by table and key.
    Initial {
        /// Up to this one.
        after: Option<(CollectionName, ObjectKey)>,
        /// Where the feed stood when it began: what changes meanwhile follows.
        position: u64,
        /// Rows and bytes that it was given.
        rows_done: u64,
        /// About how many bytes these were.
        bytes_done: u64,
    },
    /// It is given what changes.
    Live {
        /// It has everything up to here.
        position: u64,
        /// The round that it is in goes up to here.
        high: u64,
    },
    /// It asks for the deletions of one table only.
    Deletions {
        /// It was told of all up to here.
        position: u64,
        /// Stretches of later positions, first and last, at which it deleted rows itself.
        own: Vec<(u64, u64)>,
    },
}

impl Phase {
    /// Up to where the feed had come when this was written, at least.
    pub fn reaches(&self) -> u64 {
        match *self {
            Self::Initial { position, .. } | Self::Deletions { position, .. } => position,
            Self::Live { position, high } => position.max(high),
        }
    }

    /// Whether it is of the kind that is for deletions only.
    pub fn is_of_deletions(&self) -> bool {
        matches!(self, Self::Deletions { .. })
    }
}

/// Why a text is no sync point that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It was not made here for that bearer, or it was altered.
    Foreign,
    /// The key that it would have been sealed with is kept no longer. It may be genuine and may as well be forged, so
    /// nothing that it says is to be believed.
    Forgotten,
}

/// For whom a sync point is.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// The customer.
    pub customer: &'a str,
    /// The database.
    pub database: &'a str,
    /// Who asks.
    pub principal: &'a str,
}

impl Bearer<'_> {
    fn bytes(&self) -> Vec<u8> {
        codec::encode(&("thence 1 sync point", self.customer, self.database, self.principal))
    }
}

fn cipher(secret: &Secret) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, secret).ok().map(LessSafeKey::new)
}

impl SyncPoint {
    /// The text, sealed with the key of this number. `nonce` is drawn at random for each.
    pub(super) fn seal(&self, bearer: Bearer<'_>, key: (u32, Secret), nonce: [u8; NONCE_LEN]) -> String {
        let mut sealed = codec::encode(self);
        // The only failure is a plain text of many gigabytes.
        if let Some(cipher) = cipher(&key.1) {
            let bound = Aad::from(bearer.bytes());
            let _ = cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut sealed);
        }
        let mut bytes = vec![FORM];
        bytes.extend(key.0.to_be_bytes());
        bytes.extend(nonce);
        bytes.extend(sealed);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// What a text says, if it was made here for that bearer.
    pub(super) fn open(text: &str, bearer: Bearer<'_>, keys: &Keys) -> Result<Self, Unreadable> {
        if text.len() > SYNC_POINT_BYTES_MAX {
            return Err(Unreadable::Foreign);
        }
        let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Unreadable::Foreign)?;
        let is_forgotten = Self::key_of(&bytes).is_some_and(|number| keys.is_forgotten(number));
        let why = if is_forgotten { Unreadable::Forgotten } else { Unreadable::Foreign };
        Self::unseal(&mut bytes, bearer, keys).ok_or(why)
    }

    /// The number of the key that it would have been sealed with.
    fn key_of(bytes: &[u8]) -> Option<u32> {
        let (&[form, ref number @ ..], sealed) = bytes.split_first_chunk::<5>()?;
        let is_whole = form == FORM && sealed.len() > NONCE_LEN + CHACHA20_POLY1305.tag_len();
        is_whole.then(|| u32::from_be_bytes(*number))
    }

    fn unseal(bytes: &mut [u8], bearer: Bearer<'_>, keys: &Keys) -> Option<Self> {
        let secret = keys.numbered(Self::key_of(bytes)?)?;
        let (clear, sealed) = bytes.split_at_mut_checked(CLEAR_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(clear.get(CLEAR_BYTES - NONCE_LEN..)?).ok()?;
        let opened = cipher(&secret)?.open_in_place(nonce, Aad::from(bearer.bytes()), sealed).ok()?;
        codec::decode("sync point", opened).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEARER: Bearer<'static> = Bearer { customer: "acme", database: "notes", principal: "phone" };

    #[test]
    fn a_sync_point_opens_unaltered_for_its_bearer_and_never_otherwise() {
        let mut keys = Keys::in_memory();
        let key = keys.newest(1, [7; 32]).expect("memory does not fail");
        let after = Some((CollectionName::user("a").expect("a name"), "k".parse().expect("a key")));
        let phase = Phase::Initial { after, position: 9, rows_done: 3, bytes_done: 120 };
        let point = SyncPoint { epoch: 5, revision: 1, schema: 0, filter: 0, phase };
        let text = point.seal(BEARER, key, [3; NONCE_LEN]);
        let foreign = Err(Unreadable::Foreign);
        assert_eq!(SyncPoint::open(&text, BEARER, &keys), Ok(point));
        for bearer in [
            Bearer { customer: "other", ..BEARER },
            Bearer { database: "other", ..BEARER },
            Bearer { principal: "other", ..BEARER },
            // What belongs to which part is no matter of where the borders between them are.
            Bearer { customer: "acmen", database: "otes", ..BEARER },
        ] {
            assert_eq!(SyncPoint::open(&text, bearer, &keys), foreign, "{bearer:?}");
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SyncPoint::open(&BASE64URL_NOPAD.encode(&altered), BEARER, &keys), foreign, "bit {bit}");
        }
        for end in 0..text.len() {
            assert_eq!(SyncPoint::open(&text[..end], BEARER, &keys), foreign, "cut at {end}");
        }
        assert_eq!(SyncPoint::open(&"A".repeat(SYNC_POINT_BYTES_MAX + 1), BEARER, &keys), foreign);
        let mut others = Keys::in_memory();
        others.newest(1, [8; 32]).expect("memory does not fail");
        assert_eq!(SyncPoint::open(&text, BEARER, &others), foreign);
    }

    #[test]
    fn what_was_sealed_with_a_key_that_is_kept_no_longer_is_told_from_what_is_foreign() {
        const DAY_MS: u64 = 24 * 3_600_000;
        let mut keys = Keys::in_memory();
        let mut seal = |at_ms: u64| {
            let key = keys.newest(at_ms, [7; 32]).expect("memory does not fail");
            let phase = Phase::Live { position: 9, high: 9 };
            SyncPoint { epoch: 5, revision: 1, schema: 0, filter: 0, phase }.seal(BEARER, key, [3; NONCE_LEN])
        };
        let (old, new) = (seal(0), seal(400 * DAY_MS));
        let open = |text: &str| SyncPoint::open(text, BEARER, &keys).map(drop);
        assert_eq!((open(&old), open(&new)), (Err(Unreadable::Forgotten), Ok(())));
        assert_eq!(open(&old[..40]), Err(Unreadable::Foreign), "there is no room for a seal in it");
    }

    #[test]
    fn the_longest_sync_points_can_be_sent() {
        let mut keys = Keys::in_memory();
        let key = keys.newest(1, [7; 32]).expect("memory does not fail");
        let table = CollectionName::user(&"t".repeat(64)).expect("a name");
        let after = Some((table, "k".repeat(crate::model::KEY_BYTES_MAX).parse().expect("a key")));
        let position = 1 << 53;
        let own = (0..super::super::deletions::OWN_MAX as u64).map(|n| (position + 2 * n, position + 2 * n)).collect();
        for phase in [
            Phase::Initial { after, position, rows_done: position, bytes_done: position },
            Phase::Deletions { position, own },
        ] {
            let point = SyncPoint { epoch: u64::MAX, revision: position, schema: u64::MAX, filter: u64::MAX, phase };
            let text = point.seal(BEARER, key, [3; NONCE_LEN]);
            assert_eq!(SyncPoint::open(&text, BEARER, &keys), Ok(point), "of {} bytes", text.len());
        }
    }
}
