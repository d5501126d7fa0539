//! The relay: a node that is always on, and also serves thin clients over HTTP, many tenants at once.
//!
//! A thin client has no version vector of its own: a phone app, a browser page, a script. It names what it has by an
//! opaque sync point, and what it saw of a row by that row's context; the relay writes for it as an ordinary
//! replica. What full nodes are sent over QUIC and what thin clients are sent over HTTP is one state.
//!
//! | file | what it is |
//! |---|---|
//! | [`problem`] | what a request is answered that cannot be done |

mod problem;

pub use self::problem::{Problem, ProblemCode};
