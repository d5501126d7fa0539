//! thence
pub mod causal;
pub mod cli;
pub mod codec;
pub mod config;
pub mod model;
pub mod node;
pub mod replica;
pub mod store;
pub mod transport;
