//! Room for what peers sent and what is not committed yet.
//!
//! **Invariant**: what all peers together have in the driver's hands and in the queue to the disk weighs at most so many
//! bytes as it arrived. Decoded it takes more, but never more than a fixed multiple. Room goes to connections in
//! the order in which they ask, and it always comes back: nothing that holds it waits for a peer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most that a node takes in at a time: some commits' worth, so that the disk never waits for the network.
pub(super) const INTAKE_BYTES_MAX: u32 = 8 << 20;
/// What a frame weighs at least, whatever its length: it is decoded, and waits in queues.
const FRAME_BYTES_MIN: u32 = 2 << 10;

/// The intake of one node. Clones are handles to the same.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    room: Arc<Semaphore>,
    bytes_max: u32,
}

/// Room for one frame; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _bytes: OwnedSemaphorePermit,
}

impl Intake {
    /// Takes in so many bytes at a time.
    pub(super) fn new(bytes_max: u32) -> Self {
        let bytes_max = bytes_max.max(FRAME_BYTES_MIN);
        Self { room: Arc::new(Semaphore::new(bytes_max as usize)), bytes_max }
    }

    /// Waits for room for a frame of that length.
    pub(super) async fn room_for(&self, bytes: usize) -> Room {
        // A frame that is longer than all the room there is takes all of it.
        let weight = u32::try_from(bytes).unwrap_or(self.bytes_max).clamp(FRAME_BYTES_MIN, self.bytes_max);
        let permit = Arc::clone(&self.room).acquire_many_owned(weight).await;
        Room { _bytes: permit.expect("no code closes this semaphore, so waiting for it cannot fail") }
    }
}
