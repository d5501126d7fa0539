//! One connection as the replica sees it: channels with frames, in and out.
//!
//! Each side opens [`LANES`] unidirectional streams: one for the control channel, and the others for the spaces, each of
//! which keeps to the one that its id falls on. A frame of type 0 says of which channel the frames after it on its stream
//! are: an empty body means the control channel, sixteen bytes a space.
//!
//! **Decision, 2026-11**: not a stream for every space. Of every stream the receiver must be ready to hold a window, so
//! their number is what bounds its memory, while two nodes may well share thousands of spaces.
//!
//! **Invariant**: memory is bounded whatever the peer does. Received: a window per stream, `assembly_bytes_max` of frames
//! that nobody has taken yet, and then its share of the node's [`Intake`]. To be sent: the replica's window bounds
//! segments, and a peer that lets anything else pile up to [`QUEUED_BYTES_MAX`] is turned away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::driver::Event;
use super::intake::Intake;
use super::surroundings::{Surroundings, Tasks};
use crate::model::{SEGMENT_BYTES_MAX, SpaceId};
use crate::replica::{Channel, Message, PeerMisbehaved, SessionId};
use crate::transport::{CloseReason, Connection, Frame, FrameReceiver, FrameSender, ReceiveError, TransportConfig};

/// The type of the frame that names a channel.
const STREAM_HEAD: u8 = 0;
/// How many streams each side opens. Even a stranger may open so many.
const LANES: u8 = 8;
/// The longest frame: one segment of the greatest length, or what a replica knows of a space with very many others.
const FRAME_BYTES_MAX: usize = SEGMENT_BYTES_MAX + (64 << 10);
/// The most that waits to be sent on one connection: more than the replica lets be on its way even if every read of the
/// log brought a segment of the greatest length.
const QUEUED_BYTES_MAX: usize = 96 << 20;
/// What a frame that waits to be sent weighs besides its body.
const FRAME_BYTES: usize = 64;
/// Frames that are handed to a stream at once.
const BURST_MAX: usize = 64;

/// The transport's limits for connections that are used so.
pub(super) fn transport_config(listen: SocketAddr, reset_key: [u8; 64]) -> TransportConfig {
    let mut config = TransportConfig::new(listen, reset_key);
    config.streams_max = u32::from(LANES);
    config.frame_bytes_max = FRAME_BYTES_MAX;
    config.assembly_bytes_max = 2 * FRAME_BYTES_MAX;
    config
}

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    session: SessionId,
    connection: Connection,
    lanes: Vec<mpsc::UnboundedSender<(Channel, Frame)>>,
    queued: Arc<AtomicUsize>,
    /// Whether the peer was found to take nothing.
    given_up: bool,
    events: mpsc::UnboundedSender<Event>,
}

impl Wire {
    /// Begins to read what the peer sends, on `first` if it has opened that stream already; everything, and the end, is
    /// told to `events`.
    pub(super) fn start(
        session: SessionId,
        connection: Connection,
        first: Option<FrameReceiver>,
        intake: &Intake,
        surroundings: &Arc<dyn Surroundings>,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Self {
        let queued = Arc::new(AtomicUsize::new(0));
        let (lanes, waiting): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::unbounded_channel()).unzip();
        let opening = open_lanes(Arc::clone(surroundings), connection.clone(), waiting, Arc::clone(&queued));
        surroundings.spawn(Box::pin(opening));
        let reader = Reader {
            session,
            connection: connection.clone(),
            intake: intake.clone(),
            surroundings: Arc::clone(surroundings),
            turn: Mutex::new(()),
            events: events.clone(),
        };
        surroundings.spawn(Box::pin(Arc::new(reader).read(first)));
        Self { session, connection, lanes, queued, given_up: false, events: events.clone() }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a message, after those that were sent on the same channel before.
    pub(super) fn send(&mut self, channel: Channel, message: &Message) {
        if self.given_up {
            return;
        }
        let frame = Frame { kind: message.kind(), critical: true, body: message.body() };
        let queued = self.queued.fetch_add(frame.body.len() + FRAME_BYTES, Ordering::Relaxed);
        if queued > QUEUED_BYTES_MAX {
            self.given_up = true;
            let _ = self.events.send(Event::Misbehaved { session: self.session, reason: PeerMisbehaved::NeverReads });
            return;
        }
        // A lane that is gone means a connection that is going: its end is told by the reading half.
        let _ = self.lanes[lane(channel)].send((channel, frame));
    }

    /// Ends the connection.
    pub(super) fn close(&self, reason: CloseReason) {
        self.connection.close(reason);
    }
}

/// Where the messages of a channel go, in order. Ids are hashes, so every lane gets its share.
fn lane(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Space(space) => usize::from(1 + space.as_bytes()[0] % (LANES - 1)),
    }
}

