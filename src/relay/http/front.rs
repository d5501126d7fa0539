//! What happens to every request, whatever it is about: it gets an id, is let in or refused by a limit, is answered even if
//! its handler panics, marked for the browser, counted and logged.
//!
//! **Invariant**: each request is logged once, when its answer has gone or its client has, with the template of its route;
//! never with a path, a query, a header or a body.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use axum::http::{Request, Response, StatusCode, Version};
use axum::response::IntoResponse;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service as HyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service as TowerService;
use tracing::Instrument as _;

use super::answer::{as_problem, internal};
use super::body::too_large;
use super::cors::Cors;
use super::exchange::{Exchange, Shares, overloaded};
use super::limits::{Limit, Limits};
use super::metrics::{Metrics, NO_ROUTE, method_name};
use super::pace::{Pace, Turn};
use super::rate::Rate;
use super::request_id::{REQUEST_ID, RequestId};
use super::wire::headers_too_large;
use crate::relay::{Problem, ProblemCode};

/// What says whose request it is, so that each has a rate of its own: part of the headers. None for what is nobody's,
/// which counts for its address.
pub type RateKey = for<'a> fn(&'a HeaderMap) -> Option<&'a [u8]>;

/// The token, however the words before it and the spaces around it are written, or none.
pub fn by_token(headers: &HeaderMap) -> Option<&[u8]> {
    let said = headers.get(axum::http::header::AUTHORIZATION)?.as_bytes();
    let scheme = said.iter().position(|byte| *byte == b' ').unwrap_or_default();
    Some(said[scheme..].trim_ascii())
}

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    router: Router,
    cors: Cors,
    rate: Rate,
    rate_key: RateKey,
    shares: Arc<Shares>,
    requests: Arc<Semaphore>,
    /// How many of those places each address has.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    began: Instant,
    /// How many requests were let in and are not done with.
    under_way: watch::Sender<usize>,
}

impl Front {
    pub fn new(router: Router, cors: Cors, rate_key: RateKey, shares: Arc<Shares>) -> Self {
        let Limits { requests_per_second_max, keys_max, requests_max, .. } = shares.limits;
        let router = router.layer(axum::middleware::map_request(|request: Request<Body>| async {
            Exchange::note_route(request.extensions());
            request
        }));
        Self {
            router,
            cors,
            rate: Rate::new(requests_per_second_max, keys_max),
            rate_key,
            shares,
            requests: Arc::new(Semaphore::new(requests_max.min(Semaphore::MAX_PERMITS))),
            addresses: Mutex::default(),
            began: Instant::now(),
            under_way: watch::channel(0).0,
        }
    }

    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// Waits until nothing is under way.
    pub async fn is_done(&self) {
        // The other end is held here.
        let _ = self.under_way.subscribe().wait_for(|under_way| *under_way == 0).await;
    }

    /// Lets a request in, or says why not.
    fn admit(self: &Arc<Self>, request: &Request<Incoming>, client: IpAddr) -> Result<Place, (Limit, Problem)> {
        let limits = &self.shares.limits;
        let headers = request.headers();
        if self.shares.stopping().is_wanted() {
            return Err((Limit::Stopping, overloaded("the relay is stopping")));
        }
        // HTTP/1.1 is held to it where headers are read, HTTP/2 to a multiple only, since it refuses without a word.
        let weight: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if weight + request.uri().path().len() + request.uri().query().map_or(0, str::len) > limits.header_bytes_max {
            return Err((Limit::HeaderBytes, headers_too_large(limits.header_bytes_max)));
        }
        let address = client.to_canonical().to_string();
        let key = (self.rate_key)(headers).unwrap_or(address.as_bytes());
        if let Err(wait) = self.rate.admit(key, self.began.elapsed()) {
            let detail = format!("more than {} requests in a second", limits.requests_per_second_max);
            let problem = Problem::new(ProblemCode::TooManyRequests, detail, "send fewer, with more in each");
            return Err((Limit::Rate, problem.retry_after(wait.as_secs_f64().ceil().max(1.0) as u64)));
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > limits.body_bytes_max as u64) {
            return Err((Limit::BodyBytes, too_large(limits.body_bytes_max)));
        }
        let share = self.share(client);
        let permit = Arc::clone(&self.requests).try_acquire_owned().ok();
        match (share, permit) {
            (Some(share), Some(permit)) => Ok(Place { _permit: permit, _share: share }),
            _ => Err((Limit::Requests, overloaded("the relay has too much to do"))),
        }
    }

