//! The level `node`: the product's own loop with real QUIC and real TLS; datagrams, disk, time and chance are virtual.
//!
//! What is simulated is [`thence::node::Node`] as everybody uses it: users write, join and ask for the status through
//! its handle. A world is one thread: all tasks of all nodes run on an executor whose order, clock and randomness a seed
//! decides, and a crash ends all tasks of a node between two steps, wherever they are.
//!
//! What it does not do: no data folder with its lock and lease, no command line, no operating system's sockets.

mod air;
mod around;
mod cryptography;
mod executor;
mod generate;
mod world;

pub use self::generate::{FAULTS, generate};
pub use self::world::run;
