//! The relay's HTTP side as strangers meet it: over real sockets, in the clear and under TLS, with the limits made small
//! where waiting for them would take long. What requests are about is tested elsewhere.

mod house;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fs, io, thread};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use house::{DONE, Device, FAILED, Http, PATIENCE, USAGE, eventually, request};
use hyper::body::Frame;
use serde_json::{Value, json};
use thence::model::Role;
use thence::node::{DataFolder, Node, NodeConfig};
use thence::relay::http::{Exchange, HttpConfig, HttpServer, JsonBody, Limits, Metrics, Reply};
use thence::relay::{Keys, Problem, ProblemCode, Relay, Scope, routes};
use tokio::sync::{oneshot, watch};

/// A time that is over soon; for limits whose being met is the story.
const SOON: Duration = Duration::from_millis(100);
/// An answer that fits into no buffer of a socket.
const LARGE_BYTES: usize = 64 << 20;

/// A server in this process, whose router shows what the server does by itself.
struct Serving {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    /// Tells when a handler of `/wait` has begun.
    begun: mpsc::Receiver<()>,
    /// Lets those of `/wait` go on.
    go: watch::Sender<bool>,
    /// How many of them came to their end.
    waited: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<thread::JoinHandle<()>>,
}

/// What is sent over `/stream`, until its sender is gone.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Sends a piece, and another one when the server stops; then it ends.
async fn stream(exchange: Exchange) -> Body {
    let (pieces, body) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let _ = pieces.send(Bytes::from_static(b"hello"));
        exchange.stopping().wanted().await;
        let _ = pieces.send(Bytes::from_static(b"goodbye"));
    });
    Body::new(Pieces(body))
}

impl Serving {
    fn with(limits: Limits) -> Self {
        Self::serve(HttpConfig { limits, ..HttpConfig::new("127.0.0.1:0".parse().expect("an address")) })
    }

    fn usual() -> Self {
        Self::with(Limits::default())
    }

    fn serve(config: HttpConfig) -> Self {
        let (tell, begun) = mpsc::channel();
        let (go, gone) = watch::channel(false);
        let waited = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waited);
        let wait = move || {
            let (tell, mut gone, count) = (tell.clone(), gone.clone(), Arc::clone(&count));
            async move {
                let _ = tell.send(());
                let _ = gone.wait_for(|go| *go).await;
                count.fetch_add(1, Ordering::SeqCst);
                Reply::ok(&json!("waited"))
            }
        };
        let router = Router::new()
            .route("/hello", get(|| async { Reply::ok(&json!("hello")) }))
            .route("/echo", post(|JsonBody(body): JsonBody<Value>| async move { Reply::ok(&body) }))
            .route("/maybe", post(|body: Option<JsonBody<Value>>| async move { Reply::ok(&body.map(|body| body.0)) }))
            .route("/deaf", post(|| async { Reply::no_content() }))
            .route("/wait/{key}", get(wait.clone()).post(move |_: JsonBody<Value>| wait()))
            .route("/number/{number}", get(|_: axum::extract::Path<u32>| async { Reply::no_content() }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("planted by a test")
                    }
                }),
            )
            .route("/failure", get(|| async { axum::http::StatusCode::BAD_GATEWAY }))
            .route(
                "/busy",
                get(|| async {
                    Problem::new(ProblemCode::Conflict, "it is taken", "take another").with("reason", "taken")
                }),
            )
            .route("/large", get(|| async { vec![b'x'; LARGE_BYTES] }))
            .route("/stream", get(stream));
        let (stop, stopped) = oneshot::channel();
        let (say, said) = mpsc::channel();
        let ended = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let server = HttpServer::bind(config).await.expect("a free port");
                say.send((server.local_address(), server.metrics())).expect("the test waits for it");
                server.serve(router, async { drop(stopped.await) }).await;
            });
        });
        let (address, metrics) = said.recv().expect("it serves");
        Self { address, metrics, begun, go, waited, stop: Some(stop), ended: Some(ended) }
    }

    #[track_caller]
    fn connect(&self) -> Http {
        Http::connect(self.address)
    }

    /// One request on a connection of its own.
    #[track_caller]
    fn ask(&self, method: &str, path: &str) -> house::HttpAnswer {
        self.connect().ask(method, path, &[("Connection", "close")])
    }

    /// A request that waits in its handler.
    #[track_caller]
    fn waiting(&self) -> Http {
        let mut http = self.connect();
        http.send(request("GET", "/wait/sentinel7f3a", &[], None));
        self.begun.recv_timeout(PATIENCE).expect("the handler begins");
        http
    }

    fn begin_to_stop(&mut self) {
        let _ = self.stop.take().expect("not stopped yet").send(());
    }

    /// Waits until it has ended.
    fn ended(mut self) {
        self.ended.take().expect("not waited for yet").join().expect("no panic");
    }

    /// A figure of the metrics.
    #[track_caller]
    fn figure(&self, name: &str) -> u64 {
        let text = self.metrics.text();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    #[track_caller]
    fn refused(&self, limit: &str) -> u64 {
        self.figure(&format!("thence_http_refused_total{{limit=\"{limit}\"}}"))
    }
}

