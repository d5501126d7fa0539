//! Frames, as bytes: `[kind: u8][flags: u8][length: u32, little-endian][body: length bytes]`.
//!
//! Bit 0 of the flags is *critical*: whoever does not know the kind of a critical frame must give up the stream, and
//! skips one that is not critical. The other bits are reserved; a frame that sets one is refused, so that they can
//! be given a meaning later. `length` counts the body alone.
//!
//! **Invariant**: memory follows the bytes that arrived, never a length that was merely claimed: a decoder holds at
//! most twice what it was given of the frame in hand, and [`AHEAD_BYTES`].
//!
//! Pure: no stream, no clock. What kinds there are, and what a body says, is not known here.

use std::fmt;

/// The bytes before the body of a frame.
pub const HEADER_BYTES: usize = 6;

/// How far the memory for a body may run ahead of the bytes received; also the size of the decoder's read buffer.
pub const AHEAD_BYTES: usize = 16 * 1024;

/// The largest body that is sent or taken when nothing else is configured: 8 MiB.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 8 * 1024 * 1024;

/// One message on a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; the numbers belong to the protocol above.
    pub kind: u8,
    /// Whether a receiver that does not know `kind` must give up rather than skip the frame.
    pub critical: bool,
    /// The content, `frame_bytes_max` bytes at most.
    pub body: Vec<u8>,
}

/// Bytes that are no acceptable frame, or a frame that may not be sent.
///
/// When receiving, the peer misbehaved and its stream has no known continuation: give it up. When sending, it is the
/// caller's mistake and nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is larger than what is agreed.
    #[error("a frame of kind {kind} claims {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge {
        /// The kind of the frame.
        kind: u8,
        /// The length of its body in bytes.
        bytes: usize,
        /// The largest length allowed in bytes.
        bytes_max: usize,
    },
    /// A reserved flag is set.
    #[error("a frame of kind {kind} has unknown flags {flags:#010b}")]
    UnknownFlags {
        /// The kind of the frame.
        kind: u8,
        /// All eight flags as received.
        flags: u8,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, at least {missing_bytes} bytes early")]
    Truncated {
        /// How many bytes were still to come, at least.
        missing_bytes: usize,
    },
}

impl Frame {
    /// Appends the bytes of this frame to `bytes`, which stay as they were on an error.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when the body has more than `frame_bytes_max` bytes.
    pub fn encode(&self, frame_bytes_max: usize, bytes: &mut Vec<u8>) -> Result<(), FrameError> {
        let too_large = || FrameError::TooLarge { kind: self.kind, bytes: self.body.len(), bytes_max: frame_bytes_max };
        if self.body.len() > frame_bytes_max {
            return Err(too_large());
        }
        let length = u32::try_from(self.body.len()).map_err(|_| too_large())?;
        bytes.reserve(HEADER_BYTES + self.body.len());
        bytes.push(self.kind);
        bytes.push(if self.critical { CRITICAL } else { 0 });
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(())
    }
}

