//! What surrounds the nodes, the same at every level.

mod chance;
mod disk;
mod editor;
pub(crate) mod membership;
mod network;
mod scenario;
mod story;
mod telling;
mod trace;

pub use self::chance::{Chance, Draws};
pub(crate) use self::disk::{Change, Disk, Image, Medium, MemoryDisk, Step, Tear};
pub use self::disk::{DiskFault, MediumFault};
pub(crate) use self::editor::{decide, resave};
pub(crate) use self::network::{Arrival, Line, Network, Sent, Side};
pub use self::scenario::{InvalidScenario, Item, Scenario, Weather, What};
pub use self::story::{Fate, Mark, MarkKind, MessageKind, Place, Span, SpanKind, Story, Told};
pub use self::trace::Trace;

/// Virtual milliseconds since the world began.
pub type Millis = u64;
