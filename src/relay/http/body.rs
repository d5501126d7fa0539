//! A request's body, as JSON.
//!
//! **Invariant**: whatever comes, a body costs at most [`Limits::body_bytes_max`](super::Limits) of memory and
//! `body_time_max`, all bodies together at most `bodies_bytes_max`, and the answer says which limit it was.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::limits::Limit;
use super::strict;
use crate::relay::{Problem, ProblemCode};

/// The body of a request, read from JSON. As an `Option` of it, none when the request has no body.
///
/// Refused with the place of the fault: what is no JSON, an object with two members of one name, numbers that would come
/// back different, what is nested too deeply, and what is of other types than `T` wants.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T>(pub T);

/// So many bytes the body of this request may have, where that is less than what holds for all.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct BodyBytesMax(pub usize);

/// Parsing more than this is done where nobody waits for the thread.
const PARSE_ASIDE_BYTES: usize = 64 << 10;

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_type(request.headers())?;
        let exchange = Exchange::of(request.extensions());
        let bytes_max = request.extensions().get().map_or(usize::MAX, |BodyBytesMax(bytes_max)| *bytes_max);
        let bytes_max = bytes_max.min(exchange.limits().body_bytes_max);
        let text = read(request.into_body(), &exchange, bytes_max).await?;
        let parsed = if text.len() <= PARSE_ASIDE_BYTES {
            strict::parse(&text)
        } else {
            let parsing = tokio::task::spawn_blocking(move || strict::parse(&text));
            parsing.await.unwrap_or_else(|_| Err(super::answer::internal()))
        };
        parsed.map(Self)
    }
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// JSON is what says that it is, whatever it is called beyond that: `application/json`, `application/merge-patch+json`.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let essence = said.as_deref().and_then(|said| said.split(';').next()).map(str::trim);
    let is_json = essence.is_some_and(|essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    let charset = said.as_deref().and_then(|said| said.split_once("charset=")).map(|(_, charset)| charset);
    let charset = charset.map(|charset| charset.split(';').next().unwrap_or_default().trim().trim_matches('"'));
    if is_json && charset.is_none_or(|charset| charset == "utf-8") {
        return Ok(());
    }
    let detail = match essence {
        None => "the request does not say of what type its body is",
        Some(_) => "the body is of another type than JSON in UTF-8",
    };
    Err(Problem::new(ProblemCode::MediaType, detail, "send JSON, with Content-Type: application/json"))
}

/// Reads the body to its end, or to a limit.
async fn read(mut body: Body, exchange: &Exchange, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let limits = exchange.limits();
    if body.size_hint().lower() > bytes_max as u64 {
        exchange.refused(Limit::BodyBytes);
        return Err(too_large(bytes_max));
    }
    let until = Instant::now() + limits.body_time_max;
    let mut text = Vec::new();
    loop {
        let frame = match tokio::time::timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(text),
            Ok(Some(Err(error))) => {
                let detail = format!("the body broke off: {error}");
                return Err(Problem::new(ProblemCode::Malformed, detail, "send the request again"));
            }
            Err(_) => {
                exchange.refused(Limit::BodyTime);
                return Err(too_slow(limits.body_time_max));
            }
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if text.len() + bytes.len() > bytes_max {
            exchange.refused(Limit::BodyBytes);
            return Err(too_large(bytes_max));
        }
        exchange.hold(text.len() + bytes.len())?;
        text.extend_from_slice(&bytes);
    }
}

fn too_slow(body_time_max: Duration) -> Problem {
    let detail = format!("the body did not come within {} s", body_time_max.as_secs_f64());
    Problem::new(ProblemCode::Timeout, detail, "send less at a time")
}

/// What is said to a client whose body is too large.
pub fn too_large(body_bytes_max: usize) -> Problem {
    let detail = format!("a body has at most {body_bytes_max} bytes");
    Problem::new(ProblemCode::TooLarge, detail, "send less at a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_that_it_is() {
        let takes = |value: Option<&str>| {
            let headers = value.map(|value| (CONTENT_TYPE, value.parse().expect("a header")));
            check_type(&headers.into_iter().collect()).is_ok()
        };
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/merge-patch+json",
        ] {
            assert!(takes(Some(value)), "{value}");
        }
        for value in ["text/plain", "application/jsonp", "text/json", "application/json; charset=latin1", "", "json"] {
            assert!(!takes(Some(value)), "{value}");
        }
        assert!(!takes(None));
    }
}