    /// A share in what one address may have under way: half of all, so that nobody keeps everybody else out. A proxy on
    /// this machine speaks for many.
    fn share(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let address = Some(client.to_canonical()).filter(|address| !address.is_loopback());
        if let Some(address) = address {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= self.shares.limits.requests_max.div_ceil(2) {
                return None;
            }
            *count += 1;
        }
        Some(Share { front: Arc::clone(self), address })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, client: SocketAddr, turn: Turn) -> Response<Answer> {
        let id = RequestId::of(request.headers());
        let (method, version) = (method_name(request.method()), request.version());
        let origin = self.cors.origin(request.headers());
        let preflight = origin.is_some() && Cors::is_preflight(request.method(), request.headers());
        let exchange = Exchange::new(id.clone(), client, Arc::clone(&self.shares));
        let mut account = Account::begin(Arc::clone(&self), exchange.clone(), method, turn);

        let response = if preflight {
            StatusCode::NO_CONTENT.into_response()
        } else {
            match self.admit(&request, client.ip()) {
                Ok(place) => {
                    let place = Arc::new(place);
                    let under_way = account.let_in(Arc::clone(&place));
                    let (mut parts, body) = request.into_parts();
                    parts.extensions.insert(exchange.clone());
                    let body = Body::new(Question { body, ended: false, turn: account.pace() });
                    let span = tracing::info_span!("request", id = %id);
                    let handling = handle(self.router.clone(), Request::from_parts(parts, body)).instrument(span);
                    let (asked, mut over, front) = (exchange.clone(), self.shares.over(), Arc::clone(&self));
                    // In a task of its own: what was begun is brought to its end, noted, and counted until then, also
                    // when its client hangs up meanwhile.
                    let handling = tokio::spawn(async move {
                        let handled = tokio::select! {
                            handled = handling => handled.unwrap_or_else(|()| {
                                front.shares.metrics.panicked();
                                tracing::error!(request = %asked.id(), route = asked.route(), "a handler panicked");
                                internal().into_response()
                            }),
                            () = over.wanted() => overloaded("the relay has stopped").into_response(),
                        };
                        asked.release();
                        drop((place, under_way));
                        handled
                    });
                    handling.await.unwrap_or_else(|_| internal().into_response())
                }
                Err((limit, problem)) => {
                    self.shares.metrics.refused(limit);
                    account.leave_unread(&request);
                    problem.into_response()
                }
            }
        };
        let mut response = as_problem(response, method).await;
        let status = response.status();
        let headers = response.headers_mut();
        if status.is_client_error() || status.is_server_error() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.shares.stopping().is_wanted() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.insert(REQUEST_ID, id.header());
        self.cors.mark(origin.as_ref(), preflight, headers);
        account.answer(status, response.body().size_hint().exact());
        response.map(|body| Answer { body, rest: Bytes::new(), account })
    }
}

/// Has the router answer. A panic of the handler ends with it.
async fn handle(mut router: Router, request: Request<Body>) -> Result<Response<Body>, ()> {
    // A handler that panics leaves nothing behind that others use: what it shares with them is a node, whose own threads
    // do the work, and the counts of this server.
    let handling = catch_unwind(AssertUnwindSafe(|| TowerService::call(&mut router, request))).map_err(drop)?;
    let mut handling = Box::pin(handling);
    std::future::poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Ok(response)),
        Ok(Poll::Ready(Err(never))) => match never {},
        Err(_) => Poll::Ready(Err(())),
    })
    .await
}

/// One connection's way to the front.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub front: Arc<Front>,
    pub client: SocketAddr,
    pub pace: Arc<Pace>,
}

impl HyperService<Request<Incoming>> for Visitor {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // From this very moment the connection is busy; later, it would take the answer for hyper's own.
        let turn = self.pace.begin();
        let answering = Arc::clone(&self.front).answer(request, self.client, turn);
        Box::pin(async move { Ok(answering.await) })
    }
}

/// A request's body, on its way to the handler.
#[derive(Debug)]
struct Question {
    body: Incoming,
    ended: bool,
    turn: Arc<Pace>,
}

impl HttpBody for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.turn.leave_unread();
        }
    }
}

/// A place among the requests that are under way.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// What an address has of the places.
#[derive(Debug)]
struct Share {
    front: Arc<Front>,
    /// None where it does not count.
    address: Option<IpAddr>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.front.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = addresses.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Counts a request as under way for as long as it lives.
#[derive(Debug)]
struct UnderWay(Arc<Front>);

impl UnderWay {
    fn begin(front: &Arc<Front>) -> Self {
        front.under_way.send_modify(|under_way| *under_way += 1);
        Self(Arc::clone(front))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|under_way| *under_way -= 1);
    }
}

