//! What a request is answered that cannot be done: `application/problem+json` (RFC 9457).
//!
//! **Invariant**: what is told never depends on anything that the asker may not see; whether a database of somebody
//! else's exists is not told.

use serde::{Deserialize, Serialize};

/// What kind of problem it is. The name is a contract; clients compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemCode {
    /// The request makes no sense: 400.
    Malformed,
    /// The sync token is none that this relay made for this client, database and filter: 400.
    BadToken,
    /// No token, or none that is known: 401.
    Unauthenticated,
    /// The token's role does not reach so far: 403.
    Forbidden,
    /// There is no such thing, as far as the asker may know: 404.
    NotFound,
    /// The path has no such method: 405.
    Method,
    /// The body took too long: 408.
    Timeout,
    /// It cannot be done as things stand: 409.
    Conflict,
    /// The sync token is genuine and cannot be used any more: 410.
    Gone,
    /// `If-Match` does not match: 412.
    Changed,
    /// A row, batch or body is too large: 413.
    TooLarge,
    /// The body is of a type that is not understood: 415.
    MediaType,
    /// It is understood and cannot be written: 422.
    Invalid,
    /// Too many requests: 429.
    TooManyRequests,
    /// The headers are too large: 431.
    HeadersTooLarge,
    /// Something is wrong with the relay: 500.
    Internal,
    /// The relay cannot do it now, or is stopping: 503.
    Unavailable,
    /// A quota is used up: 507.
    QuotaExceeded,
}

impl ProblemCode {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::BadToken => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::Changed => 412,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::QuotaExceeded => 507,
        }
    }

    /// After how many seconds to try again, if nothing better is known. What is too large stays so until a policy changes.
    const fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::TooLarge | Self::QuotaExceeded => Some(60),
            Self::TooManyRequests | Self::Unavailable => Some(1),
            _ => None,
        }
    }

    /// What it is called, the same for every problem of the kind.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "the request makes no sense",
            Self::BadToken => "this is no sync token of this client and database",
            Self::Unauthenticated => "a valid token is needed",
            Self::Forbidden => "the token does not allow that",
            Self::NotFound => "not found",
            Self::Method => "this cannot be done here",
            Self::Timeout => "the request took too long to come",
            Self::Conflict => "it cannot be done as things stand",
            Self::Gone => "the sync token cannot be used any more",
            Self::Changed => "it has changed",
            Self::TooLarge => "too large",
            Self::MediaType => "the body must be JSON",
            Self::Invalid => "this cannot be written",
            Self::TooManyRequests => "too many requests",
            Self::HeadersTooLarge => "the headers are too large",
            Self::Internal => "something is wrong with the relay",
            Self::Unavailable => "the relay cannot do that now",
            Self::QuotaExceeded => "a quota is used up",
        }
    }
}

/// What a request is answered that cannot be done. Nothing was changed, unless `detail` says otherwise.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// What kind of problem it is.
    pub code: ProblemCode,
    /// What is wrong with this request.
    pub detail: String,
    /// What to do.
    pub help: String,
    /// After how many seconds to try again, if that helps.
    pub retry_after_s: Option<u64>,
    /// Further members of the answer, such as `reason` and `action`.
    pub members: serde_json::Map<String, serde_json::Value>,
}

/// A text without its middle if it is long: what was sent may be told again in it, and that may be a whole body.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 1000;
    if text.len() <= CHARS_MAX || text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let (first, mut last): (String, Vec<char>) =
        (text.chars().take(CHARS_MAX / 2).collect(), text.chars().rev().take(CHARS_MAX / 2).collect());
    last.reverse();
    format!("{first} … {}", last.into_iter().collect::<String>())
}

impl Problem {
    /// A problem without further members.
    pub fn new(code: ProblemCode, detail: impl Into<String>, help: impl Into<String>) -> Self {
        let (detail, help) = (detail.into(), help.into());
        Self { code, detail, help, retry_after_s: code.retry_after_s(), members: serde_json::Map::new() }
    }

    /// The same, to be tried again after `seconds`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same, with a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The body of the answer.
    pub fn body(&self) -> serde_json::Value {
        let code = serde_json::to_value(self.code).unwrap_or_default();
        let mut body = serde_json::Map::new();
        let name = code.as_str().unwrap_or_default();
        body.insert("type".to_owned(), format!("urn:thence:problem:{name}").into());
        body.insert("code".to_owned(), code);
        body.insert("title".to_owned(), self.code.title().into());
        body.insert("status".to_owned(), self.code.status().into());
        body.insert("detail".to_owned(), excerpt(&self.detail).into());
        body.insert("help".to_owned(), self.help.clone().into());
        body.extend(self.members.clone());
        body.into()
    }
}
