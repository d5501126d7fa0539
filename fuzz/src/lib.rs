//! What the fuzz targets of thence do.

pub mod bodies;
pub mod seeds;
