//! Frames on one unidirectional stream: the end that sends and the end that receives.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::error::{ReceiveError, SendError};
use super::framing::{AHEAD_BYTES, Frame, FrameDecoder};
use super::quic::{ByteReceiver, ByteSender, ConnectionShare};

/// The sending end. Frames arrive whole and in order, or the receiver gets an error.
///
/// Dropping it ends the stream as [`finish`](Self::finish) does, unless a cancelled call left a frame half sent: then
/// the stream is reset.
#[derive(Debug)]
pub struct FrameSender {
    stream: ByteSender,
    frame_bytes_max: usize,
    /// `buffer[written..]` was taken from the caller and not handed to QUIC yet; empty between uncancelled calls.
    buffer: Vec<u8>,
    written: usize,
}

impl FrameSender {
    pub(super) fn new(stream: ByteSender, frame_bytes_max: usize) -> Self {
        Self { stream, frame_bytes_max, buffer: Vec::new(), written: 0 }
    }

    /// Sends one frame; returns when QUIC has taken all of it, waiting while the peer reads more slowly than we write.
    ///
    /// When the future is dropped early the frame is either sent whole, by a later call, or not at all.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&mut self, frame: &Frame) -> Result<(), SendError> {
        self.send_all(std::slice::from_ref(frame)).await
    }

    /// Sends several frames in few writes, for many small ones.
    ///
    /// When the future is dropped early, the first few of the frames are sent whole, and the others not at all.
    ///
    /// # Errors
    /// See [`SendError`]. When one frame is too large, none is sent.
    pub async fn send_all(&mut self, frames: &[Frame]) -> Result<(), SendError> {
        // What a cancelled call left must go first, or memory would grow with every cancelled call.
        self.flush().await?;
        if let Some(large) = frames.iter().find(|frame| frame.body.len() > self.frame_bytes_max) {
            large.encode(self.frame_bytes_max, &mut Vec::new())?;
        }
        for frame in frames {
            frame.encode(self.frame_bytes_max, &mut self.buffer)?;
            if self.buffer.len() >= COALESCED_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    /// Sends bytes that need not be frames. For tests of what happens then.
    ///
    /// # Errors
    /// See [`SendError`].
    #[doc(hidden)]
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.flush().await?;
        self.buffer.extend_from_slice(bytes);
        self.flush().await
    }

    /// Ends the stream: the receiver gets `None` after the last frame. Does not wait for it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn finish(mut self) -> Result<(), SendError> {
        self.flush().await?;
        self.stream.finish()
    }

    /// Ends the stream and waits until the peer's QUIC has all of it. That does not mean that the peer's program has
    /// read it, let alone stored it.
    ///
    /// # Errors
    /// See [`SendError`]; in particular when the peer stopped reading before the end.
    pub async fn finish_delivered(mut self) -> Result<(), SendError> {
        self.flush().await?;
        self.stream.finish()?;
        self.stream.delivered().await
    }

    /// Gives the stream up: frames not yet received are lost, and the receiver gets an error with this code.
    pub fn reset(mut self, code: u32) {
        self.forget_buffer();
        self.stream.reset(code);
    }

    /// Which of several streams goes first when not all fit on the way: the highest number. Streams begin at 0.
    pub fn set_priority(&self, priority: i32) {
        self.stream.set_priority(priority);
    }

    /// Waits until the peer wants no more of this stream, or the connection ends. Useful for one who has nothing to
    /// send at the moment.
    pub async fn stopped(&self) -> SendError {
        self.stream.stopped().await
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        while self.written < self.buffer.len() {
            self.written += self.stream.write(&self.buffer[self.written..]).await?;
        }
        self.forget_buffer();
        Ok(())
    }

    fn forget_buffer(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(2 * COALESCED_BYTES);
        self.written = 0;
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.stream.reset(0);
        }
    }
}

/// The receiving end.
///
/// Dropping it before the end tells the peer to stop, with code 0.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: ByteReceiver,
    decoder: FrameDecoder,
    share: Arc<ConnectionShare>,
    /// Leave to assemble the large frame in hand.
    leave: Option<OwnedSemaphorePermit>,
    /// The leave of the frame that was handed out last: whoever has it holds its memory still.
    handed_out: Option<OwnedSemaphorePermit>,
    ended: bool,
    /// How the stream was lost. QUIC says it once, and a clean end when asked again.
    lost: Option<ReceiveError>,
}

impl FrameReceiver {
    pub(super) fn new(stream: ByteReceiver, share: Arc<ConnectionShare>, frame_bytes_max: usize) -> Self {
        let decoder = FrameDecoder::new(frame_bytes_max);
        Self { stream, decoder, share, leave: None, handed_out: None, ended: false, lost: None }
    }

    /// The next frame, or `None` when the peer ended the stream after a whole frame.
    ///
    /// The future may be dropped at any time and nothing is lost. A large frame may have to wait for others on the
    /// same connection, and before [`Connection::admit`](super::Connection::admit) for the admission. It counts as one
    /// that is being received until this is called again, or the receiver is dropped: call when it was dealt with.
    ///
    /// # Errors
    /// See [`ReceiveError`]. An error is final: every later call returns the same.
    pub async fn receive(&mut self) -> Result<Option<Frame>, ReceiveError> {
        self.handed_out = None;
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                self.handed_out = self.leave.take();
                return Ok(Some(frame));
            }
            if let Some(lost) = &self.lost {
                return Err(lost.clone());
            }
            if self.ended {
                self.decoder.finish()?;
                return Ok(None);
            }
            if let Err(lost) = self.read().await {
                self.leave = None;
                self.lost = Some(lost);
            }
        }
    }

    /// Tells the peer to send no more on this stream, and why; what was sent already is lost.
    pub fn stop(mut self, code: u32) {
        self.stream.stop(code);
    }

    /// Reads some bytes, after leave for them was had.
    async fn read(&mut self) -> Result<(), ReceiveError> {
        match self.decoder.pending_bytes() {
            Some(bytes) if bytes > AHEAD_BYTES && self.leave.is_none() => {
                self.leave = tokio::select! {
                    biased;
                    leave = self.share.leave_to_assemble(bytes) => Some(leave),
                    lost = self.stream.lost() => return Err(lost),
                };
            }
            _ => {}
        }
        match self.stream.read(self.decoder.space()).await? {
            Some(read) => self.decoder.filled(read),
            None => self.ended = true,
        }
        Ok(())
    }
}

/// So many bytes of small frames are put into one write.
const COALESCED_BYTES: usize = 64 * 1024;
