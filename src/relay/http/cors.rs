//! Which web pages may speak to the relay: those of the origins that were given, and no others.
//!
//! Clients show a token in a header, and no cookie is ever looked at; so what is decided here is what a browser hands to a
//! page, not who may do what. Written here, since answers of every kind carry it, also those that refuse a request
//! before any route has seen it.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

use crate::relay::Origin;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, POST, PATCH, DELETE");
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, Sync-Token, Client-Id, If-Match, If-None-Match, Content-Type, Last-Event-ID, Request-Id",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("Sync-Token, ETag, Retry-After, Request-Id");
/// Two hours, which is as long as browsers remember it.
const REMEMBERED_S: HeaderValue = HeaderValue::from_static("7200");

/// The origins that were given.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Vec<Origin>,
}

impl Cors {
    pub fn new(origins: Vec<Origin>) -> Self {
        Self { origins }
    }

    /// The request's origin, if it is one of those that were given.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.origins.iter().any(|known| known.as_str().as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// Whether a browser asks beforehand whether it may send a request.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Says in an answer what its origin may do with it.
    pub fn mark(&self, origin: Option<&HeaderValue>, preflight: bool, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // What is said to one origin is not to be shown to another by a cache in between.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
            headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED_S);
        } else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}