// ------------------------------------------------------------------------------------------------ what is no request

#[test]
fn headers_that_come_too_slowly_are_given_up() {
    let serving = Serving::with(Limits { header_time_max: SOON, ..Limits::default() });
    for begun in ["G", "GET /hello HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut slow = serving.connect();
        slow.send(begun);
        slow.answer().problem(408, "timeout");
        slow.ends();
    }
    // Byte by byte, none of them long after the other, as slow-loris does it: in total it is too long all the same.
    let mut loris = serving.connect();
    let mut sending = loris.stream();
    let dripping = thread::spawn(move || {
        use io::Write as _;
        while sending.write_all(b"a").is_ok() {
            thread::yield_now();
        }
    });
    let answer = loris.answer();
    // Where it is fast, it is too large before it is too late.
    assert!(matches!(answer.status, 408 | 431), "{answer:?}");
    drop(loris);
    dripping.join().expect("it ends when the connection does");
    // The same later on a connection that has been of use.
    let mut late = serving.connect();
    late.ask("GET", "/hello", &[]).expect(200);
    late.send("GET /hel");
    late.answer().problem(408, "timeout");
    late.ends();
    assert!(serving.refused("header_time") >= 3);
    serving.ask("GET", "/hello").expect(200);
}

#[test]
fn idle_connections_are_closed_without_a_word() {
    let serving = Serving::with(Limits { idle_time_max: SOON, ..Limits::default() });
    serving.connect().ends();
    let mut used = serving.connect();
    used.ask("GET", "/hello", &[]).expect(200);
    used.ends();
    eventually(PATIENCE, "they are not counted any more", || serving.figure("thence_http_connections") == 0);
    assert_eq!(serving.refused("header_time"), 0);
}

#[test]
fn headers_that_are_too_large_are_refused() {
    let serving = Serving::with(Limits { header_bytes_max: 4096, ..Limits::default() });
    let long = "x".repeat(8000);
    for text in [
        request("GET", "/hello", &[("X-Long", &long)], None),
        request("GET", &format!("/{long}"), &[], None),
        request("GET", "/hello", &[("X", "x"); 200], None),
        format!("GET /hello HTTP/1.1\r\n{long}{long}"),
    ] {
        let mut http = serving.connect();
        http.send(text);
        http.answer().problem(431, "headers-too-large");
        http.ends();
    }
    assert_eq!(serving.refused("header_bytes"), 4);
    serving.ask("GET", "/hello").expect(200);
}

#[test]
fn what_is_no_request_is_told_so() {
    let serving = Serving::usual();
    for text in [
        "GARBAGE\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "GET /hello HTTP/9.9\r\n\r\n",
        "GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /hel lo HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut http = serving.connect();
        http.send(text);
        http.answer().problem(400, "malformed");
        http.ends();
    }
    // TLS, and HTTP/2 that nobody agreed on.
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut http = serving.connect();
        http.send(bytes).finish_sending();
        let mut rest = Vec::new();
        let _ = io::Read::read_to_end(&mut http.stream(), &mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
    }
    let mut cut = serving.connect();
    cut.send("GET /hello HTT").finish_sending();
    drop(cut);
    serving.ask("GET", "/hello").expect(200);
}

// ------------------------------------------------------------------------------------------------------------ bodies

#[test]
fn bodies_that_are_too_large_are_refused() {
    let serving = Serving::with(Limits { body_bytes_max: 64 << 10, ..Limits::default() });
    let json = &[("Content-Type", "application/json")];
    // Before the first byte of it.
    let mut declared = serving.connect();
    declared.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n");
    declared.answer().problem(413, "too-large");
    // Whether or not the handler would have read it.
    serving.connect().ask_with("POST", "/deaf", &" ".repeat(70_000)).problem(413, "too-large");
    // A client that sends all of it before it reads is told so, too.
    let mut huge = serving.connect();
    huge.ask_with("POST", "/echo", &format!("\"{}\"", "x".repeat(4 << 20))).problem(413, "too-large");
    huge.ends();
    // One that does not say how much is to come.
    let mut endless = serving.connect();
    endless.send(request("POST", "/echo", &[json[0], ("Transfer-Encoding", "chunked")], None));
    let mut sending = endless.stream();
    let pouring = thread::spawn(move || {
        use io::Write as _;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        while sending.write_all(chunk.as_bytes()).is_ok() {}
    });
    endless.answer().problem(413, "too-large");
    drop(endless);
    pouring.join().expect("it ends when the connection does");
    assert_eq!(serving.refused("body_bytes"), 4);

    let fits = format!("\"{}\"", "x".repeat((64 << 10) - 2));
    assert_eq!(serving.connect().ask_with("POST", "/echo", &fits).expect(200).body, fits.as_bytes());
}

