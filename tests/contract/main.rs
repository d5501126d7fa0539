//! The relay against its contract, sentence by sentence, as clients meet it: over sockets, with a relay in this process
//! that the tests can stop and start, and whose tokens they can end.
//!
//! Each story has a relay of its own. What `tests/relay`, `tests/policies.rs`, `tests/isolation.rs` and
//! `tests/relay_http.rs` hold is not told again here.

#[path = "../house/mod.rs"]
mod house;

mod changes;
mod deletions;
mod errors;
mod events;
mod ids;
mod owners;
mod rows;
mod tables;
mod tokens;
mod world;
