//! Deterministic simulation of thence.
fn main() {}