#[test]
fn a_body_that_comes_too_slowly_is_given_up() {
    let serving = Serving::with(Limits { body_time_max: SOON, ..Limits::default() });
    let headers = [("Content-Type", "application/json"), ("Content-Length", "100")];
    let mut slow = serving.connect();
    slow.send(request("POST", "/echo", &headers, None)).send("{\"a\":");
    slow.answer().problem(408, "timeout");
    slow.ends();
    assert_eq!(serving.refused("body_time"), 1);

    // Broken off, it is nobody's answer any more.
    let mut cut = serving.connect();
    cut.send(request("POST", "/echo", &headers, None)).send("{\"a\":");
    drop(cut);
    eventually(PATIENCE, "nothing is held for it", || serving.figure("thence_http_requests_under_way") == 0);
    serving.ask("GET", "/hello").expect(200);
}

#[test]
fn bodies_share_a_bounded_memory() {
    let serving = Serving::with(Limits { bodies_bytes_max: 64 << 10, ..Limits::default() });
    let body = format!("\"{}\"", "x".repeat(40_000));
    let mut first = serving.connect();
    first.send(request("POST", "/wait/upload", &[("Content-Type", "application/json")], Some(&body)));
    serving.begun.recv_timeout(PATIENCE).expect("it has come whole");
    let mut second = serving.connect();
    second.ask_with("POST", "/echo", &body).problem(503, "unavailable").comes_again();
    assert_eq!(serving.refused("bodies_bytes"), 1);
    serving.connect().ask_with("POST", "/echo", "[1]").expect(200);
    serving.go.send(true).expect("it waits");
    first.answer().expect(200);
    serving.connect().ask_with("POST", "/echo", &body).expect(200);
}

#[test]
fn a_body_is_json_that_means_one_thing() {
    let serving = Serving::usual();
    let mut http = serving.connect();
    for (body, status, path) in [
        ("{\"a\":1,\"b\":{\"c\":[1,{\"d\":1,\"d\":2}]}}", 400, "/b/c/1/d"),
        ("{\"a\":", 400, "/a"),
        ("{} {}", 400, ""),
        ("{\"a\":NaN}", 400, "/a"),
        ("", 400, ""),
        ("[0.1000000000000000055]", 422, "/0"),
        ("[18446744073709551617]", 422, "/0"),
    ] {
        let answer = http.ask_with("POST", "/echo", body);
        let answer = answer.problem(status, if status == 400 { "malformed" } else { "invalid" });
        assert_eq!(answer.json()["path"], path, "{body}");
    }
    let bomb = "[".repeat(100_000);
    http.ask_with("POST", "/echo", &bomb).problem(400, "malformed");
    let large = format!("[{}1]", "1,".repeat(100_000));
    assert_eq!(http.ask_with("POST", "/echo", &large).expect(200).body, large.as_bytes());

    let text = &[("Content-Type", "text/plain"), ("Content-Length", "2")];
    http.send(request("POST", "/echo", text, None)).send("{}");
    http.answer().problem(415, "media-type");
    let mut http = serving.connect();
    http.send(request("POST", "/echo", &[("Content-Length", "2")], None)).send("{}");
    http.answer().problem(415, "media-type");

    let mut http = serving.connect();
    assert_eq!(http.ask("POST", "/maybe", &[]).expect(200).json(), Value::Null);
    assert_eq!(http.ask_with("POST", "/maybe", "[7]").expect(200).json(), json!([7]));
    http.ask_with("POST", "/maybe", "[7").problem(400, "malformed");
}

// ----------------------------------------------------------------------------------------- connections and requests

#[test]
fn there_are_only_so_many_connections() {
    let serving = Serving::with(Limits { connections_max: 2, ..Limits::default() });
    let (mut one, mut two) = (serving.connect(), serving.connect());
    one.ask("GET", "/hello", &[]).expect(200);
    two.ask("GET", "/hello", &[]).expect(200);
    let mut three = serving.connect();
    three.send(request("GET", "/hello", &[], None));
    three.answer().problem(503, "unavailable").comes_again();
    three.ends();
    assert_eq!(serving.refused("connections"), 1);
    assert_eq!(serving.figure("thence_http_connections"), 2);
    one.ask("GET", "/hello", &[]).expect(200);
    drop(one);
    eventually(PATIENCE, "there is a place again", || serving.ask("GET", "/hello").status == 200);
    two.ask("GET", "/hello", &[]).expect(200);
}

