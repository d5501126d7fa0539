//! What a scenario does, in words, the same at every level.

use super::story::{MarkKind, Place, SpanKind, Story};
use super::{DiskFault, Millis, Scenario, What};
use crate::draw::requests_in_words;

impl Story {
    /// Something of the scenario is done, or goes wrong.
    pub(crate) fn tell_item(&mut self, now: Millis, what: &What, scenario: &Scenario, is_down: &dyn Fn(usize) -> bool) {
        let (calm, usual) = (scenario.weather, scenario.disk_ms);
        match what {
            What::Write { node, requests, .. } => {
                let nobody = if is_down(*node) { " (the node is down: nobody hears it)" } else { "" };
                let label = format!("user: {}{nobody}", requests_in_words(requests));
                let full = serde_json::to_string_pretty(requests).unwrap_or_default();
                self.mark(now, *node, MarkKind::Write, label, full);
            }
            What::Resave { node, collection, key, .. } => {
                self.mark(
                    now,
                    *node,
                    MarkKind::Write,
                    format!("user: opens {collection}/{key} and saves it whole"),
                    "",
                );
            }
            What::Decide { node, .. } => {
                self.mark(now, *node, MarkKind::Write, "user: decides a conflict for what is shown".to_owned(), "");
            }
            What::Upload { client, node, requests, .. } => {
                let label = format!("client {client}: {}", requests_in_words(requests));
                let full = serde_json::to_string_pretty(requests).unwrap_or_default();
                self.mark(now, *node, MarkKind::Write, label, full);
            }
            What::Fetch { client, node, .. } => {
                self.mark(now, *node, MarkKind::Session, format!("client {client} asks for what is new"), "");
            }
            What::Forget { node, older_ms, .. } => {
                let label = format!("forgets deletions and ids that are older than {older_ms} ms");
                self.mark(now, *node, MarkKind::Disk, label, "Clients that were not told of them have to begin anew.");
            }
            What::Wipe { node, space } => {
                self.mark(now, *node, MarkKind::Write, format!("user: wipes space {space}"), "All of it begins anew.");
            }
            // Told where it is shown.
            What::Redeem { .. } => {}
            What::Crash { node } if is_down(*node) => {}
            What::Crash { node } => {
                self.mark(now, *node, MarkKind::Crash, "crash", "The process ends at once; only the disk remains.");
                self.begin(now, Place::Node(*node), SpanKind::Down, "down");
            }
            What::Restart { .. } => {}
            What::Cut { from, to } => {
                let label = format!("nothing gets from {from} to {to}");
                self.begin(now, Place::Between(*from, *to), SpanKind::Cut, label);
            }
            What::Heal { from, to } => self.end(now, Place::Between(*from, *to), SpanKind::Cut),
            What::Weather { from, to, weather } => {
                let place = Place::Between(*from, *to);
                if (weather.loss, weather.duplicate, weather.reorder) == (0, 0, 0)
                    && weather.delay_ms.1 <= calm.delay_ms.1.max(20)
                {
                    self.end(now, place, SpanKind::Weather);
                } else {
                    self.begin(now, place, SpanKind::Weather, format!("from {from} to {to}: {weather}"));
                }
            }
            What::Drop { a, b } => {
                for node in [*a, *b] {
                    self.mark(now, node, MarkKind::Session, format!("connection {a}–{b} breaks"), "");
                }
            }
            What::Save { node } => self.mark(now, *node, MarkKind::Disk, "a backup of the disk is made", ""),
            What::PutBack { node } => {
                self.mark(
                    now,
                    *node,
                    MarkKind::Disk,
                    "the backup is put back",
                    "What came after it is forgotten here.",
                );
                self.begin(now, Place::Node(*node), SpanKind::Down, "down");
            }
            What::Copy { node, onto } => {
                self.mark(now, *node, MarkKind::Disk, format!("disk and key are copied onto node {onto}"), "");
                self.mark(now, *onto, MarkKind::Disk, format!("becomes a copy of node {node}"), "");
                self.begin(now, Place::Node(*onto), SpanKind::Down, "down");
            }
            What::Hostile { node } => {
                self.mark(now, *node, MarkKind::Hostile, "turns hostile", "From now on it says what it likes.");
                self.begin(now, Place::Node(*node), SpanKind::Hostile, "hostile");
            }
            What::DiskFails { node, fault } => {
                let (label, detail) = match fault {
                    DiskFault::Lost => ("the next commit will fail", "Nothing of it will be on the disk."),
                    DiskFault::Landed => {
                        ("the next commit will be called failed", "All of it will be on the disk nevertheless.")
                    }
                };
                self.mark(now, *node, MarkKind::Disk, label, detail);
            }
            What::DiskSpeed { node, ms: (low, high) } => {
                let place = Place::Node(*node);
                if *high <= usual.1.max(10) {
                    self.end(now, place, SpanKind::Slow);
                } else {
                    self.begin(now, place, SpanKind::Slow, format!("the disk takes {low}–{high} ms"));
                }
            }
            What::Medium { node, fault } => self.mark(now, *node, MarkKind::Disk, fault.in_words(), ""),
            What::Damage { from, to, per_mille } => {
                let place = Place::Between(*from, *to);
                let label = format!("from {from} to {to}: {per_mille} of 1,000 datagrams come damaged");
                self.begin(now, place, SpanKind::Weather, label);
            }
            What::Narrow { from, to, bytes } => {
                let label = format!("from {from} to {to}: nothing longer than {bytes} bytes");
                self.begin(now, Place::Between(*from, *to), SpanKind::Weather, label);
            }
            What::Move { node } => self.mark(now, *node, MarkKind::Session, "is seen at another address", ""),
            What::Pause { node, ms } => {
                self.mark(now, *node, MarkKind::Session, format!("nothing of it runs for {ms} ms"), "");
            }
            What::Clock { node, ms } => {
                self.mark(now, *node, MarkKind::Session, format!("its clock is wrong by {ms} ms"), "");
            }
        }
    }

    /// All faults end.
    pub(crate) fn tell_quiet(&mut self, now: Millis) {
        self.end_all(now, &[SpanKind::Cut, SpanKind::Weather, SpanKind::Slow]);
        self.mark_all(now, "all faults end: now everything must come into step");
    }
}
