//! What a request is called in the log, so that a client and an operator can speak of the same one.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use data_encoding::HEXLOWER;

/// The header, in requests and in every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// How long a client's own may be.
const LENGTH_MAX: usize = 64;

/// A request's id: the client's own if that is a sane one, else one that is drawn.
///
/// **Invariant**: 1 to 64 letters, digits and `-._:`, so that it can stand in a header and in a line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The one that the client gave, or a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_sane = |text: &&str| {
            (1..=LENGTH_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        };
        given.filter(is_sane).map_or_else(Self::draw, |text| Self(text.to_owned()))
    }

    /// A new one.
    pub fn draw() -> Self {
        Self(HEXLOWER.encode(&rand::random::<[u8; 8]>()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        // Nothing else is in it than what may stand there.
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_one_is_kept_and_any_other_replaced() {
        let of = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text).expect("a header"));
            RequestId::of(&headers).0
        };
        assert_eq!(of(b"a1-B_2.c:3"), "a1-B_2.c:3");
        assert_eq!(of(&[b'x'; 64]), "x".repeat(64));
        for text in [&b""[..], b"two words", b"a\tb", "é".as_bytes(), &[b'x'; 65], b"a=\"b\""] {
            let drawn = of(text);
            assert!(drawn.len() == 16 && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()), "{drawn}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }
}
