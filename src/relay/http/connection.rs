//! One client's connection, from the handshake to the end.
//!
//! **Invariant**: hyper is never given a connection whose protocol it would have to wait for: in the clear it is HTTP/1.1,
//! under TLS what the handshake says. So every wait for a client is bounded, here or in [`Wire`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::front::{Front, Visitor};
use super::limits::{Limit, Limits};
use super::metrics::Metrics;
use super::pace::Pace;
use super::wire::Wire;

/// How large the buffers of a connection of HTTP/1.1 may grow, beyond its headers.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How many requests one connection of HTTP/2 may have under way.
const STREAMS_MAX: u32 = 32;
/// What HTTP/2 lets through of headers, in multiples of what is allowed: it refuses without a word, the front says why.
const HTTP2_HEADERS_FACTOR: usize = 2;

/// Serves a connection.
pub async fn serve(front: Arc<Front>, stream: TcpStream, client: SocketAddr, tls: Option<TlsAcceptor>) {
    let shares = Arc::clone(front.shares());
    let (limits, metrics) = (shares.limits, Arc::clone(&shares.metrics));
    let _open = metrics.connection();
    // Answers are written whole; waiting for more to send with them helps nobody.
    let _ = stream.set_nodelay(true);
    let visitor = Visitor { front, client, pace: Arc::default() };
    let wire = |http2| (http2, limits, Arc::clone(&metrics), Arc::clone(&visitor.pace));
    let Some(tls) = tls else {
        let (http2, limits, metrics, pace) = wire(false);
        return http1(Wire::new(stream, http2, limits, metrics, pace), visitor).await;
    };
    let stream = match tokio::time::timeout(limits.header_time_max, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "a TLS handshake failed"),
        Err(_) => return metrics.refused(Limit::HeaderTime),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (http2_wire, limits, metrics, pace) = wire(is_http2);
    let wire = Wire::new(stream, http2_wire, limits, metrics, pace);
    if is_http2 { http2(wire, visitor).await } else { http1(wire, visitor).await }
}

/// Waits until an answer was to be taken by the client, and was not.
async fn overdue(pace: &Pace, limits: &Limits, metrics: &Metrics) {
    loop {
        match pace.due() {
            Some(due) if due <= tokio::time::Instant::now() => break,
            Some(due) => tokio::time::sleep_until(due).await,
            // Those that begin from now on are not due before this is over.
            None => tokio::time::sleep(limits.answer_time_max).await,
        }
    }
    metrics.refused(Limit::AnswerTime);
}

async fn http1(wire: Wire<impl AsyncRead + AsyncWrite + Unpin>, visitor: Visitor) {
    let (pace, shares) = (Arc::clone(&visitor.pace), Arc::clone(visitor.front.shares()));
    let limits = &shares.limits;
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.saturating_add(BUFFER_BYTES_MAX))
        .serve_connection(TokioIo::new(wire), visitor);
    let mut ending = shares.ending();
    let mut told = false;
    let overdue = overdue(&pace, limits, &shares.metrics);
    let mut overdue = std::pin::pin!(overdue);
    loop {
        tokio::select! {
            ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return connection.into_parts().io.into_inner().end().await;
            }
            () = ending.wanted(), if !told => {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut overdue => return,
        }
    }
}

/// Where HTTP/2 has its requests done: by the connection's own task, so that they end with it.
#[derive(Clone, Debug)]
struct Tasks(mpsc::UnboundedSender<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        // At most as many are under way as there are streams, and one for the connection. A connection that is gone has
        // no more use for them.
        let _ = self.0.send(Box::pin(async move { drop(task.await) }));
    }
}

async fn http2(wire: Wire<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>, visitor: Visitor) {
    let (pace, shares) = (Arc::clone(&visitor.pace), Arc::clone(visitor.front.shares()));
    let limits = &shares.limits;
    let (give, mut given) = mpsc::unbounded_channel();
    let headers = limits.header_bytes_max.saturating_mul(HTTP2_HEADERS_FACTOR);
    let connection = http2::Builder::new(Tasks(give))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(headers).unwrap_or(u32::MAX))
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), visitor);
    let mut connection = std::pin::pin!(connection);
    let mut tasks = JoinSet::new();
    let mut ending = shares.ending();
    let mut told = false;
    let overdue = overdue(&pace, limits, &shares.metrics);
    let mut overdue = std::pin::pin!(overdue);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            Some(task) = given.recv() => {
                tasks.spawn(task);
            }
            Some(_) = tasks.join_next() => {}
            () = ending.wanted(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut overdue => break,
        }
    }
    tasks.shutdown().await;
}
