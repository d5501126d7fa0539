//! What is not left to the seed.

use clap::Args;

use crate::level::{Level, Shape, Worlds};

/// What is not left to the seed.
#[derive(Args, Clone, Debug)]
pub(super) struct ShapeArgs {
    /// How many nodes; drawn by the seed if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: Option<u8>,
    /// Only these faults, as the table in simulations/README.md names them.
    #[arg(long, value_name = "FAULT,…", value_delimiter = ',')]
    faults: Option<Vec<String>>,
}

impl ShapeArgs {
    /// The shape, if some of these levels have faults of these names.
    pub(super) fn shape(&self, worlds: &dyn Worlds, levels: &[Level]) -> Result<Shape, String> {
        let faults = levels.iter().flat_map(|level| worlds.faults(*level)).copied();
        let known: Vec<&str> = faults.chain([crate::core::WIPE]).collect();
        let unknown = self.faults.iter().flatten().find(|fault| !known.contains(&fault.as_str()));
        match unknown {
            Some(fault) => Err(format!("there is no fault {fault:?} here; there are {}", known.join(", "))),
            None => Ok(Shape { nodes: self.nodes.map(usize::from), faults: self.faults.clone() }),
        }
    }

    /// The same as arguments.
    pub(super) fn repeat(&self) -> String {
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let faults = self.faults.as_ref().map(|faults| format!(" --faults {}", faults.join(","))).unwrap_or_default();
        nodes + &faults
    }
}
