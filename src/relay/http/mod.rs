//! The relay's HTTP server: what holds for every request, whatever it is about.
//!
//! It accepts connections, with or without TLS, lets requests in up to its [`Limits`], hands them to a router, and stops
//! in good order. What the requests do is the router's business ([`routes`](super::routes)).
//!
//! **Invariant**: whatever strangers send, and however slowly, costs bounded memory and time, and is answered: by the
//! router, or with a [`Problem`](super::Problem) that says which limit it met. Exceptions are those to whom nothing can be
//! said: who sends no request, reads no answer, or fails to shake hands. The bare refusals of HTTP/2 itself (headers
//! beyond twice the limit, too many streams) are its library's.
//!
//! **Absent here**: compression, reloading of certificates, HTTP/3, and any say in who may do what.
//!
//! | file | what it is |
//! |---|---|
//! | `limits` | what a stranger may cost |
//! | `connection`, `wire`, `pace` | one connection: protocol, bytes and patience, whose turn it is |
//! | `front` | one request, from its id to its line in the log |
//! | `rate`, `cors`, `request_id`, `metrics`, `tls` | what it needs for that |
//! | `exchange`, `body`, `strict` | what a handler is given |
//! | `answer` | what a handler gives back |

mod answer;
mod body;
mod connection;
mod cors;
mod exchange;
mod front;
mod limits;
mod metrics;
mod pace;
mod rate;
mod request_id;
mod strict;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(super) use self::answer::in_words;
pub use self::answer::{Reply, SYNC_TOKEN};
pub(super) use self::body::BodyBytesMax;
pub use self::body::JsonBody;
pub use self::exchange::{Exchange, Stopping};
pub use self::front::{RateKey, by_token};
pub(super) use self::limits::KEYS_MAX;
pub use self::limits::{Limit, Limits};
pub use self::metrics::Metrics;
pub(super) use self::metrics::figure;
pub(super) use self::rate::Rate;
pub use self::request_id::{REQUEST_ID, RequestId};
pub(super) use self::strict::read_as;

use self::cors::Cors;
use self::exchange::{Shares, Stage, overloaded};
use self::front::Front;
use super::Origin;

/// How many clients may be told at once that there are too many. Further ones are hung up on.
const TURNED_AWAY_MAX: usize = 64;
/// How long telling one may take.
const TURNING_AWAY_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait when the system hands out no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The files with the certificate and its key, in PEM; none serves in the clear.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether to serve others than this machine in the clear, since a proxy in front of it ends TLS.
    pub insecure: bool,
    /// Whose pages may speak to it from a browser.
    pub cors: Vec<Origin>,
    /// What a stranger may cost.
    pub limits: Limits,
    /// Whose requests count together for the rate.
    pub rate_key: RateKey,
}

impl HttpConfig {
    /// In the clear at `listen`, with the usual limits, and no browsers.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, tls: None, insecure: false, cors: Vec::new(), limits: Limits::default(), rate_key: by_token }
    }
}

/// Why nothing can be served. Nothing was begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Tokens would go over the network for all to read.
    #[error(
        "{listen} is not an address of this machine alone, and without TLS tokens and rows could be read on the way"
    )]
    Insecure {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// A file of TLS cannot be used.
    #[error("{}: {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate and the key cannot be used, each or together.
    #[error("the certificate in {} cannot be used with the key in {}: {what}", certificate.display(), key.display())]
    Tls {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {listen} over TCP: {error}")]
    Socket {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
}

/// A server that has its address, and does not accept connections yet.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    cors: Cors,
    limits: Limits,
    rate_key: RateKey,
    metrics: Arc<Metrics>,
}

impl HttpServer {
    /// Takes the address. Clients that connect from now on wait until [`HttpServer::serve`].
    ///
    /// # Errors
    /// [`HttpError`] says what to change.
    pub async fn bind(config: HttpConfig) -> Result<Self, HttpError> {
        let HttpConfig { listen, tls, insecure, cors, limits, rate_key } = config;
        if tls.is_none() && !insecure && !listen.ip().to_canonical().is_loopback() {
            return Err(HttpError::Insecure { listen });
        }
        let tls = tls.map(|(certificate, key)| tls::read(&certificate, &key)).transpose()?.map(TlsAcceptor::from);
        let socket = |error| HttpError::Socket { listen, error };
        let listener = TcpListener::bind(listen).await.map_err(socket)?;
        let address = listener.local_addr().map_err(socket)?;
        Ok(Self { listener, address, tls, cors: Cors::new(cors), limits, rate_key, metrics: Arc::default() })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The same as the beginning of a URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves until `stop` is done, then drains: what is under way is finished, new requests are told to come again,
    /// idle connections are closed. It returns when all is said, or [`Limits::drain_time_max`] is over.
    ///
    /// A stream that has no end of its own asks its [`Exchange`] when to end; any other is given the same time.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>) {
        let Self { listener, tls, cors, limits, rate_key, metrics, .. } = self;
        let (stage, seen) = watch::channel(Stage::Serving);
        let shares = Arc::new(Shares::new(limits, metrics, seen));
        let front = Arc::new(Front::new(router, cors, rate_key, shares));
        let mut door = Door {
            tls,
            front: Arc::clone(&front),
            places: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
            turning_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            connections: JoinSet::new(),
        };
        tokio::select! {
            () = door.accept(&listener) => {}
            () = stop => {}
        }
        let _ = stage.send(Stage::Stopping);
        let drain = async {
            // Whoever comes meanwhile is told so, rather than left to guess.
            tokio::select! {
                () = door.accept(&listener) => {}
                () = front.is_done() => {}
            }
            drop(listener);
            let _ = stage.send(Stage::Done);
            while door.connections.join_next().await.is_some() {}
        };
        if tokio::time::timeout(limits.drain_time_max, drain).await.is_err() {
            tracing::warn!("some requests were given up, they took too long to end");
        }
        door.connections.shutdown().await;
        let _ = stage.send(Stage::Over);
        front.is_done().await;
    }
}

/// Lets clients in.
struct Door {
    tls: Option<TlsAcceptor>,
    front: Arc<Front>,
    places: Arc<Semaphore>,
    turning_away: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Door {
    /// Lets clients in, and does not end.
    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, client)) => self.admit(stream, client),
                    Err(error) => {
                        // Out of file handles, most likely: those that are open are closed again in time.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, client: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return self.turn_away(stream) };
        let (front, tls) = (Arc::clone(&self.front), self.tls.clone());
        self.connections.spawn(async move {
            let _place = place;
            connection::serve(front, stream, client, tls).await;
        });
    }

    /// Says that there are too many, where that costs next to nothing: a handshake would cost what is to be saved.
    fn turn_away(&mut self, mut stream: TcpStream) {
        self.front.shares().metrics.refused(Limit::Connections);
        let turning_away = Arc::clone(&self.turning_away).try_acquire_owned();
        let (Ok(place), None) = (turning_away, &self.tls) else { return };
        self.connections.spawn(async move {
            let _place = place;
            let telling = async {
                let text = answer::on_wire(overloaded("there are too many connections"));
                stream.write_all(&text).await?;
                stream.shutdown().await?;
                // Closed before its request was read, it would throw away what it was told.
                let mut piece = [0; 4096];
                while stream.read(&mut piece).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(TURNING_AWAY_TIME_MAX, telling).await;
        });
    }
}