#[test]
fn there_are_only_so_many_requests_at_a_time() {
    let serving = Serving::with(Limits { requests_max: 1, ..Limits::default() });
    let mut first = serving.waiting();
    let mut second = serving.connect();
    second.ask("GET", "/hello", &[]).problem(503, "unavailable").comes_again();
    serving.go.send(true).expect("it waits");
    assert_eq!(first.answer().expect(200).json(), json!("waited"));
    second.ask("GET", "/hello", &[]).expect(200);
    // A stream is no request any more once it has begun.
    let mut stream = serving.connect();
    stream.send(request("GET", "/stream", &[], None));
    assert!(stream.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(stream.chunk().expect("it goes on"), b"hello");
    second.ask("GET", "/hello", &[]).expect(200);
    assert_eq!(serving.refused("requests"), 1);
}

#[test]
fn what_was_begun_comes_to_its_end_although_its_client_hangs_up() {
    let serving = Serving::with(Limits { requests_max: 1, ..Limits::default() });
    drop(serving.waiting());
    eventually(PATIENCE, "it is noticed", || serving.figure("thence_http_connections") == 0);
    // It counts all the while: whoever hangs up again and again gets no more done than others.
    serving.ask("GET", "/hello").problem(503, "unavailable").comes_again();
    serving.go.send(true).expect("it waits");
    eventually(PATIENCE, "it is done", || serving.waited.load(Ordering::SeqCst) == 1);
    eventually(PATIENCE, "there is room again", || serving.ask("GET", "/hello").status == 200);
}

#[test]
fn each_token_has_its_rate() {
    let serving = Serving::with(Limits { requests_per_second_max: 1, ..Limits::default() });
    let of = |token: &str| request("GET", "/hello", &[("Authorization", token)], None);
    let mut http = serving.connect();
    http.send(of("Bearer a").repeat(50));
    let answers: Vec<_> = (0..50).map(|_| http.answer()).collect();
    let (let_in, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!let_in.is_empty() && !refused.is_empty());
    assert_eq!(serving.refused("rate"), refused.len() as u64);
    for answer in refused {
        answer.problem(429, "too-many-requests").comes_again();
    }
    http.send(of("Bearer b")).answer().expect(200);
    http.ask("GET", "/hello", &[]).expect(200);
}

#[test]
fn requests_may_come_before_the_answers_have_gone() {
    let serving = Serving::usual();
    let mut http = serving.connect();
    let post = request("POST", "/echo", &[("Content-Type", "application/json")], Some("[1]"));
    http.send([request("GET", "/hello", &[], None), post, "NONSENSE\r\n\r\n".to_owned()].concat());
    assert_eq!(http.answer().expect(200).json(), json!("hello"));
    assert_eq!(http.answer().expect(200).json(), json!([1]));
    http.answer().problem(400, "malformed");
    http.ends();
    // A body that nobody read is not taken for a request.
    let mut http = serving.connect();
    http.send(request("POST", "/deaf", &[], Some(&request("GET", "/hello", &[], None).repeat(10_000))));
    http.answer().expect(204);
    http.ends();
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    for limits in
        [Limits { answer_time_max: SOON, ..Limits::default() }, Limits { stall_time_max: SOON, ..Limits::default() }]
    {
        let serving = Serving::with(limits);
        let mut deaf = serving.connect();
        deaf.send(request("GET", "/large", &[], None));
        eventually(PATIENCE, "it is given up", || serving.refused("answer_time") == 1);
        eventually(PATIENCE, "nothing is held for it", || {
            serving.figure("thence_http_requests_under_way") == 0 && serving.figure("thence_http_connections") == 0
        });
        serving.ask("GET", "/hello").expect(200);
    }
    let serving = Serving::usual();
    assert_eq!(serving.ask("GET", "/large").expect(200).body.len(), LARGE_BYTES);
}

// --------------------------------------------------------------------------------------------------- what is answered

#[test]
fn whatever_goes_wrong_is_a_problem() {
    let serving = Serving::usual();
    let mut http = serving.connect();
    http.ask("GET", "/nowhere", &[]).problem(404, "not-found");
    let answer = http.ask("DELETE", "/hello", &[]).problem(405, "method");
    let allowed: Vec<_> = answer.header("allow").expect("what is allowed").split(',').map(str::trim).collect();
    assert_eq!(allowed, ["GET", "HEAD"]);
    http.ask("BREW", "/hello", &[]).problem(405, "method");
    http.ask("GET", "/number/seven", &[]).problem(400, "malformed");
    http.ask("GET", "/number/%ff", &[]).problem(400, "malformed");
    let answer = http.ask("GET", "/busy", &[]).problem(409, "conflict");
    assert_eq!(answer.json()["reason"], "taken");
    http.ask("GET", "/failure", &[]).problem(500, "internal");
    assert!(http.ask("HEAD", "/nowhere", &[]).expect(404).header("request-id").is_some());
}

#[test]
fn a_handler_that_panics_harms_nobody_else() {
    let serving = Serving::usual();
    let mut waiting = serving.waiting();
    let mut http = serving.connect();
    let answer = http.ask("GET", "/panic", &[]).problem(500, "internal");
    assert!(!String::from_utf8_lossy(&answer.body).contains("planted"), "it says nothing of the inside");
    http.ask("GET", "/hello", &[]).expect(200);
    serving.go.send(true).expect("it waits");
    waiting.answer().expect(200);
    assert_eq!(serving.figure("thence_http_panics_total"), 1);
}

#[test]
fn every_request_has_an_id() {
    let serving = Serving::usual();
    let mut http = serving.connect();
    let id = |answer: house::HttpAnswer| answer.header("request-id").expect("an id").to_owned();
    assert_eq!(id(http.ask("GET", "/hello", &[("Request-Id", "mine-7")])), "mine-7");
    assert_eq!(id(http.ask("GET", "/nowhere", &[("Request-Id", "mine-8")])), "mine-8");
    let drawn = [&[][..], &[("Request-Id", "two words")], &[("Request-Id", &"x".repeat(65))], &[("Request-Id", "")]];
    let mut drawn = drawn.map(|headers| id(http.ask("GET", "/hello", headers))).to_vec();
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 4, "{drawn:?}");
}