/// Opens the lanes in order, the control channel's first: a peer that takes few streams must not take others instead.
async fn open_lanes(
    surroundings: Arc<dyn Surroundings>,
    connection: Connection,
    waiting: Vec<mpsc::UnboundedReceiver<(Channel, Frame)>>,
    queued: Arc<AtomicUsize>,
) {
    for waiting in waiting {
        let Ok(stream) = connection.open().await else { return };
        surroundings.spawn(Box::pin(write_lane(connection.clone(), stream, waiting, Arc::clone(&queued))));
    }
}

async fn write_lane(
    connection: Connection,
    mut stream: FrameSender,
    mut waiting: mpsc::UnboundedReceiver<(Channel, Frame)>,
    queued: Arc<AtomicUsize>,
) {
    let mut about = None;
    let mut burst = Vec::new();
    while let Some(first) = waiting.recv().await {
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some((channel, frame)) = next {
            if about.replace(channel) != Some(channel) {
                burst.push(head(channel));
            }
            bytes += frame.body.len() + FRAME_BYTES;
            burst.push(frame);
            next = if burst.len() < BURST_MAX { waiting.try_recv().ok() } else { None };
        }
        if let Err(error) = stream.send_all(&burst).await {
            if connection.close_cause().is_none() {
                // A stream of a living connection that cannot be written is one that the peer gave up.
                connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 2, &error.to_string()));
            }
            return;
        }
        queued.fetch_sub(bytes, Ordering::Relaxed);
        burst.clear();
    }
}

/// The frame that says what those after it are about.
fn head(channel: Channel) -> Frame {
    let body = match channel {
        Channel::Control => Vec::new(),
        Channel::Space(space) => space.as_bytes().to_vec(),
    };
    Frame { kind: STREAM_HEAD, critical: true, body }
}

/// The channel that a frame's body names as a head.
fn channel_of(body: &[u8]) -> Option<Channel> {
    match <[u8; 16]>::try_from(body) {
        Ok(space) => Some(Channel::Space(SpaceId::from_bytes(space))),
        Err(_) => body.is_empty().then_some(Channel::Control),
    }
}

/// The receiving half of a connection.
struct Reader {
    session: SessionId,
    connection: Connection,
    intake: Intake,
    surroundings: Arc<dyn Surroundings>,
    /// Held from before a frame is handed to the driver until the driver has dealt with it, so that of every connection
    /// there is one at a time, and all get their turn.
    turn: Mutex<()>,
    events: mpsc::UnboundedSender<Event>,
}

impl Reader {
    async fn read(self: Arc<Self>, first: Option<FrameReceiver>) {
        let mut streams = Tasks::new(Arc::clone(&self.surroundings));
        let mut next = match first {
            Some(first) => Ok(first),
            None => self.connection.accept().await,
        };
        while let Ok(stream) = next {
            streams.spawn(Arc::clone(&self).read_stream(stream));
            // Those that have ended are forgotten, or a peer could end and open streams until memory is full.
            while streams.try_next().is_some() {}
            next = self.connection.accept().await;
        }
        // What had arrived whole is still handed over; that nothing more comes is told after it.
        while streams.next().await.is_some() {}
        let cause = self.connection.closed().await;
        let _ = self.events.send(Event::Closed { session: self.session, cause });
    }

    async fn read_stream(self: Arc<Self>, mut stream: FrameReceiver) {
        let mut about = None;
        loop {
            let frame = match stream.receive().await {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(ReceiveError::Lost(_)) => return,
                Err(ReceiveError::Frame(error)) => return self.misbehaved(error.to_string()),
                Err(error) => {
                    let reason = CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 2, &error.to_string());
                    return self.connection.close(reason);
                }
            };
            if frame.kind == STREAM_HEAD {
                let Some(channel) = channel_of(&frame.body) else {
                    return self.misbehaved("a stream with an impossible head".to_owned());
                };
                about = Some(channel);
                continue;
            }
            let Some(channel) = about else { return self.misbehaved("a stream without a head".to_owned()) };
            // The frame counts as one that is being received until the next one is asked for; see `receive`.
            let turn = self.turn.lock().await;
            let room = self.intake.room_for(frame.body.len()).await;
            let (taken, wait) = oneshot::channel();
            if self.events.send(Event::Frame { session: self.session, channel, frame, room, taken }).is_err() {
                return;
            }
            let _ = wait.await;
            drop(turn);
        }
    }

    fn misbehaved(&self, what: String) {
        let reason = PeerMisbehaved::Frames(what);
        let _ = self.events.send(Event::Misbehaved { session: self.session, reason });
    }
}
