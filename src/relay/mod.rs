//! The relay: a node that is always on, and also serves thin clients over HTTP, many tenants at once.
//!
//! A thin client has no version vector of its own: a phone app, a browser page, a script. It names what it has by an
//! opaque sync point, and what it saw of a row by that row's context; the relay writes for it as an ordinary
//! replica. What full nodes are sent over QUIC and what thin clients are sent over HTTP is one state.
//!
//! | file | what it is |
//! |---|---|
//! | [`problem`](Problem) | what a request is answered that cannot be done |
//! | [`origin`](Origin) | a web origin whose pages may speak to it |
//! | [`http`] | the server: what holds for every request, whatever it is about |
//! | [`routes`] | which path leads where |

pub mod http;
mod origin;
mod problem;
mod routes;

pub use self::origin::{InvalidOrigin, Origin};
pub use self::problem::{Problem, ProblemCode};
pub use self::routes::{MetricsGate, routes};