#[test]
fn browsers_hear_of_the_origins_that_were_given() {
    let cors = vec!["https://app.example".parse().expect("an origin"), "http://localhost:3000".parse().expect("one")];
    let limits = Limits { body_bytes_max: 10, ..Limits::default() };
    let address = "127.0.0.1:0".parse().expect("an address");
    let serving = Serving::serve(HttpConfig { cors, limits, ..HttpConfig::new(address) });
    let mut http = serving.connect();
    let preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "PUT")];
    let answer = http.ask("OPTIONS", "/hello", &preflight).expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let allowed = answer.header("access-control-allow-headers").expect("headers").to_lowercase();
    for name in
        ["authorization", "sync-token", "client-id", "if-match", "if-none-match", "content-type", "last-event-id"]
    {
        assert!(allowed.split(", ").any(|found| found == name), "{name} is not in {allowed}");
    }
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
        assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains(method)));
    }
    assert!(answer.header("access-control-max-age").is_some_and(|seconds| seconds != "0"));

    // Pages see what was answered, also when it was refused before any handler saw it.
    let refused = ("Content-Length", "99");
    for (path, headers, status) in [("/hello", &preflight[..1], 200), ("/echo", &[preflight[0], refused], 413)] {
        let mut http = serving.connect();
        let method = if status == 200 { "GET" } else { "POST" };
        let answer = http.ask(method, path, headers).expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        let exposed = answer.header("access-control-expose-headers").expect("headers").to_lowercase();
        for name in ["sync-token", "etag", "retry-after", "request-id"] {
            assert!(exposed.split(", ").any(|found| found == name), "{name} is not in {exposed}");
        }
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    for origin in ["https://other.example", "https://app.example:8443", "http://app.example", "null"] {
        let answer = http.ask("OPTIONS", "/hello", &[("Origin", origin), preflight[1]]);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        let answer = http.ask("GET", "/hello", &[("Origin", origin)]).expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let without = Serving::usual();
    let answer = without.connect().ask("GET", "/hello", &[preflight[0]]).expect(200);
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (None, None));
}

#[test]
fn requests_are_counted_by_route_and_never_by_path() {
    let serving = Serving::usual();
    serving.go.send(true).expect("somebody waits for it");
    let mut http = serving.connect();
    for path in ["/wait/one", "/wait/two", "/sentinel/three"] {
        http.ask("GET", path, &[]);
    }
    http.ask("BREW", "/hello", &[]);
    http.ask_with("POST", "/echo", "[]");
    let figure = |route: &str, method: &str, status: u16| {
        let labels = format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
        serving.figure(&format!("thence_http_requests_total{labels}"))
    };
    assert_eq!(figure("/wait/{key}", "GET", 200), 2);
    assert_eq!(figure("none", "GET", 404), 1);
    assert_eq!(figure("/hello", "other", 405), 1);
    assert_eq!(figure("/echo", "POST", 200), 1);
    assert_eq!(serving.figure("thence_http_request_duration_seconds_count{route=\"/wait/{key}\"}"), 2);
    assert!(
        serving.figure("thence_http_received_bytes_total") > 0 && serving.figure("thence_http_sent_bytes_total") > 0
    );
    let text = serving.metrics.text();
    for forbidden in ["/one", "/two", "/three", "sentinel", "BREW"] {
        assert!(!text.contains(forbidden), "{forbidden} is in\n{text}");
    }
}

// --------------------------------------------------------------------------------------------------------- stopping

