//! A client of HTTP/1.1 that says exactly what it is told to, whole or in pieces, sense or nonsense.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// A connection.
pub struct Http<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("nobody listens at {address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self::over(stream)
    }

    /// Says that nothing more will be said.
    pub fn finish_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    }

    /// The same connection, for another thread.
    pub fn stream(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }
}

impl<S: Read + Write> Http<S> {
    /// Speaks over a stream.
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("the other side takes it");
        self
    }

    /// A request without a body; its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
        self.send(request(method, path, headers, None)).answer_to(method)
    }

    /// A request with a body of JSON; its answer.
    #[track_caller]
    pub fn ask_with(&mut self, method: &str, path: &str, body: &str) -> HttpAnswer {
        self.send(request(method, path, &[("Content-Type", "application/json")], Some(body))).answer_to(method)
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> HttpAnswer {
        self.answer_to("GET")
    }

    #[track_caller]
    fn answer_to(&mut self, method: &str) -> HttpAnswer {
        let head = self.until(b"\r\n\r\n");
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("this is no answer: {head}"));
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let mut answer = HttpAnswer { status, headers, body: Vec::new() };
        if method == "HEAD" || matches!(status, 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(mut chunk) = self.chunk() {
                answer.body.append(&mut chunk);
            }
        } else {
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            answer.body = self.exactly(length.unwrap_or_else(|| panic!("an answer without a length: {head}")));
        }
        answer
    }

    /// The head of the next answer, whose body is a stream.
    #[track_caller]
    pub fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n")).expect("a head is text")
    }

    /// The next piece of a stream; none at its proper end.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.until(b"\r\n")).expect("a length");
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("no length: {line}"));
        let chunk = self.exactly(length);
        assert_eq!(self.exactly(2), b"\r\n");
        (length > 0).then_some(chunk)
    }

    /// Asserts that the other side has nothing more to say and hangs up.
    #[track_caller]
    pub fn ends(&mut self) {
        let mut rest = std::mem::take(&mut self.read);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // Hung up on while there was something that it had not read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        assert!(rest.is_empty(), "it says more: {}", String::from_utf8_lossy(&rest));
    }

    #[track_caller]
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            self.more();
        }
    }

    #[track_caller]
    fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            self.more();
        }
        self.read.drain(..bytes).collect()
    }

    #[track_caller]
    fn more(&mut self) {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => panic!("it ended in the middle of {:?}", String::from_utf8_lossy(&self.read)),
            Ok(count) => self.read.extend_from_slice(&piece[..count]),
            Err(error) => panic!("{error} in the middle of {:?}", String::from_utf8_lossy(&self.read)),
        }
    }
}

/// A request as text.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: relay.example\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body.unwrap_or_default()
}

impl HttpAnswer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All headers, with their names in small letters.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {self:?}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Asserts that it is a problem of this kind, with everything that a problem has to have.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert!(answer.header("request-id").is_some_and(|id| !id.is_empty()), "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["code"], &body["status"]), (&code.into(), &status.into()), "{body}");
        for member in ["type", "title", "detail", "help"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "no {member} in {body}");
        }
        answer
    }

    /// Asserts that it says when to come again.
    #[track_caller]
    pub fn comes_again(self) -> Self {
        let seconds = self.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0), "{self:?}");
        self
    }
}