impl fmt::Debug for Frame {
    /// The body is told by its length alone: it may be large, and it is somebody's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("critical", &self.critical)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Turns received bytes into frames.
///
/// Bytes go in through [`space`](Self::space) and [`filled`](Self::filled), frames come out of
/// [`next_frame`](Self::next_frame); many small frames come out of one read.
///
/// ```
/// use thence::transport::framing::{Frame, FrameDecoder};
///
/// let frame = Frame { kind: 1, critical: true, body: b"hello".to_vec() };
/// let mut bytes = Vec::new();
/// frame.encode(1024, &mut bytes).unwrap();
///
/// let mut decoder = FrameDecoder::new(1024);
/// decoder.space()[..bytes.len()].copy_from_slice(&bytes);
/// decoder.filled(bytes.len());
/// assert_eq!(decoder.next_frame(), Ok(Some(frame)));
/// assert_eq!(decoder.next_frame(), Ok(None));
/// assert_eq!(decoder.finish(), Ok(()));
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    frame_bytes_max: usize,
    /// Allocated at the first read. `start..end` was received and is not decoded yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    partial: Option<Partial>,
    /// Once an error was returned there is no known place to go on from; it is returned for ever.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the begin of a stream. It allocates nothing yet.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, buffer: Vec::new(), start: 0, end: 0, partial: None, failed: None }
    }

    /// Where the next received bytes are to be written, from its begin; tell [`filled`](Self::filled) how many.
    ///
    /// Not empty whenever [`next_frame`](Self::next_frame) last returned `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = vec![0; AHEAD_BYTES];
        }
        // After `next_frame` returned `None` what is left is less than a header, so this moves five bytes at most.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// States that the first `bytes` of [`space`](Self::space) now hold received data.
    ///
    /// # Panics
    /// When `bytes` is more than the space that there was: that is a bug of the caller.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.end, "more filled than there was space");
        self.end += bytes;
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] and [`FrameError::UnknownFlags`] as soon as the header is there; every later call
    /// returns the same.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.partial.is_none() {
            match self.header() {
                Ok(header) => self.partial = header,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        let available = &self.buffer[self.start..self.end];
        let taken = partial.missing().min(available.len());
        partial.extend(&available[..taken]);
        self.start += taken;
        if partial.missing() > 0 {
            return Ok(None);
        }
        Ok(self.partial.take().map(|partial| partial.frame))
    }

    /// The length of the body of the frame in hand, when its header was read and its end was not.
    pub fn pending_bytes(&self) -> Option<usize> {
        self.partial.as_ref().map(|partial| partial.length)
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] inside a frame, or the error that decoding ended with.
    pub fn finish(&self) -> Result<(), FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let missing_bytes = match (&self.partial, self.end - self.start) {
            (Some(partial), _) => partial.missing(),
            (None, 0) => return Ok(()),
            (None, begun) => HEADER_BYTES - begun,
        };
        Err(FrameError::Truncated { missing_bytes })
    }

    /// Reads a header, if a whole one is there.
    fn header(&mut self) -> Result<Option<Partial>, FrameError> {
        let Some(&[kind, flags, a, b, c, d]) = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if flags & !CRITICAL != 0 {
            return Err(FrameError::UnknownFlags { kind, flags });
        }
        // A length that does not fit is above every limit too, so saturating it changes no answer.
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLarge { kind, bytes: length, bytes_max: self.frame_bytes_max });
        }
        self.start += HEADER_BYTES;
        let frame = Frame { kind, critical: flags & CRITICAL != 0, body: Vec::new() };
        Ok(Some(Partial { frame, length }))
    }
}

/// Bit 0 of the flags.
const CRITICAL: u8 = 1;

/// A frame whose header was read and whose body is arriving.
#[derive(Debug)]
struct Partial {
    /// Its body is what has arrived so far.
    frame: Frame,
    /// What the body will have in the end; at most `frame_bytes_max`.
    length: usize,
}

impl Partial {
    fn missing(&self) -> usize {
        self.length - self.frame.body.len()
    }

    /// Appends what arrived. Memory doubles with what has arrived, and stops at the claimed length.
    fn extend(&mut self, arrived: &[u8]) {
        let missing = self.missing();
        let body = &mut self.frame.body;
        if body.capacity() - body.len() < arrived.len() {
            let ahead = body.len().max(AHEAD_BYTES).max(arrived.len());
            body.reserve_exact(ahead.min(missing));
        }
        body.extend_from_slice(arrived);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, critical: bool, body: &[u8]) -> Frame {
        let body = body.to_vec();
        Frame { kind, critical, body }
    }

