//! Room for what peers sent and what is not committed yet.
//!
//! **Invariant**: what all peers together have in the driver's hands and in the queue to the disk weighs at most
//! [`BYTES_MAX`] as it arrived. Decoded it takes more, but never more than a fixed multiple. Room goes to connections in
//! the order in which they ask, and it always comes back: nothing that holds it waits for a peer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most that is taken in at a time: some commits' worth, so that the disk never waits for the network.
const BYTES_MAX: u32 = 8 << 20;
/// What a frame weighs at least, whatever its length: it is decoded, and waits in queues.
const FRAME_BYTES_MIN: u32 = 2 << 10;

/// The intake of one node. Clones are handles to the same.
#[derive(Clone, Debug)]
pub(super) struct Intake(Arc<Semaphore>);

/// Room for one frame; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _bytes: OwnedSemaphorePermit,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BYTES_MAX as usize)))
    }

    /// Waits for room for a frame of that length.
    pub(super) async fn room_for(&self, bytes: usize) -> Room {
        // A frame that is longer than all the room there is takes all of it.
        let weight = u32::try_from(bytes).unwrap_or(BYTES_MAX).clamp(FRAME_BYTES_MIN, BYTES_MAX);
        let permit = Arc::clone(&self.0).acquire_many_owned(weight).await;
        Room { _bytes: permit.expect("no code closes this semaphore, so waiting for it cannot fail") }
    }
}
