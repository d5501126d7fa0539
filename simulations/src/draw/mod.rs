//! A story as one page: lanes for nodes, time from top to bottom, arrows for messages, and what broke in red.
//!
//! The page is one file and asks no network for anything. What is in it is data; `page.js` lays it out, so that a
//! reader can hide what does not matter.
//!
//! What it does not do: explain. It shows what happened, in the order in which it did; which of it was wrong is for
//! the reader to see, and the oracle's words say where to look.

mod words;

use serde_json::{Value as Json, json};

pub(crate) use self::words::requests_in_words;
use crate::world::{Fate, Mark, MarkKind, MessageKind, Place, Scenario, Span, SpanKind, Story, Told};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of a story; `name` is what the world is called.
pub fn page(name: &str, scenario: &Scenario, story: &Story) -> String {
    let title = match &story.violation {
        Some(violation) => format!("{name}: {} is broken", violation.invariant),
        None => format!("{name}: everything holds"),
    };
    let data = data(name, scenario, story).to_string();
    // A text that ends a script would end it here too.
    let data = data.replace("</", "<\\/");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n<body>\n<noscript>This page draws itself with JavaScript, all of which is in it.</noscript>\n\
         <script type=\"application/json\" id=\"story\">{data}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escaped(&title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn data(name: &str, scenario: &Scenario, story: &Story) -> Json {
    let named = |text: &str| story.in_names(text);
    let message = |told: &Told| {
        let (fate, at, why) = match told.fate {
            Fate::Arrived(at) => ("arrived", Some(at), None),
            Fate::Lost(why) => ("lost", None, Some(why)),
            Fate::Forbidden => ("forbidden", None, None),
            Fate::UnderWay => ("under way", None, None),
        };
        json!({
            "sent": told.sent_at, "from": told.from, "to": told.to, "kind": message_kind(told.kind),
            "summary": named(&told.summary), "detail": named(&told.detail), "fate": fate, "at": at, "why": why,
        })
    };
    let mark = |mark: &Mark| {
        json!({
            "at": mark.at, "node": mark.node, "kind": mark_kind(mark.kind),
            "label": named(&mark.label), "detail": named(&mark.detail),
        })
    };
    let span = |span: &Span| {
        let (from, to) = match span.place {
            Place::Node(node) => (node, node),
            Place::Between(from, to) => (from, to),
        };
        json!({
            "begin": span.from_ms, "end": span.to_ms, "from": from, "to": to, "kind": span_kind(span.kind),
            "label": named(&span.label),
        })
    };
    let violation = story.violation.as_ref().map(|violation| {
        json!({
            "invariant": violation.invariant, "at": violation.at, "node": violation.node,
            "detail": named(&violation.detail), "meaning": words::meaning(violation.invariant),
        })
    });
    let did = scenario.items.iter().filter(|item| item.at <= story.ended_at);
    json!({
        "name": name,
        "level": scenario.level.name(),
        "nodes": if story.nodes.is_empty() { (0..scenario.nodes).map(|node| format!("node {node}")).collect() } else { story.nodes.clone() },
        "messages": story.messages.iter().map(message).collect::<Vec<_>>(),
        "marks": story.marks.iter().map(mark).collect::<Vec<_>>(),
        "spans": story.spans.iter().map(span).collect::<Vec<_>>(),
        "violation": violation,
        "ended": story.ended_at,
        "quiet": scenario.quiet_at,
        "beginning": words::beginning(scenario),
        "did": did.map(|item| json!({ "at": item.at, "words": words::in_words(item) })).collect::<Vec<_>>(),
        "scenario": scenario.to_string(),
    })
}

fn message_kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Content => "content",
        MessageKind::Knowledge => "knowledge",
        MessageKind::Acknowledgement => "acknowledgement",
        MessageKind::Access => "access",
        MessageKind::Refusal => "refusal",
        MessageKind::Courtesy => "courtesy",
    }
}

fn mark_kind(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Write => "write",
        MarkKind::Landed => "landed",
        MarkKind::Reported => "reported",
        MarkKind::Acknowledged => "acknowledged",
        MarkKind::Failed => "failed",
        MarkKind::Ticket => "ticket",
        MarkKind::Crash => "crash",
        MarkKind::Restart => "restart",
        MarkKind::Disk => "disk",
        MarkKind::Hostile => "hostile",
        MarkKind::Session => "session",
        MarkKind::World => "world",
    }
}

fn span_kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Cut => "cut",
        SpanKind::Down => "down",
        SpanKind::Weather => "weather",
        SpanKind::Slow => "slow",
        SpanKind::Hostile => "hostile",
    }
}
