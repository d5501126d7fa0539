//! What the HTTP side counts, as text for Prometheus.
//!
//! **Invariant**: the number of lines is bounded by the code, never by what clients send: routes are templates, methods
//! those that HTTP has, and a path that leads nowhere is counted under no route.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;

use super::limits::Limit;

/// The route of what leads nowhere.
pub const NO_ROUTE: &str = "none";
/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Which requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    route: String,
    method: &'static str,
    status: u16,
}

/// How long the requests of a route took until their answers began.
#[derive(Clone, Copy, Debug, Default)]
struct Durations {
    /// How many were within each bucket and not within the one before.
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

/// The counts since the server started.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Kind, u64>>,
    durations: Mutex<BTreeMap<String, Durations>>,
    refused: [AtomicU64; Limit::ALL.len()],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    connections: AtomicU64,
    under_way: AtomicU64,
    panics: AtomicU64,
}

/// The name of a method; clients may make up others.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Holds a gauge one higher for as long as it lives.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(super) fn answered(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let kind = Kind { route: route.to_owned(), method, status };
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        let seconds = took.as_secs_f64();
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        if !durations.contains_key(route) {
            durations.insert(route.to_owned(), Durations::default());
        }
        if let Some(durations) = durations.get_mut(route) {
            durations.count += 1;
            durations.sum_s += seconds;
            let bucket = BUCKETS_S.iter().zip(&mut durations.buckets).find(|(end, _)| seconds <= **end);
            if let Some((_, bucket)) = bucket {
                *bucket += 1;
            }
        }
    }

    pub(super) fn refused(&self, limit: Limit) {
        self.refused[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection(&self) -> Held<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Held(&self.connections)
    }

    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// All of it, in the text format of Prometheus; whoever has more to say appends it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);

        family(&mut text, "thence_http_requests_total", "counter", "Requests by route, method and status.");
        for (Kind { route, method, status }, count) in
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let route = escaped(route);
            let _ = writeln!(
                text,
                "thence_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        let name = "thence_http_request_duration_seconds";
        family(&mut text, name, "histogram", "Time until the answer began, by route.");
        for (route, durations) in self.durations.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let route = escaped(route);
            let mut within = 0;
            for (end, count) in BUCKETS_S.iter().zip(durations.buckets) {
                within += count;
                let _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"{end}\"}} {within}");
            }
            let Durations { count, sum_s, .. } = durations;
            let _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{name}_sum{{route=\"{route}\"}} {sum_s}");
            let _ = writeln!(text, "{name}_count{{route=\"{route}\"}} {count}");
        }
        family(&mut text, "thence_http_refused_total", "counter", "Requests and connections refused, by limit.");
        for (limit, counter) in Limit::ALL.iter().zip(&self.refused) {
            let _ = writeln!(text, "thence_http_refused_total{{limit=\"{}\"}} {}", limit.as_str(), read(counter));
        }
        for (name, kind, help, value) in [
            ("thence_http_received_bytes_total", "counter", "Bytes received.", read(&self.received_bytes)),
            ("thence_http_sent_bytes_total", "counter", "Bytes sent.", read(&self.sent_bytes)),
            ("thence_http_panics_total", "counter", "Requests that met a mistake in the relay.", read(&self.panics)),
            ("thence_http_connections", "gauge", "Open connections.", read(&self.connections)),
            ("thence_http_requests_under_way", "gauge", "Requests not fully answered yet.", read(&self.under_way)),
        ] {
            family(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

/// The two lines before the figures of one name.
fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Appends a family of one figure.
pub fn figure(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    family(text, name, kind, help);
    let value = if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
    let _ = writeln!(text, "{name} {value}");
}

/// As it may stand between quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        for ms in [1, 2, 30, 99_000] {
            metrics.answered("/rows/{key}", "GET", 200, Duration::from_millis(ms));
        }
        metrics.refused(Limit::Rate);
        let text = metrics.text();
        for line in [
            "thence_http_requests_total{route=\"/rows/{key}\",method=\"GET\",status=\"200\"} 4",
            "thence_http_request_duration_seconds_bucket{route=\"/rows/{key}\",le=\"0.001\"} 1",
            "thence_http_request_duration_seconds_bucket{route=\"/rows/{key}\",le=\"0.025\"} 2",
            "thence_http_request_duration_seconds_bucket{route=\"/rows/{key}\",le=\"10\"} 3",
            "thence_http_request_duration_seconds_bucket{route=\"/rows/{key}\",le=\"+Inf\"} 4",
            "thence_http_request_duration_seconds_count{route=\"/rows/{key}\"} 4",
            "thence_http_refused_total{limit=\"rate\"} 1",
            "thence_http_refused_total{limit=\"requests\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
