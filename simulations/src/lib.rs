//! Deterministic simulation of thence: a seed decides a world, and the world tries to break the node.
//!
//! - [`world`]: what surrounds the nodes: chance, scenarios, the network, disks, the trace.
//! - [`level`]: how much of the node is real.
//! - [`core`]: the level `core`: the product's replica and ledger, over virtual network, disk and time.
//! - [`store`]: what belongs to the level `store` alone: every crash point of small stories.
//! - [`oracles`]: what must hold whatever the world does, one invariant a file.
//! - [`shrink`]: a failing scenario with fewer items that still fails.
//!
//! **Invariant**: a run depends on its scenario and on nothing else. No clock, no ambient randomness, no hash order.

pub mod core;
pub mod level;
pub mod oracles;
pub mod shrink;
pub mod store;
pub mod world;
