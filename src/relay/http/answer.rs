//! Answers: [`Reply`] for what was done, and [`Problem`] for what was not.
//!
//! **Invariant**: a body is JSON, and says so; what a client may keep it has to ask about again.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

use super::request_id::{REQUEST_ID, RequestId};
use crate::relay::{Problem, ProblemCode};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What is a customer's is kept by nobody in between, and by the client only to be asked about.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The header that carries a sync point, in requests and answers.
pub const SYNC_TOKEN: HeaderName = HeaderName::from_static("sync-token");

/// An answer with a body of JSON, or with none.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    /// `200` with this body.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// `201` with this body.
    pub fn created(body: &impl Serialize) -> Self {
        Self::json(StatusCode::CREATED, body)
    }

    /// `202` with this body.
    pub fn accepted(body: &impl Serialize) -> Self {
        Self::json(StatusCode::ACCEPTED, body)
    }

    /// `204`.
    pub fn no_content() -> Self {
        Self::bare(StatusCode::NO_CONTENT)
    }

    /// `304`: what the client has is what there is.
    pub fn not_modified(etag: &str) -> Self {
        Self::bare(StatusCode::NOT_MODIFIED).etag(etag)
    }

    fn bare(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::from_iter([(CACHE_CONTROL, PRIVATE)]), body: Vec::new() }
    }

    fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => {
                let headers = HeaderMap::from_iter([(CACHE_CONTROL, PRIVATE), (CONTENT_TYPE, JSON)]);
                Self { status, headers, body }
            }
            Err(error) => Self::bug(&error),
        }
    }

    fn bug(what: &dyn std::fmt::Display) -> Self {
        tracing::error!(%what, "an answer could not be put into words");
        Problem::new(ProblemCode::Internal, "the answer could not be put into words", "tell the operator").into()
    }

    /// With the header `ETag`; `etag` is the text between its quotes.
    #[must_use]
    pub fn etag(self, etag: &str) -> Self {
        self.header(ETAG, &format!("\"{etag}\""))
    }

    /// With the header `Sync-Token`.
    #[must_use]
    pub fn sync_token(self, token: &str) -> Self {
        self.header(SYNC_TOKEN, token)
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.headers.insert(name, value);
                self
            }
            Err(error) => Self::bug(&error),
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, PROBLEM_JSON), (CACHE_CONTROL, NO_STORE)]);
        if let Some(seconds) = problem.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // Who has to begin anew finds the token for that where tokens always are.
        let token = problem.members.get("token").and_then(serde_json::Value::as_str);
        if let Some(token) = token.and_then(|token| HeaderValue::from_str(token).ok()) {
            headers.insert(SYNC_TOKEN, token);
        }
        if problem.code == ProblemCode::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Self { status, headers, body: problem.body().to_string().into_bytes() }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        Reply::from(self).into_response()
    }
}

/// Sees to it that whatever says that something went wrong is a [`Problem`], whoever said it.
pub async fn as_problem(response: Response<Body>, method: &str) -> Response<Body> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // axum says in a sentence what is wrong with a path or a query.
    let said = axum::body::to_bytes(body, SENTENCE_BYTES_MAX).await.ok();
    let said = said.and_then(|said| String::from_utf8(said.into()).ok()).filter(|said| !said.is_empty());
    let said = said.map(|said| in_words(&said));
    let or = |otherwise: &str| said.clone().unwrap_or_else(|| otherwise.to_owned());
    let allow = parts.headers.get(axum::http::header::ALLOW).cloned();
    let problem = match status {
        StatusCode::NOT_FOUND => {
            Problem::new(ProblemCode::NotFound, or("there is nothing at this path"), "look for a mistake in the path")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = allow.as_ref().and_then(|allow| allow.to_str().ok()).unwrap_or_default().replace(',', ", ");
            let detail = format!("{method} is not for this path");
            Problem::new(ProblemCode::Method, detail, format!("use one of: {allowed}"))
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(ProblemCode::TooLarge, or("it is too large"), "send less"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(ProblemCode::MediaType, or("the body is of another type"), "send application/json")
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            Problem::new(ProblemCode::Invalid, or("it cannot be used"), "correct it and send it again")
        }
        status if status.is_client_error() => {
            Problem::new(ProblemCode::Malformed, or("it makes no sense"), "correct it and send it again")
        }
        _ => {
            tracing::error!(%status, said, "a request failed");
            internal()
        }
    };
    let mut response = problem.into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(axum::http::header::ALLOW, allow);
    }
    response
}

/// What axum says of a query, without the words of those who wrote it for programmers.
pub(in crate::relay) fn in_words(said: &str) -> String {
    let number = "a whole number is expected, within what is documented";
    said.replace("Failed to deserialize query string: ", "in the query: ")
        .replace("unknown field", "unknown parameter")
        .replace("invalid digit found in string", number)
        .replace("cannot parse integer from empty string", number)
        .replace("number too large to fit in target type", number)
        .replace("number too small to fit in target type", number)
        .replace("provided string was not `true` or `false`", "`true` or `false` is expected")
}

/// How long a sentence of axum's may be.
const SENTENCE_BYTES_MAX: usize = 4 << 10;

/// A mistake in this program. What it was is in the log, for the operator.
pub fn internal() -> Problem {
    Problem::new(
        ProblemCode::Internal,
        "this request met a mistake in the relay",
        "tell the operator its Request-Id; a write may have happened or not, and can be repeated under its id",
    )
}

/// A problem as the last thing that is said on a connection of HTTP/1.1, by whoever has no hyper to say it.
pub fn on_wire(problem: Problem) -> Vec<u8> {
    let Reply { status, mut headers, body } = problem.into();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_LENGTH, body.len().into());
    headers.insert(REQUEST_ID, RequestId::draw().header());
    let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_an_answer_of_its_own() {
        let problem = Problem::new(ProblemCode::Timeout, "slow", "hurry").retry_after(7);
        let text = String::from_utf8(on_wire(problem)).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        for line in
            ["content-type: application/problem+json", "cache-control: no-store", "retry-after: 7", "connection: close"]
        {
            assert!(head.lines().any(|found| found == line), "{line} is missing in {head}");
        }
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&body["code"], &body["status"], &body["help"]), (&"timeout".into(), &408.into(), &"hurry".into()));
    }

    #[test]
    fn who_has_to_begin_anew_finds_the_token_in_the_header_too() {
        let problem = Problem::new(ProblemCode::Gone, "old", "begin anew").with("token", "fresh").retry_after(3);
        let response = problem.into_response();
        assert_eq!((response.status(), &response.headers()[SYNC_TOKEN]), (StatusCode::GONE, &"fresh".parse().unwrap()));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_our_mistake() {
        let response = Reply::ok(&1).etag("a\nb").into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let response = Reply::ok(&1).etag("a").sync_token("b").into_response();
        assert_eq!(
            (&response.headers()[ETAG], &response.headers()[SYNC_TOKEN]),
            (&"\"a\"".parse().unwrap(), &"b".parse().unwrap())
        );
    }
}
