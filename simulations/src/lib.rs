//! Deterministic simulation of thence: a seed decides a world, and the world tries to break the node.
//!
//! - [`world`]: what surrounds the nodes: chance, scenarios, the network, disks, the trace.
//! - [`level`]: how much of the node is real.
//! - [`model`]: the level `model`: every interleaving of few operations.
//! - [`core`]: the level `core`: the product's replica and ledger, over virtual network, disk and time.
//! - [`node`]: the level `node`: the product's loop, QUIC and TLS as they are, over virtual datagrams, disk and time.
//! - [`store`]: what belongs to the level `store` alone: every crash point of small stories.
//! - [`oracles`]: what must hold whatever the world does, one invariant a file.
//! - [`mutants`]: bugs that are planted in the product, and which oracle catches each.
//! - [`application`]: worlds of one's own, with an invariant of one's own.
//! - [`shrink`]: a failing scenario with fewer items that still fails.
//! - [`draw`]: what happened, as a page to look at.
//! - [`reach`]: which faults struck in which phases.
//! - [`cli`]: `cargo sim`.
//!
//! **Invariant**: a run depends on its scenario and on nothing else. No clock, no ambient randomness, no hash order.

pub mod application;
pub mod cli;
pub mod core;
pub mod draw;
pub mod level;
pub mod model;
pub mod mutants;
pub mod node;
pub mod oracles;
pub mod reach;
pub mod shrink;
pub mod store;
pub mod world;