/// What is to be known of a request once it is over.
#[derive(Debug)]
struct Account {
    front: Arc<Front>,
    exchange: Exchange,
    turn: Turn,
    method: &'static str,
    began: Instant,
    place: Option<Arc<Place>>,
    under_way: Option<Arc<UnderWay>>,
    status: Option<StatusCode>,
    bytes: u64,
}

impl Account {
    fn begin(front: Arc<Front>, exchange: Exchange, method: &'static str, turn: Turn) -> Self {
        front.metrics().begin();
        let began = Instant::now();
        Self { front, exchange, turn, method, began, place: None, under_way: None, status: None, bytes: 0 }
    }

    /// Returns what counts the request as under way, for whoever has to do with it besides its client.
    fn let_in(&mut self, place: Arc<Place>) -> Arc<UnderWay> {
        self.place = Some(place);
        Arc::clone(self.under_way.insert(Arc::new(UnderWay::begin(&self.front))))
    }

    fn pace(&self) -> Arc<Pace> {
        self.turn.pace()
    }

    fn leave_unread(&self, request: &Request<Incoming>) {
        if !request.body().is_end_stream() {
            self.turn.pace().leave_unread();
        }
    }

    fn route(&self) -> &str {
        self.exchange.route().unwrap_or(NO_ROUTE)
    }

    /// The answer begins, with a body of so many bytes if that is known. A large one goes on counting as a request until
    /// it has gone; a small one is no more than what a connection costs anyway.
    fn answer(&mut self, status: StatusCode, bytes: Option<u64>) {
        self.status = Some(status);
        self.front.metrics().answered(self.route(), self.method, status.as_u16(), self.began.elapsed());
        if bytes.is_some() {
            let due = tokio::time::Instant::now() + self.front.shares.limits.answer_time_max;
            self.turn.answer_until(due);
        }
        if bytes.is_none_or(|bytes| bytes <= SMALL_BYTES) {
            self.place = None;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.front.metrics().end();
        let (request, method, route) = (self.exchange.id(), self.method, self.route());
        let (bytes, ms) = (self.bytes, self.began.elapsed().as_micros() as f64 / 1000.0);
        match self.status.map(|status| status.as_u16()) {
            Some(status) => tracing::info!(%request, method, route, status, ms, bytes, "answered"),
            None => tracing::info!(%request, method, route, ms, "its client went away"),
        }
    }
}

impl Front {
    fn metrics(&self) -> &Metrics {
        &self.shares.metrics
    }
}

/// Answers of so many bytes are small.
const SMALL_BYTES: u64 = 16 << 10;

/// In pieces of how many bytes an answer is handed to the connection.
const PIECE_BYTES: usize = 32 << 10;

/// An answer's body, on its way to the client.
///
/// It is handed over piece by piece, as the client takes it: handed over whole it would be out of sight, and would still
/// take the memory that the limits count.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// What the body has given and is not handed over yet.
    rest: Bytes,
    account: Account,
}

impl Answer {
    fn piece(&mut self) -> Bytes {
        let piece = if self.rest.len() > PIECE_BYTES {
            self.rest.split_to(PIECE_BYTES)
        } else {
            // A piece keeps the memory of the whole; the last one must not, when nobody counts it any more.
            Bytes::copy_from_slice(&std::mem::take(&mut self.rest))
        };
        self.account.bytes += piece.len() as u64;
        piece
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Stage;
    use super::*;

    #[test]
    fn one_address_gets_half_of_the_places() {
        let limits = Limits { requests_max: 4, ..Limits::default() };
        let shares = Shares::new(limits, Arc::default(), watch::channel(Stage::Serving).1);
        let cors = Cors::new(Vec::new());
        let front = Arc::new(Front::new(Router::new(), cors, super::super::by_token, Arc::new(shares)));
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first: Vec<_> = (0..2).map(|_| front.share(address("192.0.2.1")).expect("a share")).collect();
        assert!(front.share(address("192.0.2.1")).is_none());
        assert!(front.share(address("::ffff:192.0.2.1")).is_none(), "it is the same one");
        assert!(front.share(address("192.0.2.2")).is_some());
        let proxied: Vec<_> = (0..9).map(|_| front.share(address("127.0.0.1"))).collect();
        assert!(proxied.iter().all(Option::is_some));
        drop(first);
        assert!(front.share(address("192.0.2.1")).is_some());
        assert!(front.addresses.lock().expect("whole").is_empty(), "nobody is remembered");
    }
}
