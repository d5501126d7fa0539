//! The bytes of one connection, between the socket (or TLS) and hyper.
//!
//! It counts them, and it is where a client that is slow to say something or slow to listen is given up: hyper has one time
//! for both a silent connection and headers that come byte by byte, and none for an answer that nobody reads. It also
//! puts a [`Problem`] in the place of the bare answers that hyper itself gives to what is no request.
//!
//! **Invariant**: what a handler answers passes unchanged. Only what hyper writes while no request is under way, which
//! is its own answer and the connection's last, is replaced.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::answer::on_wire;
use super::limits::{Limit, Limits};
use super::metrics::Metrics;
use super::pace::Pace;
use crate::relay::{Problem, ProblemCode};

/// How long a client that is still sending may go on, once it was told why nobody reads that.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request.
    Idle,
    /// The rest of a request's headers. Only where headers come one after the other: in HTTP/2 such bytes may be
    /// anything.
    Headers,
    /// An answer.
    Busy,
}

/// One connection.
#[derive(Debug)]
pub struct Wire<S> {
    io: S,
    http2: bool,
    limits: Limits,
    metrics: Arc<Metrics>,
    pace: Arc<Pace>,
    phase: Phase,
    /// How many requests had begun when it was last looked.
    begun: u64,
    /// When the phase has taken too long.
    patience: Pin<Box<Sleep>>,
    /// When writing has not gone on for too long, while it does not.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is written in the place of hyper's own answer.
    own: Vec<u8>,
    /// Whether the client has said its last byte.
    ended: bool,
    late: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(io: S, http2: bool, limits: Limits, metrics: Arc<Metrics>, pace: Arc<Pace>) -> Self {
        let patience = Box::pin(tokio::time::sleep(limits.idle_time_max));
        Self {
            io,
            http2,
            limits,
            metrics,
            pace,
            phase: Phase::Idle,
            begun: 0,
            patience,
            stalled: None,
            own: Vec::new(),
            ended: false,
            late: false,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let patience = if phase == Phase::Headers { self.limits.header_time_max } else { self.limits.idle_time_max };
        self.patience.as_mut().reset(Instant::now() + patience);
    }

    /// Notices that a request has begun.
    fn look(&mut self) {
        let (begun, under_way) = self.pace.begun();
        // One that began and ended since the last look has an answer that is about to be written.
        if begun != self.begun || under_way {
            self.begun = begun;
            self.phase = Phase::Busy;
        }
    }

    /// Notices that everything was answered, and the answers are on their way.
    fn look_after_flush(&mut self, context: &mut Context<'_>) {
        self.look();
        if self.phase == Phase::Busy && !self.pace.begun().1 {
            self.enter(Phase::Idle);
            // Where hyper still waits for bytes from before, it reads again only when it is woken.
            if self.patience.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
    }

    /// Takes hyper's own answer, of which `head` is the beginning, and says something better instead.
    fn replace(&mut self, head: &[u8]) {
        let status = head.strip_prefix(b"HTTP/1.1 ").or(head.strip_prefix(b"HTTP/1.0 ")).and_then(|rest| rest.get(..3));
        let problem = match status {
            Some(b"431" | b"414") => {
                self.metrics.refused(Limit::HeaderBytes);
                headers_too_large(self.limits.header_bytes_max)
            }
            _ => Problem::new(
                ProblemCode::Malformed,
                "what came is no request of HTTP",
                "send a request line, headers that are well formed, and an empty line",
            ),
        };
        self.own = on_wire(problem);
    }

    fn poll_own(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let written = match Pin::new(&mut self.io).poll_write(context, &self.own) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => written?,
                Poll::Pending => return self.poll_stalled(context).map(Err),
            };
            self.go_on();
            self.metrics.sent(written);
            self.own.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when writing has not gone on for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let stall_time_max = self.limits.stall_time_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_time_max)));
        ready!(stalled.as_mut().poll(context));
        self.metrics.refused(Limit::AnswerTime);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
    }

    fn go_on(&mut self) {
        self.stalled = None;
    }

    /// Ends the connection, after hyper has let it go.
    ///
    /// A client that is still sending is heard out for a moment: closing before would make its system throw away
    /// what it was told.
    pub async fn end(mut self) {
        if self.late && self.phase == Phase::Headers {
            self.metrics.refused(Limit::HeaderTime);
            let help = "send the whole request at once; after a long wait, on a new connection";
            self.own = on_wire(Problem::new(ProblemCode::Timeout, "the request's headers took too long", help));
        }
        let talking = self.phase == Phase::Headers || !self.own.is_empty() || self.pace.is_unread();
        if self.shutdown().await.is_err() || self.ended || !talking {
            return;
        }
        let mut piece = vec![0; 16 << 10];
        let unheard = async { while matches!(self.io.read(&mut piece).await, Ok(1..)) {} };
        // Whoever goes on for longer is hung up on.
        let _ = tokio::time::timeout(LINGER_TIME_MAX, unheard).await;
    }
}

/// What is said to a client whose headers are too large.
pub fn headers_too_large(header_bytes_max: usize) -> Problem {
    let detail =
        format!("the request's line and headers have more than {header_bytes_max} bytes, or there are too many");
    Problem::new(ProblemCode::HeadersTooLarge, detail, "send fewer and shorter ones")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        wire.look();
        let before = into.filled().len();
        match Pin::new(&mut wire.io).poll_read(context, into) {
            Poll::Ready(Ok(())) => {
                let bytes = into.filled().len() - before;
                wire.ended |= bytes == 0;
                wire.metrics.received(bytes);
                if wire.phase == Phase::Idle && bytes > 0 && !wire.http2 {
                    wire.enter(Phase::Headers);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                wire.ended = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending if wire.phase == Phase::Busy => Poll::Pending,
            Poll::Pending => {
                ready!(wire.patience.as_mut().poll(context));
                wire.late = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.look();
        if wire.phase != Phase::Busy && !wire.http2 {
            let first = pieces.iter().find(|piece| !piece.is_empty());
            wire.replace(first.map_or(&[], |piece| piece));
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        match Pin::new(&mut wire.io).poll_write_vectored(context, pieces) {
            Poll::Ready(written) => {
                wire.go_on();
                let written = written?;
                wire.metrics.sent(written);
                Poll::Ready(Ok(written))
            }
            Poll::Pending => wire.poll_stalled(context).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(wire.poll_own(context))?;
        match Pin::new(&mut wire.io).poll_flush(context) {
            Poll::Ready(flushed) => {
                wire.go_on();
                wire.look_after_flush(context);
                Poll::Ready(flushed)
            }
            Poll::Pending => wire.poll_stalled(context).map(Err),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(wire.poll_own(context))?;
        match Pin::new(&mut wire.io).poll_shutdown(context) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => wire.poll_stalled(context).map(Err),
        }
    }
}
