//! The relay without a socket: its functions, as the simulator and the routes call them.

#[path = "../house/mod.rs"]
mod house;

mod batches;
mod phone;
mod phones;
mod quotas;
mod tables;
mod tokens;
mod wipes;
mod world;
