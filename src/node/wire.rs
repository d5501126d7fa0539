//! One connection as the replica sees it: channels with frames, in and out.
//!
//! Each side opens a unidirectional stream per channel. Its first frame, of type 0, says which channel it is: an empty
//! body for the control channel, sixteen bytes for a space.
//!
//! **Invariant**: what waits to be sent is bounded. The replica's window bounds segments; if a peer lets anything else
//! pile up to [`QUEUED_BYTES_MAX`], the connection is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use super::driver::Event;
use crate::model::SpaceId;
use crate::replica::{Channel, Message, SessionId};
use crate::transport::{CloseReason, Connection, Frame, FrameReceiver};

/// The type of the frame that names a stream's channel.
const STREAM_HEAD: u8 = 0;
/// The most that waits to be sent on one connection: the windows of some sixty spaces that a slow peer takes at once.
const QUEUED_BYTES_MAX: usize = 256 << 20;
/// Frames that were received and that the driver has not taken yet, per connection.
const RECEIVED_FRAMES_MAX: usize = 4;
/// Frames that are handed to a stream at once.
const BURST_MAX: usize = 64;

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    connection: Connection,
    channels: BTreeMap<Channel, mpsc::UnboundedSender<Frame>>,
    /// Whether the control stream is open. It is the first: what is said on it makes a peer allow more of them.
    controlled: watch::Sender<bool>,
    queued: Arc<AtomicUsize>,
}

impl Wire {
    /// Begins to read what the peer sends; everything, and the end, is told to `events`.
    pub(super) fn start(session: SessionId, connection: Connection, events: &mpsc::UnboundedSender<Event>) -> Self {
        let (frames, mut received) = mpsc::channel::<(Channel, Frame)>(RECEIVED_FRAMES_MAX);
        let incoming = connection.clone();
        tokio::spawn(async move {
            while let Ok(stream) = incoming.accept().await {
                tokio::spawn(read_stream(stream, frames.clone(), incoming.clone()));
            }
        });
        let (closing, events) = (connection.clone(), events.clone());
        tokio::spawn(async move {
            // The driver takes one frame at a time and says when it has, so that it never holds more than that.
            while let Some((channel, frame)) = received.recv().await {
                let (taken, wait) = tokio::sync::oneshot::channel();
                if events.send(Event::Frame { session, channel, frame, taken }).is_err() {
                    return;
                }
                let _ = wait.await;
            }
            let cause = closing.closed().await;
            let _ = events.send(Event::Closed { session, cause });
        });
        Self { connection, channels: BTreeMap::new(), controlled: watch::Sender::new(false), queued: Arc::default() }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a message, after those that were sent on the same channel before.
    pub(super) fn send(&mut self, channel: Channel, message: &Message) {
        let frame = Frame { kind: message.kind(), critical: true, body: message.body() };
        let queued = self.queued.fetch_add(frame.body.len() + 64, Ordering::Relaxed);
        if queued > QUEUED_BYTES_MAX {
            self.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 1, "takes nothing of what it is sent"));
            return;
        }
        let (connection, counter) = (&self.connection, &self.queued);
        let stream = self.channels.entry(channel).or_insert_with(|| {
            let (frames, waiting) = mpsc::unbounded_channel();
            let controlled = self.controlled.clone();
            tokio::spawn(write_stream(connection.clone(), channel, controlled, waiting, Arc::clone(counter)));
            frames
        });
        // A stream that is gone means a connection that is going: its end is told by the reading half.
        let _ = stream.send(frame);
    }

    /// Ends the connection.
    pub(super) fn close(&self, reason: CloseReason) {
        self.connection.close(reason);
    }
}

async fn write_stream(
    connection: Connection,
    channel: Channel,
    controlled: watch::Sender<bool>,
    mut waiting: mpsc::UnboundedReceiver<Frame>,
    queued: Arc<AtomicUsize>,
) {
    if channel != Channel::Control {
        let mut controlled = controlled.subscribe();
        tokio::select! {
            _ = controlled.wait_for(|opened| *opened) => {}
            _ = connection.closed() => return,
        }
    }
    let Ok(mut stream) = connection.open().await else { return };
    let head = match channel {
        Channel::Control => {
            controlled.send_replace(true);
            Vec::new()
        }
        Channel::Space(space) => space.as_bytes().to_vec(),
    };
    let mut burst = vec![Frame { kind: STREAM_HEAD, critical: true, body: head }];
    loop {
        while burst.len() < BURST_MAX
            && let Ok(frame) = waiting.try_recv()
        {
            burst.push(frame);
        }
        if let Err(error) = stream.send_all(&burst).await {
            if connection.close_cause().is_none() {
                // A stream of a living connection that cannot be written is one that the peer gave up.
                connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 2, &error.to_string()));
            }
            return;
        }
        let sent: usize = burst.iter().filter(|frame| frame.kind != STREAM_HEAD).map(|f| f.body.len() + 64).sum();
        queued.fetch_sub(sent, Ordering::Relaxed);
        burst.clear();
        match waiting.recv().await {
            Some(frame) => burst.push(frame),
            None => return,
        }
    }
}

async fn read_stream(mut stream: FrameReceiver, frames: mpsc::Sender<(Channel, Frame)>, connection: Connection) {
    let misbehaved = |text: &str| {
        if connection.close_cause().is_none() {
            connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS, text));
        }
    };
    let channel = match stream.receive().await {
        Ok(Some(Frame { kind: STREAM_HEAD, body, .. })) => match <[u8; 16]>::try_from(body.as_slice()) {
            Ok(space) => Channel::Space(SpaceId::from_bytes(space)),
            Err(_) if body.is_empty() => Channel::Control,
            Err(_) => return misbehaved("a stream with an impossible head"),
        },
        Ok(Some(_)) => return misbehaved("a stream without a head"),
        Ok(None) => return,
        Err(error) => return misbehaved(&error.to_string()),
    };
    loop {
        match stream.receive().await {
            Ok(Some(frame)) => {
                if frames.send((channel, frame)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return misbehaved(&error.to_string()),
        }
    }
}
