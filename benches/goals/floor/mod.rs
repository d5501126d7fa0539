//! The floors: what this machine, redb and quinn allow when nothing is built on them.
//!
//! They do only what cannot be left out, in the plainest way: the same commit mode, the same size of cache, a TLS 1.3
//! handshake with the same kind of key. No history, no signature, no check, no second copy of a row.

pub mod disk;
pub mod network;
pub mod together;