#[test]
fn what_is_under_way_is_finished_and_new_requests_are_told_to_come_again() {
    let mut serving = Serving::usual();
    let mut idle = serving.connect();
    idle.ask("GET", "/hello", &[]).expect(200);
    let mut stream = serving.connect();
    stream.send(request("GET", "/stream", &[], None));
    assert!(stream.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(stream.chunk().expect("it goes on"), b"hello");
    let mut waiting = serving.waiting();
    serving.begin_to_stop();

    idle.ends();
    assert_eq!(stream.chunk().expect("its last words"), b"goodbye");
    assert_eq!(stream.chunk(), None, "it ends as a stream should");
    stream.ends();
    let mut newcomer = serving.connect();
    newcomer.ask("GET", "/hello", &[]).problem(503, "unavailable").comes_again();
    newcomer.ends();
    serving.go.send(true).expect("it waits");
    let answer = waiting.answer().expect(200);
    assert_eq!((answer.json(), answer.header("connection")), (json!("waited"), Some("close")));
    waiting.ends();
    assert_eq!(serving.refused("stopping"), 1);
    let address = serving.address;
    serving.ended();
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody is there any more");
}

#[test]
fn what_takes_too_long_is_given_up_when_it_stops() {
    let mut serving = Serving::with(Limits { drain_time_max: SOON, ..Limits::default() });
    let mut waiting = serving.waiting();
    let mut half = serving.connect();
    half.send("GET /hello HT");
    eventually(PATIENCE, "its bytes have come", || serving.figure("thence_http_connections") == 2);
    serving.begin_to_stop();
    waiting.ends();
    serving.ended();
}

// -------------------------------------------------------------------------------------------------------------- TLS

/// A certificate for `localhost` and its key, as files.
struct Certificate {
    folder: tempfile::TempDir,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("a file");
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        Self { folder, der: made.cert.der().clone() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// What a client needs that trusts it and offers these protocols.
    fn client(&self, protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A connection of HTTP/1.1.
    #[track_caller]
    fn connect(&self, address: SocketAddr) -> Http<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>> {
        let client =
            rustls::ClientConnection::new(self.client(&[b"http/1.1"]), "localhost".try_into().expect("a name"));
        Http::over(rustls::StreamOwned::new(client.expect("a client"), Http::connect(address).stream()))
    }

    fn serving(&self, limits: Limits) -> Serving {
        let tls = Some((self.path("cert.pem"), self.path("key.pem")));
        Serving::serve(HttpConfig { tls, limits, ..HttpConfig::new("127.0.0.1:0".parse().expect("an address")) })
    }
}

#[test]
fn it_speaks_tls() {
    let certificate = Certificate::new();
    let serving = certificate.serving(Limits { header_time_max: SOON, ..Limits::default() });
    let mut http = certificate.connect(serving.address);
    assert_eq!(http.ask("GET", "/hello", &[]).expect(200).json(), json!("hello"));
    assert_eq!(http.ask_with("POST", "/echo", "[1]").expect(200).json(), json!([1]));
    http.ask("GET", "/nowhere", &[]).problem(404, "not-found");
    // In the clear, and without a word.
    let mut plain = serving.connect();
    plain.send(request("GET", "/hello", &[], None));
    let mut said = Vec::new();
    let _ = io::Read::read_to_end(&mut plain.stream(), &mut said);
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
    serving.connect().ends();
    eventually(PATIENCE, "it is counted, a moment after it was closed", || serving.refused("header_time") == 1);
    certificate.connect(serving.address).ask("GET", "/hello", &[]).expect(200);
}

#[test]
fn it_speaks_http2_to_those_who_offer_it() {
    let certificate = Certificate::new();
    let mut serving = certificate.serving(Limits { header_bytes_max: 4096, ..Limits::default() });
    let address = serving.address;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut sender = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let connector = tokio_rustls::TlsConnector::from(certificate.client(&[b"h2", b"http/1.1"]));
        let stream = connector.connect("localhost".try_into().expect("a name"), stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let stream = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        sender
    });
    let ask = |sender: &mut hyper::client::conn::http2::SendRequest<String>, path: &str, header: &str, body: &str| {
        let request = hyper::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/json")
            .header("x-header", header)
            .body(body.to_owned())
            .expect("a request");
        runtime.block_on(async {
            let response = sender.send_request(request).await.expect("an answer");
            let status = response.status().as_u16();
            let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
            (status, serde_json::from_slice::<Value>(&body).expect("JSON"))
        })
    };
    assert_eq!(ask(&mut sender, "/echo", "x", "[1]"), (200, json!([1])));
    assert_eq!(ask(&mut sender, "/nowhere", "x", "").1["code"], "not-found");
    assert_eq!(ask(&mut sender, "/echo", "x", "[1").1["code"], "malformed");
    let (status, problem) = ask(&mut sender, "/echo", &"x".repeat(5000), "[1]");
    assert_eq!((status, &problem["code"]), (431, &json!("headers-too-large")));
    assert_eq!(ask(&mut sender, "/echo", "x", "[2]"), (200, json!([2])));

    // What is under way is finished here, too.
    let waiting = runtime.spawn(
        sender.send_request(hyper::Request::get("https://localhost/wait/one").body(String::new()).expect("a request")),
    );
    serving.begun.recv_timeout(PATIENCE).expect("the handler begins");
    let streaming =
        sender.send_request(hyper::Request::get("https://localhost/stream").body(String::new()).expect("a request"));
    let streaming = runtime.block_on(streaming).expect("an answer");
    serving.begin_to_stop();
    let streamed = runtime.block_on(http_body_util::BodyExt::collect(streaming.into_body()));
    assert_eq!(streamed.expect("it ends as a stream should").to_bytes(), b"hellogoodbye"[..]);
    serving.go.send(true).expect("it waits");
    let response = runtime.block_on(waiting).expect("no panic").expect("an answer");
    assert_eq!(response.status().as_u16(), 200);
    serving.ended();
}

// ------------------------------------------------------------------------------------------------------- the command

#[test]
fn a_relay_is_a_node_with_a_url() {
    let device = Device::blank("A");
    let relay = device.start_relay(&[]);
    assert!(relay.url().starts_with("http://127.0.0.1:"), "{}", relay.url());
    let mut http = Http::connect(relay.http());
    assert_eq!(http.ask("GET", "/health/live", &[]).expect(200).json()["status"], "live");
    assert_eq!(http.ask("GET", "/health/ready", &[]).expect(200).json()["status"], "ready");
    let closed = http.ask("GET", "/metrics", &[]).problem(401, "unauthenticated");
    assert_eq!(closed.header("www-authenticate"), Some("Bearer"));
    http.ask("GET", "/nowhere", &[]).problem(404, "not-found");

    // And it is a node in every other way.
    device.ok(&["space", "create", "atlas"]);
    let guest = Device::new("B");
    device.share("atlas", "writer", &guest);
    device.ok(&["put", "atlas", "places", "fez", "{}"]);
    guest.ok(&["sync"]);
    assert!(guest.sees("atlas", "places", "fez"));
    assert_eq!(relay.terminate(), "", "it has nothing to say unless it is asked to");
    device.start_relay(&[]).stop_with("INT");
}

#[test]
fn a_relay_logs_requests_and_nothing_of_what_they_are_about() {
    let device = Device::new("A");
    let settings = device.beside("settings.toml");
    fs::write(&settings, "log = \"trace\"\n").expect("a file");
    let relay = device.start_relay(&["--config", settings.to_str().expect("temporary paths are UTF-8")]);
    let mut http = Http::connect(relay.http());
    let headers = [("Authorization", "Bearer sentinel7f3a"), ("Sync-Token", "sentinel7f3a"), ("Request-Id", "mine-7")];
    http.ask("GET", "/health/live?sentinel7f3a=sentinel7f3a", &headers).expect(200);
    http.ask("GET", "/sentinel7f3a", &headers).expect(404);
    http.send("sentinel7f3a\r\n\r\n").answer().expect(400);
    let log = relay.terminate();
    let told = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["answered", "mine-7", "GET", "/health/live", "200"]), "{log}");
    assert!(told(&["answered", "mine-7", "GET", "none", "404"]), "{log}");
    let found = log.lines().find(|line| line.contains("sentinel7f3a"));
    assert_eq!(found, None, "content was logged");
}

