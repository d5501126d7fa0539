//! thence
pub mod causal;
pub mod codec;
pub mod model;
pub mod node;
pub mod replica;
pub mod store;
pub mod transport;
