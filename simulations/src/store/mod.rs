//! What belongs to the level `store` alone.
//!
//! Its world is that of the level [`core`](crate::core); only the nodes' disks are others: the product's real store on
//! a medium that forgets, tears, fails and rots. Here are, beside those worlds by seed, the crash points of small
//! stories, every one of them.

mod crash_points;
mod stories;

pub use self::crash_points::{Report, crash_points};