#[test]
fn a_relay_under_tls_says_so() {
    let certificate = Certificate::new();
    let device = Device::new("A");
    let (cert, key) = (certificate.text("cert.pem"), certificate.text("key.pem"));
    let relay = device.start_relay(&["--tls-cert", &cert, "--tls-key", &key]);
    assert!(relay.url().starts_with("https://127.0.0.1:"), "{}", relay.url());
    certificate.connect(relay.http()).ask("GET", "/health/ready", &[]).expect(200);
    relay.terminate();
}

#[test]
fn a_relay_that_cannot_serve_says_what_to_do_and_touches_nothing() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    fs::write(certificate.path("garbage.pem"), "-----BEGIN CERTIFICATE-----\n!\n").expect("a file");
    fs::write(certificate.path("empty.pem"), "").expect("a file");
    let (cert, key) = (certificate.text("cert.pem"), certificate.text("key.pem"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let device = Device::blank("A");
    let local = "127.0.0.1:0";
    for (http, extra, code, words) in [
        ("0.0.0.0:0", &[][..], USAGE, "--tls-cert"),
        ("0.0.0.0:0", &[], USAGE, "--http-insecure"),
        ("[::]:0", &[], USAGE, "--tls-cert"),
        (local, &["--tls-cert", &cert], USAGE, "--tls-key"),
        (local, &["--tls-key", &key], USAGE, "--tls-cert"),
        (local, &["--tls-cert", "/no/such/cert.pem", "--tls-key", &key], FAILED, "/no/such/cert.pem"),
        (local, &["--tls-cert", &cert, "--tls-key", "/no/such/key.pem"], FAILED, "/no/such/key.pem"),
        (local, &["--tls-cert", &key, "--tls-key", &key], FAILED, "no certificate in it"),
        (local, &["--tls-cert", &cert, "--tls-key", &cert], FAILED, "no private key in it"),
        (local, &["--tls-cert", &certificate.text("garbage.pem"), "--tls-key", &key], FAILED, "PEM"),
        (local, &["--tls-cert", &certificate.text("empty.pem"), "--tls-key", &key], FAILED, "empty.pem"),
        (local, &["--tls-cert", &cert, "--tls-key", &other.text("key.pem")], FAILED, "not the certificate's"),
        (local, &["--tls-cert", &cert, "--tls-key", &key, "--http-insecure"], USAGE, "--http-insecure"),
        (local, &["--cors", "*"], USAGE, "https://app.example.org"),
        (&taken, &[], FAILED, "--http"),
    ] {
        let mut arguments = vec!["relay", "--listen", local, "--http", http];
        arguments.extend(extra);
        device.run(&arguments).expect(code).says(words);
        device.run_json(&arguments).expect(code).error();
        assert!(!device.data().exists(), "{arguments:?} touched the folder");
    }
    // Said on purpose, it is done.
    let relay = device.start_relay_at("0.0.0.0:0", &["--http-insecure"]);
    Http::connect(SocketAddr::from(([127, 0, 0, 1], relay.http().port()))).ask("GET", "/health/live", &[]).expect(200);
    relay.terminate();
}

#[test]
fn metrics_are_for_the_administrator() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = DataFolder::new(folder.path().join("data"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        folder.init().expect("a new folder");
        let claim = folder.claim_for_node(PATIENCE).expect("nobody else");
        let node = Node::open(NodeConfig::new(claim)).await.expect("a node");
        let server = HttpServer::bind(HttpConfig::new("127.0.0.1:0".parse().expect("an address"))).await;
        let server = server.expect("a free port");
        let address = server.local_address();
        let relay = Arc::new(Relay::open(&node, Keys::in_memory()).await.expect("a relay"));
        let customer = "acme".parse().ok();
        let mut tokens = Vec::new();
        for customer in [None, customer] {
            let scope = Scope { customer, database: None, role: Role::Owner };
            let (token, _) = relay.tenants().create_token(scope, None).await.expect("a token");
            tokens.push(format!("Bearer {token}"));
        }
        let router = routes(&relay, &server.metrics());
        drop(relay);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(router, async { drop(stopped.await) }));
        let asking = tokio::task::spawn_blocking(move || {
            let mut http = Http::connect(address);
            http.ask("GET", "/metrics", &[]).problem(401, "unauthenticated");
            http.ask("GET", "/metrics", &[("Authorization", &tokens[1])]).problem(403, "forbidden");
            http.ask("GET", "/metrics", &[("Authorization", &tokens[0])]).expect(200)
        });
        let answer = asking.await.expect("no panic");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
        let text = String::from_utf8(answer.body).expect("text");
        let line = "thence_http_requests_total{route=\"/metrics\",method=\"GET\",status=\"401\"} 1";
        assert!(text.lines().any(|found| found == line), "{text}");
        stop.send(()).expect("it serves");
        serving.await.expect("no panic");
        node.close().await;
        folder.claim_for_command(Duration::ZERO).expect("nothing of the server holds the node");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_relay_is_not_ready_while_its_disk_is_full() {
    let device = Device::new("A");
    device.ok(&["space", "create", "atlas"]);
    device.ok(&["put", "atlas", "rows", "first", "{}"]);
    let room = house::bytes_of(&device.store()).len() as u64 + (256 << 10);
    let relay = device.start_cramped_relay(room);
    let mut http = Http::connect(relay.http());
    http.ask("GET", "/health/ready", &[]).expect(200);
    let fields = json!({"text": "x".repeat(20_000)}).to_string();
    for n in 0.. {
        let outcome = device.run(&["put", "atlas", "rows", &format!("row{n}"), &fields]);
        if outcome.code != Some(DONE) {
            break;
        }
        assert!(n < 10_000, "the limit is not one");
    }
    eventually(PATIENCE, "it says so", || http.ask("GET", "/health/ready", &[]).status == 503);
    http.ask("GET", "/health/ready", &[]).problem(503, "unavailable").comes_again();
    http.ask("GET", "/health/live", &[]).expect(200);
    relay.make_room();
    eventually(PATIENCE, "it is ready again", || http.ask("GET", "/health/ready", &[]).status == 200);
    relay.terminate();
}
