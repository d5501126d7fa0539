//! The level `core`: the product's replica and ledger as they are; network, disk and time are virtual.
//!
//! A node is what the product's own loop is at heart: a replica, a ledger, and the few lines that carry the outputs of
//! one to the other. Commits take time: they are asked for, land on the disk, and are reported, at three different
//! moments, and a crash may come between any two. So do reads.
//!
//! What it does not do: no QUIC, no TLS, no redb, no loop of the product's own. That is what the levels above are for.

mod client;
mod generate;
mod liar;
mod node;
mod world;

pub(crate) use self::generate::request;
pub use self::generate::{FAULTS, FAULTS_OF_A_MEDIUM, FAULTS_OF_STORES, WIPE, generate};
pub use self::world::{run, run_with};
