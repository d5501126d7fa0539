//! The one place that turns wire and storage types into bytes and back: bincode 2.0.1, `standard()` configuration.
//!
//! **Invariant**: decoding hostile bytes allocates no more than a small multiple of their own length, consumes all of
//! them, and accepts only the one encoding that [`encode`] would write, so that what was hashed and signed has one
//! form.
//!
//! bincode is unmaintained (2026-11: version 3.0.0 on the registry is a tombstone), so it is pinned, and nothing else
//! in the crate names it. `wincode` reads and writes the same bytes; a test below holds the two together and is the
//! way out, should one be needed. Shipped types obey: enum variants are only appended, no field is ever added to a
//! struct, no maps with unordered keys, no recursion.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest input that [`decode`] looks at: 16 MiB.
pub const DECODED_BYTES_MAX: usize = 16 << 20;

/// The longest input that [`decode_trusted`] looks at: 1 GiB.
///
/// It is so much more because the state of an object has no bound of its own: whoever may write can add conflicting
/// values, event by event, and no node may refuse one that the others take. It must stay readable to be mended.
pub const TRUSTED_BYTES_MAX: usize = 1 << 30;

/// Bytes that are not what they should be. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Cut short, or claiming lengths and variants that cannot be.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// More bytes than the value needs.
    #[error("{extra} bytes after the end of {what}")]
    Trailing {
        /// What was expected.
        what: &'static str,
        /// How many bytes follow it.
        extra: usize,
    },
    /// Another encoding of the same value than the one that is ever written.
    #[error("{what} is not in canonical form")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
    /// Longer than any value of this kind may be.
    #[error("{what} of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// What was expected.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
}

/// The bytes of `value`.
///
/// # Panics
///
/// Never for the types of this crate: they have no unsized sequences and no failing `Serialize`, the only two ways
/// in which writing to memory can fail.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::standard()).expect("wire types always encode to memory")
}

/// The value that `bytes` are the canonical encoding of; `what` names it in errors.
pub fn decode<T: DeserializeOwned + Serialize>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > DECODED_BYTES_MAX {
        return Err(DecodeError::TooLarge { what, bytes: bytes.len(), bytes_max: DECODED_BYTES_MAX });
    }
    let value = decode_trusted(what, bytes)?;
    if encode(&value) != bytes {
        return Err(DecodeError::NotCanonical { what });
    }
    Ok(value)
}

/// As [`decode`], for bytes that this node wrote itself and whose check it has verified: the form is not compared.
pub fn decode_trusted<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    // bincode counts decoded widths against its limit (an integer of one byte may count as eight), and the limit is
    // a constant of the type; so there are steps, each at least nine times the input.
    let (value, used) = match bytes.len() {
        0..=0x1000 => decode_within::<T, { 9 * 0x1000 }>(what, bytes)?,
        0x1001..=0x4_0000 => decode_within::<T, { 9 * 0x4_0000 }>(what, bytes)?,
        0x4_0001..=DECODED_BYTES_MAX => decode_within::<T, { 9 * DECODED_BYTES_MAX }>(what, bytes)?,
        0x100_0001..=TRUSTED_BYTES_MAX => decode_within::<T, { 9 * TRUSTED_BYTES_MAX }>(what, bytes)?,
        bytes => return Err(DecodeError::TooLarge { what, bytes, bytes_max: TRUSTED_BYTES_MAX }),
    };
    if used < bytes.len() {
        return Err(DecodeError::Trailing { what, extra: bytes.len() - used });
    }
    Ok(value)
}

/// The value at the front of bytes that this node verified before; what follows is not looked at.
pub(crate) fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode_within::<T, 0x1000>("front", bytes).ok().map(|(value, _)| value)
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<(T, usize), DecodeError> {
    let limited: Configuration<LittleEndian, Varint, Limit<LIMIT>> = config::standard().with_limit::<LIMIT>();
    bincode::serde::decode_from_slice(bytes, limited)
        .map_err(|error| DecodeError::Malformed { what, detail: error.to_string() })
}

/// A signature as serde can derive it: 64 bytes in two halves, the same 64 bytes on the wire.
pub(crate) mod signature {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let (mut low, mut high) = ([0u8; 32], [0u8; 32]);
        low.copy_from_slice(&bytes[..32]);
        high.copy_from_slice(&bytes[32..]);
        (low, high).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let (low, high) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, wincode::SchemaRead, wincode::SchemaWrite)]
    enum Sample {
        Nothing,
        Some { small: u32, large: u64, text: String, many: Vec<(u64, String)> },
    }

    fn sample() -> Sample {
        Sample::Some {
            small: 300, large: u64::MAX, text: "é東".into(), many: vec![(1, "a".into()), (251, "b".into())]
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(decode("sample", &encode(&sample())), Ok(sample()));
        assert_eq!(encode(&Sample::Nothing), [0]);
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_refused() {
        let bytes = encode(&sample());
        for end in 0..bytes.len() {
            assert!(matches!(decode::<Sample>("sample", &bytes[..end]), Err(DecodeError::Malformed { .. })));
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode::<Sample>("sample", &longer), Err(DecodeError::Trailing { what: "sample", extra: 1 }));
    }

    #[test]
    fn nine_bytes_that_claim_a_terabyte_are_refused() {
        let mut claim = vec![253];
        claim.extend_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(matches!(decode::<Vec<u64>>("numbers", &claim), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode::<String>("text", &claim), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode::<serde_bytes::ByteBuf>("bytes", &claim), Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn only_what_this_node_wrote_may_be_longer_than_a_frame() {
        let long = encode(&"x".repeat(DECODED_BYTES_MAX));
        assert!(matches!(decode::<String>("text", &long), Err(DecodeError::TooLarge { .. })));
        assert!(decode_trusted::<String>("text", &long).is_ok());
    }

    #[test]
    fn a_second_encoding_of_the_same_value_is_refused() {
        // 5 written as a two-byte integer.
        assert_eq!(decode::<u64>("number", &[251, 5, 0]), Err(DecodeError::NotCanonical { what: "number" }));
    }

    #[test]
    fn the_way_out_reads_and_writes_the_same_bytes() {
        let config = wincode::config::Configuration::default().with_varint_encoding();
        for value in [sample(), Sample::Nothing] {
            let bytes = encode(&value);
            assert_eq!(wincode::config::serialize(&value, config).expect("encodes"), bytes);
            let back: Sample = wincode::config::deserialize(&bytes, config).expect("decodes");
            assert_eq!(back, value);
        }
    }
}