    fn encoded(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(FRAME_BYTES_MAX_DEFAULT, &mut bytes).expect("within the limit");
        }
        bytes
    }

    /// Hands `bytes` over in reads of at most `step` bytes and returns the frames that come out.
    fn decode(decoder: &mut FrameDecoder, mut bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = decoder.space();
            let read = space.len().min(step).min(bytes.len());
            space[..read].copy_from_slice(&bytes[..read]);
            decoder.filled(read);
            bytes = &bytes[read..];
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_frame_is_written_as_documented() {
        assert_eq!(
            encoded(&[frame(7, true, b"ab"), frame(9, false, b"")]),
            [7, 1, 2, 0, 0, 0, b'a', b'b', 9, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn frames_come_back_however_the_bytes_are_cut() {
        let frames = [
            frame(1, true, b"x"),
            frame(2, false, b""),
            frame(3, false, &[5; 6]),
            frame(4, true, &vec![6; AHEAD_BYTES]),
            frame(5, true, &vec![7; 3 * AHEAD_BYTES + 1]),
            frame(6, false, b"end"),
        ];
        let bytes = encoded(&frames);
        for step in [1, 2, 5, 6, 7, 1000, AHEAD_BYTES, usize::MAX] {
            let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT);
            assert_eq!(decode(&mut decoder, &bytes, step).as_deref(), Ok(&frames[..]));
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing_by_itself() {
        let mut decoder = FrameDecoder::new(u32::MAX as usize);
        let frames = decode(&mut decoder, &[1, 0, 255, 255, 255, 255, 1, 2, 3], 100);
        assert_eq!(frames, Ok(vec![]));
        assert_eq!(decoder.pending_bytes(), Some(u32::MAX as usize));
        let held = |decoder: &FrameDecoder| {
            let partial = decoder.partial.as_ref().expect("the frame is unfinished");
            (partial.frame.body.len(), partial.frame.body.capacity())
        };
        let (received, capacity) = held(&decoder);
        assert_eq!(received, 3);
        assert!(capacity <= AHEAD_BYTES, "{capacity}");

        decode(&mut decoder, &vec![9; 200_000], usize::MAX).expect("no error yet");
        let (received, capacity) = held(&decoder);
        assert_eq!(received, 200_003);
        assert!(capacity <= 2 * received + AHEAD_BYTES, "{capacity}");
        assert_eq!(decoder.finish(), Err(FrameError::Truncated { missing_bytes: u32::MAX as usize - 200_003 }));
    }

    #[test]
    fn too_large_is_refused_at_the_header_and_for_ever() {
        let mut decoder = FrameDecoder::new(10);
        let refused = FrameError::TooLarge { kind: 8, bytes: 11, bytes_max: 10 };
        assert_eq!(decode(&mut decoder, &[8, 0, 11, 0, 0, 0], 1), Err(refused.clone()));
        assert_eq!(decoder.next_frame(), Err(refused.clone()));
        assert_eq!(decoder.finish(), Err(refused));

        let mut bytes = vec![1];
        let unsent = frame(8, false, &[0; 11]).encode(10, &mut bytes);
        assert!(matches!(unsent, Err(FrameError::TooLarge { .. })));
        assert_eq!(bytes, [1]);
    }

    #[test]
    fn reserved_flags_are_refused() {
        let mut decoder = FrameDecoder::new(10);
        assert_eq!(
            decode(&mut decoder, &[8, 0b11, 0, 0, 0, 0], 6),
            Err(FrameError::UnknownFlags { kind: 8, flags: 0b11 })
        );
    }

    #[test]
    fn a_stream_may_end_between_frames_only() {
        let bytes = encoded(&[frame(1, false, b"abc")]);
        for (kept, missing_bytes) in [(1, 5), (5, 1), (6, 3), (8, 1)] {
            let mut decoder = FrameDecoder::new(10);
            assert_eq!(decode(&mut decoder, &bytes[..kept], 100), Ok(vec![]));
            assert_eq!(decoder.finish(), Err(FrameError::Truncated { missing_bytes }));
        }
    }
}
