//! What surrounds the nodes, the same at every level.

mod chance;
mod disk;
mod network;
mod scenario;
mod trace;

pub use self::chance::{Chance, Draws};
pub(crate) use self::disk::{Change, Disk, Image, Medium, Step, Tear};
pub use self::disk::{DiskFault, MediumFault};
pub(crate) use self::network::{Arrival, Line, Network, Side};
pub use self::scenario::{InvalidScenario, Item, Scenario, Weather, What};
pub use self::trace::Trace;

/// Virtual milliseconds since the world began.
pub type Millis = u64;
