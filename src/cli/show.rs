//! How answers look: plain aligned text for people, one document for scripts.
//!
//! **Invariant**: stdout holds only what was asked for. Remarks go to stderr, and only where a person reads it.
//! A reader that has seen enough (`| head`) ends the command without a word.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value as Json;

use super::answer::{Answer, ConflictRow, JobRow, LostRow, Place, SyncRow, TokenRow};
use super::command::Command;
use super::failure::{Code, Failure};
use super::report::{ClusterReport, CopiedReport, PeerReport, RenewalReport, SpaceReport, StatusReport};
use crate::duration;

/// Prints answers.
pub struct Show<W> {
    to: W,
    json: bool,
    /// Whether a person reads stderr.
    remarks: bool,
    /// Whether answers are members of one array, and whether one was printed already.
    array: Option<bool>,
    /// What it is called when nothing is listed.
    nothing: &'static str,
    /// What takes its time.
    doing: &'static str,
    progress: Option<ProgressBar>,
}

/// What went wrong with the output.
pub fn output(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::nobody_listens(),
        _ => Failure::new(Code::File, format!("cannot write the answer: {error}"), "see where the output goes to"),
    }
}

impl<W: Write> Show<W> {
    /// Prints the answers of `command`.
    pub fn new(to: W, json: bool, command: &Command) -> Self {
        let array = match command {
            Command::ListSpaces
            | Command::ListPeers
            | Command::ListJobs
            | Command::ListTokens
            | Command::ShowPolicies { .. }
            | Command::ListCustomers
            | Command::ShowCustomer { .. }
            | Command::Audit { .. }
            | Command::List { .. }
            | Command::Conflicts { .. }
            | Command::Lost { .. } => json.then_some(false),
            _ => None,
        };
        let nothing = match command {
            Command::ListSpaces => "no spaces yet: `thence space create NAME` or `thence join TICKET`",
            Command::ListPeers => "no peers yet: `thence peer add DEVICE_ID@ADDR:PORT`",
            Command::ListJobs => "no jobs",
            Command::ListTokens => "no tokens yet: `thence token create --customer C`",
            Command::ListCustomers => "no customers yet: whoever has a token registers a database over HTTP",
            Command::ShowCustomer { .. } => "no databases",
            Command::Audit { .. } => "nothing was noted",
            Command::List { .. } => "no objects",
            Command::Conflicts { .. } => "no conflicts",
            Command::Lost { .. } => "no edits were lost",
            _ => "",
        };
        let doing = if matches!(command, Command::Join { .. }) { "joining" } else { "syncing" };
        let remarks = io::stderr().is_terminal() && !json;
        Self { to, json, remarks, array, nothing, doing, progress: None }
    }

    /// Prints an answer.
    pub fn answer(&mut self, answer: Answer) -> Result<(), Failure> {
        match self.print(answer) {
            Ok(()) => Ok(()),
            Err(error) => Err(output(error)),
        }
    }

    /// Ends the document. Call it when the command is done, or has failed after it had answered.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.end_progress();
        let end = match self.array {
            Some(true) => writeln!(self.to, "]"),
            Some(false) => writeln!(self.to, "[]"),
            None => Ok(()),
        };
        if !self.nothing.is_empty() {
            self.remark(self.nothing);
        }
        end.and_then(|()| self.to.flush()).map_err(output)
    }

    /// Ends the output of a command that failed: what was answered stays, nothing is added but the end of an array.
    pub fn abandon(&mut self) -> Result<(), Failure> {
        self.nothing = "";
        self.array = self.array.filter(|begun| *begun);
        self.finish()
    }

    fn remark(&self, text: &str) {
        if self.remarks {
            eprintln!("{}", plain(text));
        }
    }

    fn print(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Progress(progress) => {
                let doing = self.doing;
                let bar = self.progress.get_or_insert_with(|| spinner(doing));
                bar.set_message(match (progress.behind_events, progress.ahead_events) {
                    (0, 0) => doing.to_owned(),
                    (behind, ahead) => format!("{doing}; to receive: {behind} events, to send: {ahead}"),
                });
                bar.tick();
                Ok(())
            }
            Answer::Lines(lines) | Answer::Changes { lines, .. } => self.to.write_all(lines.as_bytes()),
            Answer::Watching { .. } | Answer::Bytes(_) => Ok(()),
            answer if self.json => self.print_json(answer),
            answer => self.print_text(answer),
        }
    }

    fn print_json(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Spaces(rows) => self.members(&rows),
            Answer::Peers(rows) => self.members(&rows),
            Answer::Jobs(rows) => self.members(&rows),
            Answer::Job(row) => self.document(&row),
            Answer::Wiped(row) => self.document(&row),
            Answer::Tokens(rows) => self.members(&rows),
            Answer::Policies(rows) => self.members(&rows),
            Answer::Customers(rows) => self.members(&rows),
            Answer::Audit(rows) => self.members(&rows),
            Answer::Databases(rows) => self.members(&rows),
            Answer::Token(row) => self.document(&row),
            Answer::Policy(row) => self.document(&row),
            Answer::Revoked(row) => self.document(&row),
            Answer::Places(rows) => self.members(&rows),
            Answer::Conflicts(rows) => self.members(&rows),
            Answer::Lost(rows) => self.members(&rows),
            Answer::Created(row) | Answer::Joined(row) => self.document(&row),
            Answer::Peer(row) => self.document(&row),
            Answer::Ticket(row) => self.document(&row),
            Answer::Written(row) => self.document(&row),
            Answer::Object(row) => self.document(&row),
            Answer::Status(report) => self.document(&report),
            Answer::Synced(row) => self.document(&row),
            // Printed, or taken, before it comes to this.
            Answer::Lines(_)
            | Answer::Bytes(_)
            | Answer::Changes { .. }
            | Answer::Watching { .. }
            | Answer::Progress(_) => Ok(()),
        }
    }

    fn document(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, document)?;
        writeln!(self.to)
    }

    /// Members of the one array that a listing is.
    fn members(&mut self, rows: &[impl Serialize]) -> io::Result<()> {
        for row in rows {
            let before = if self.array == Some(true) { ",\n" } else { "[" };
            self.to.write_all(before.as_bytes())?;
            self.array = Some(true);
            serde_json::to_writer(&mut self.to, row)?;
        }
        self.nothing = if rows.is_empty() { self.nothing } else { "" };
        Ok(())
    }

    fn print_text(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Created(space) => self.line(&space.id),
            Answer::Peer(_) => Ok(()),
            Answer::Joined(space) => {
                self.end_progress();
                self.line(&format!("joined {} {}", space.name, space.id))?;
                self.remark("`thence sync` fetches whatever is not here yet; a running node does so by itself");
                Ok(())
            }
            Answer::Ticket(ticket) => {
                self.line(&ticket.ticket)?;
                if ticket.addresses.is_empty() {
                    // Said to scripts too: the ticket looks good and leads nowhere.
                    eprintln!(
                        "nobody can redeem this: the device has no address yet; run `thence node`, then invite again"
                    );
                }
                Ok(())
            }
            Answer::Written(written) => {
                if written.changed == 0 {
                    self.remark("no change");
                }
                Ok(())
            }
            Answer::Spaces(rows) => self.table(rows.iter().map(|row| {
                [
                    called(&row.name, row.database.as_deref()),
                    row.id.clone(),
                    role(row.role.as_deref()),
                    count(row.objects, "object"),
                ]
            })),
            Answer::Wiped(row) => writeln!(self.to, "{}", row.job),
            Answer::Jobs(rows) => self.table(rows.iter().map(job)),
            Answer::Job(row) => self.table([job(&row)].into_iter()),
            Answer::Peers(rows) => self.table(rows.iter().map(|row| {
                let address = row.address.clone().unwrap_or_else(|| "no address known".to_owned());
                [row.device.clone(), address, if row.connected { "connected" } else { "not connected" }.to_owned()]
            })),
            Answer::Token(row) => writeln!(self.to, "{}", row.token.unwrap_or(row.id)),
            Answer::Revoked(_) | Answer::Policy(_) => Ok(()),
            Answer::Tokens(rows) => self.table(rows.iter().map(|row| {
                let TokenRow { id, customer, database, role, expires, .. } = row;
                let of = match (customer, database) {
                    (None, _) => "administrator".to_owned(),
                    (Some(customer), None) => customer.clone(),
                    (Some(customer), Some(database)) => format!("{customer}/{database}"),
                };
                let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let ends = match expires {
                    None => "for ever".to_owned(),
                    Some(expires) if u128::from(*expires) <= now_ms => "over".to_owned(),
                    Some(expires) => format!("{} days left", (u128::from(*expires) - now_ms) / 86_400_000),
                };
                [id.clone(), of, role.clone(), ends]
            })),
            Answer::Policies(rows) => self.table(rows.iter().map(|row| {
                let figure = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
                let from = match &row.scope {
                    Some(scope) => format!("set for {scope}; else {}", figure(row.default)),
                    None => "default".to_owned(),
                };
                [row.name.clone(), figure(row.value), from, row.about.clone()]
            })),
            Answer::Audit(rows) => self.table(rows.iter().map(audited)),
            Answer::Customers(rows) => {
                self.table(rows.iter().map(|row| [row.customer.clone(), count(row.databases, "database")]))
            }
            Answer::Databases(rows) => self.table(
                rows.iter()
                    .map(|row| [row.database.clone(), row.space.clone(), count(row.rows, "row"), size(row.bytes)]),
            ),
            Answer::Places(rows) => {
                self.table(rows.iter().map(|Place { collection, key }| [collection.clone(), key.clone()]))
            }
            Answer::Lost(rows) => {
                let fields = |row: &LostRow| Json::Object(row.fields.clone()).to_string();
                self.table(rows.iter().map(|row| [row.collection.clone(), row.key.clone(), fields(row)]))
            }
            Answer::Conflicts(rows) => self.table(rows.iter().map(|row| {
                let ConflictRow { collection, key, field, values, winner } = row;
                let others: Vec<String> = values.iter().skip(1).map(ToString::to_string).collect();
                let shown = format!("{winner}  (shown; also: {})", others.join(", "));
                [collection.clone(), key.clone(), field.clone(), shown]
            })),
            Answer::Object(object) => {
                let pretty = serde_json::to_string_pretty(&object.fields)?;
                pretty.lines().try_for_each(|line| self.line(line))?;
                for conflict in &object.conflicts {
                    let values: Vec<String> = conflict.values.iter().map(ToString::to_string).collect();
                    self.remark(&format!("conflict in {}: {}", conflict.field, values.join(" or ")));
                }
                Ok(())
            }
            Answer::Status(report) => self.status(&report),
            Answer::Synced(row) => self.synced(&row),
            // Printed, or taken, before it comes to this.
            Answer::Lines(_)
            | Answer::Bytes(_)
            | Answer::Changes { .. }
            | Answer::Watching { .. }
            | Answer::Progress(_) => Ok(()),
        }
    }

    /// A line for people.
    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.to, "{}", plain(text))
    }

    /// Columns as wide as what stands in them.
    fn table<const N: usize>(&mut self, rows: impl Iterator<Item = [String; N]> + Clone) -> io::Result<()> {
        let rows = rows.map(|row| row.map(|cell| plain(&cell)));
        let mut widths = [0; N];
        for row in rows.clone() {
            for (width, cell) in widths.iter_mut().zip(&row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(&row) {
                line.push_str(&format!("{cell:width$}  "));
            }
            self.line(line.trim_end())?;
            self.nothing = "";
        }
        Ok(())
    }

    fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish_and_clear();
        }
    }

    fn synced(&mut self, row: &SyncRow) -> io::Result<()> {
        self.end_progress();
        if row.synced.is_empty() && row.unfinished.is_empty() && row.unreached.is_empty() {
            return self.line("no peers are known: `thence peer add DEVICE_ID@ADDR:PORT`, or `thence join TICKET`");
        }
        for device in &row.synced {
            self.line(&format!("synced with {device}"))?;
        }
        for device in &row.unfinished {
            eprintln!("not finished with {device}");
        }
        for peer in &row.unreached {
            eprintln!("{}", plain(&format!("not reached: {}: {}", peer.device, peer.reason)));
        }
        Ok(())
    }

    fn status(&mut self, report: &StatusReport) -> io::Result<()> {
        self.line(&headline(report))?;
        if let Some(failure) = &report.storage_failure {
            self.line(&format!("storage: {failure}"))?;
        }
        for damage in &report.damage {
            self.line(damage)?;
        }
        match &report.listening {
            Some(address) => self.line(&format!("device {}, listening on {address}", report.device))?,
            None => self.line(&format!("device {}, no node running", report.device))?,
        }
        for renewal in &report.renewals {
            let RenewalReport { before, now, reason, .. } = renewal;
            self.line(&format!("wrote as replica {before}, writes as {now}: {reason}"))?;
        }
        if !report.cluster.is_empty() {
            writeln!(self.to)?;
            self.line("cluster")?;
            let cells = |peer: &ClusterReport| {
                [format!("  {}", peer.device), peer.state.clone(), peer.reason.clone().unwrap_or_default()]
            };
            self.table(report.cluster.iter().map(cells))?;
        }
        #[expect(clippy::disallowed_methods, reason = "for people: how long ago something was")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for space in &report.spaces {
            writeln!(self.to)?;
            self.line(&space_line(space))?;
            for CopiedReport { device, replica, copies } in &space.copied {
                self.line(&format!(
                    "  {copies} copies of a store of {device} wrote as replica {replica}; what each wrote is here"
                ))?;
            }
            self.table(space.peers.iter().map(|peer| peer_cells(peer, now)))?;
        }
        Ok(())
    }
}

/// Text on one line, without control characters: names and keys come from peers, and a terminal obeys what it is shown.
/// They are written as JSON writes them.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { plain.push_str(&format!("\\u{:04x}", u32::from(c))) } else { plain.push(c) }
    }
    plain
}

/// What a person wants to know first.
fn headline(report: &StatusReport) -> String {
    let peers = || report.spaces.iter().flat_map(|space| &space.peers);
    let all: BTreeSet<&str> = peers().map(|peer| peer.device.as_str()).collect();
    let waiting: BTreeSet<&str> = peers().filter(|peer| !peer.is_well()).map(|peer| peer.device.as_str()).collect();
    if report.storage_failure.is_some() {
        "nothing can be written at the moment".to_owned()
    } else if !report.damage.is_empty() {
        "the store is damaged: stop the node, then `thence repair` saves what is whole".to_owned()
    } else if report.spaces.is_empty() {
        "no spaces yet: `thence space create NAME` or `thence join TICKET`".to_owned()
    } else if all.is_empty() {
        "all is kept here, and nowhere else yet: nobody else takes part".to_owned()
    } else if !waiting.is_empty() {
        format!("not synced with {} of {}", waiting.len(), count(all.len() as u64, "peer"))
    } else if report.complaints.is_empty() {
        "all is synced".to_owned()
    } else {
        report.complaints.join("; ")
    }
}

/// How a command names a space.
fn called(name: &str, database: Option<&str>) -> String {
    database.unwrap_or(name).to_owned()
}

fn space_line(space: &SpaceReport) -> String {
    let SpaceReport { id, role: of, objects, bytes, conflicts, lost, .. } = space;
    let name = called(&space.name, space.database.as_deref());
    let mut line = format!("{name}  {id}  {}  {}  {}", role(of.as_deref()), count(*objects, "object"), size(*bytes));
    if *conflicts > 0 {
        line.push_str(&format!("  {} (`thence conflicts {name}`)", count(*conflicts, "conflict")));
    }
    if *lost > 0 {
        line.push_str(&format!("  {} (`thence lost {name}`)", count(*lost, "lost edit")));
    }
    line
}

fn peer_cells(peer: &PeerReport, now: Duration) -> [String; 5] {
    let last = match peer.last_synced_ms {
        Some(ms) => format!("in step {}", duration::ago(now.saturating_sub(Duration::from_millis(ms)))),
        None => "never in step yet".to_owned(),
    };
    let distance = match (peer.behind_events, peer.ahead_events) {
        (0, 0) => String::new(),
        (behind, 0) => format!("{behind} to receive"),
        (0, ahead) => format!("{ahead} to send"),
        (behind, ahead) => format!("{behind} to receive, {ahead} to send"),
    };
    [format!("  {}", peer.device), peer.state.clone(), distance, last, peer.reason.clone().unwrap_or_default()]
}

/// When, what, by whom, and the rest as it is.
fn audited(entry: &Json) -> [String; 4] {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_millis(entry["at_ms"].as_u64().unwrap_or_default());
    let named = ["id", "at_ms", "action", "by"];
    let rest = entry.as_object().into_iter().flatten().filter(|(name, _)| !named.contains(&name.as_str()));
    let rest: Vec<String> = rest.map(|(name, value)| format!("{name} {value}")).collect();
    [duration::ago(now.saturating_sub(at)), text("action"), text("by"), rest.join(", ")]
}

fn role(role: Option<&str>) -> String {
    role.unwrap_or("role unknown yet").to_owned()
}

/// How far it is, and what went wrong on the way.
fn job(row: &JobRow) -> [String; 4] {
    let JobRow { job, state, rows_done, rows_total, retries, errors, .. } = row;
    let interrupted =
        if *retries == 1 { "interrupted once".to_owned() } else { format!("interrupted {retries} times") };
    let hindered = match (*errors, *retries) {
        (0, 0) => String::new(),
        (errors, 0) => count(errors, "failed step"),
        (0, _) => interrupted,
        (errors, _) => format!("{}, {interrupted}", count(errors, "failed step")),
    };
    [job.clone(), state.clone(), format!("{rows_done} of {}", count(*rows_total, "object")), hindered]
}

/// A number of things.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people, one digit after the point")]
    let scaled = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", scaled(1 << 10)),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", scaled(1 << 20)),
        _ => format!("{:.1} GiB", scaled(1 << 30)),
    }
}

/// Something that turns while nobody knows how long it takes. It shows on a terminal only.
pub fn spinner(message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style).with_message(message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::answer::{Created, FieldConflict, ObjectRow, SpaceRow, Unreached, WrittenRow};

    fn shown(json: bool, command: &Command, answers: Vec<Answer>) -> String {
        let mut text = Vec::new();
        let mut show = Show::new(&mut text, json, command);
        for answer in answers {
            show.answer(answer).expect("memory");
        }
        show.finish().expect("memory");
        String::from_utf8(text).expect("text")
    }

    fn place(key: &str) -> Place {
        Place { collection: "places".to_owned(), key: key.to_owned() }
    }

    fn list() -> Command {
        Command::List { space: "atlas".to_owned(), collection: None }
    }

    #[test]
    fn a_listing_is_one_array_however_many_pieces_it_comes_in() {
        assert_eq!(shown(true, &list(), vec![]), "[]\n");
        let pieces = vec![Answer::Places(vec![place("fez"), place("haifa")]), Answer::Places(vec![place("kyoto")])];
        let text = shown(true, &list(), pieces.clone());
        let document: Json = serde_json::from_str(&text).expect("one document");
        assert_eq!(document[2], json!({"collection": "places", "key": "kyoto"}));
        assert_eq!(shown(false, &list(), pieces), "places  fez\nplaces  haifa\nplaces  kyoto\n");
        assert_eq!(shown(false, &list(), vec![]), "");
    }

    #[test]
    fn spaces_look_as_promised() {
        let row = SpaceRow {
            id: "ab".repeat(16),
            name: "atlas".to_owned(),
            database: None,
            role: Some("owner".to_owned()),
            objects: 2,
        };
        let text = shown(true, &Command::ListSpaces, vec![Answer::Spaces(vec![row.clone()])]);
        let expected = json!([{"id": row.id, "name": "atlas", "role": "owner", "objects": 2}]);
        assert_eq!(serde_json::from_str::<Json>(&text).expect("one document"), expected);
        let text = shown(false, &Command::ListSpaces, vec![Answer::Spaces(vec![row.clone()])]);
        assert_eq!(text, format!("atlas  {}  owner  2 objects\n", row.id));
    }

    #[test]
    fn a_job_says_what_went_wrong_if_something_did() {
        let row = |errors, retries| JobRow {
            job: "wipe-ab-2".to_owned(),
            space: "ab".repeat(16),
            revision: 2,
            state: "running".to_owned(),
            rows_done: 1000,
            rows_total: 2706,
            retries,
            errors,
            begun_ms: 1,
            done_ms: None,
        };
        for (errors, retries, said) in [
            (0, 0, ""),
            (1, 0, "  1 failed step"),
            (0, 1, "  interrupted once"),
            (2, 3, "  2 failed steps, interrupted 3 times"),
        ] {
            let expected = format!("wipe-ab-2  running  1000 of 2706 objects{said}\n");
            assert_eq!(shown(false, &Command::ListJobs, vec![Answer::Jobs(vec![row(errors, retries)])]), expected);
            let one = Command::ShowJob { id: "wipe-ab-2".to_owned() };
            assert_eq!(shown(false, &one, vec![Answer::Job(row(errors, retries))]), expected);
        }
    }

    #[test]
    fn a_write_says_nothing_on_stdout() {
        let written = Answer::Written(WrittenRow { changed: 0, position: 7 });
        let command = Command::Write { space: "atlas".to_owned(), requests: vec![] };
        assert_eq!(shown(false, &command, vec![written.clone()]), "");
        assert_eq!(shown(true, &command, vec![written]), "{\"changed\":0,\"position\":7}\n");
        let created = Answer::Created(Created { id: "ab".repeat(16), name: "atlas".to_owned() });
        assert_eq!(shown(false, &list(), vec![created]), "ab".repeat(16) + "\n", "the id, alone");
    }

    #[test]
    fn nothing_that_a_peer_named_reaches_the_terminal_as_a_command() {
        let pieces = vec![Answer::Places(vec![place("a\u{1b}[2J\nb\u{9b}c")])];
        assert_eq!(shown(false, &list(), pieces), "places  a\\u001b[2J\\u000ab\\u009bc\n");
        let space =
            SpaceRow { id: "ab".repeat(16), name: "at\rlas".to_owned(), database: None, role: None, objects: 2 };
        assert!(!shown(false, &Command::ListSpaces, vec![Answer::Spaces(vec![space])]).contains('\r'));
    }

    #[test]
    fn an_object_names_its_conflicts_only_if_it_has_some() {
        let object = |conflicts| {
            let fields = serde_json::Map::from_iter([("a".to_owned(), json!(1))]);
            Answer::Object(ObjectRow { collection: "c".to_owned(), key: "k".to_owned(), fields, conflicts })
        };
        let text = shown(true, &list_get(), vec![object(vec![])]);
        assert_eq!(text, "{\"collection\":\"c\",\"key\":\"k\",\"fields\":{\"a\":1}}\n");
        let conflict = FieldConflict { field: "a".to_owned(), values: vec![json!(1), json!(2)], winner: json!(1) };
        let text = shown(true, &list_get(), vec![object(vec![conflict])]);
        assert!(text.ends_with("\"conflicts\":[{\"field\":\"a\",\"values\":[1,2],\"winner\":1}]}\n"), "{text}");
    }

    fn list_get() -> Command {
        let key = "k".parse().expect("a key");
        Command::Get {
            space: "s".to_owned(),
            collection: crate::model::CollectionName::user("c").expect("a name"),
            key,
        }
    }

    #[test]
    fn a_sync_without_peers_says_so() {
        let command = Command::Sync { timeout_ms: 1, progress: false };
        let text = shown(false, &command, vec![Answer::Synced(SyncRow::default())]);
        assert!(text.starts_with("no peers are known"), "{text}");
        let away = Unreached { device: "d".to_owned(), reason: "nobody answers".to_owned() };
        let row = SyncRow { unreached: vec![away], ..SyncRow::default() };
        let text = shown(true, &command, vec![Answer::Synced(row)]);
        let expected =
            json!({"synced": [], "unfinished": [], "unreached": [{"device": "d", "reason": "nobody answers"}]});
        assert_eq!(serde_json::from_str::<Json>(&text).expect("one document"), expected);
    }

    fn report(peers: Vec<PeerReport>, complaints: usize) -> StatusReport {
        let space = SpaceReport {
            copied: Vec::new(),
            id: "ab".repeat(16),
            name: "atlas".to_owned(),
            database: None,
            role: Some("owner".to_owned()),
            objects: 1,
            bytes: 2048,
            vector: [("cd".repeat(16), 3)].into(),
            conflicts: 0,
            lost: 1,
            peers,
        };
        StatusReport {
            renewals: Vec::new(),
            device: "ef".repeat(32),
            replica: "cd".repeat(16),
            listening: None,
            storage_failure: None,
            cluster: vec![],
            damage: Vec::new(),
            spaces: vec![space],
            complaints: vec!["something".to_owned(); complaints],
        }
    }

    #[test]
    fn a_status_says_first_whether_all_is_synced() {
        let peer = |state: &str, reason: Option<&str>| PeerReport {
            device: "12".repeat(32),
            state: state.to_owned(),
            behind_events: 0,
            ahead_events: 2,
            last_synced_ms: None,
            reason: reason.map(str::to_owned),
        };
        let command = Command::Status { check: false };
        let text = shown(false, &command, vec![Answer::Status(report(vec![], 0))]);
        assert!(text.starts_with("all is kept here, and nowhere else yet"), "{text}");
        assert!(text.contains("1 object  2.0 KiB  1 lost edit (`thence lost atlas`)"), "{text}");
        let text = shown(false, &command, vec![Answer::Status(report(vec![peer("synced", None)], 0))]);
        assert!(text.starts_with("all is synced\n"), "{text}");
        let offline = vec![peer("offline", Some("nobody answers"))];
        let text = shown(false, &command, vec![Answer::Status(report(offline, 1))]);
        assert!(text.starts_with("not synced with 1 of 1 peer\n"), "{text}");
        assert!(text.contains("offline  2 to send  never in step yet  nobody answers\n"), "{text}");
    }

    #[test]
    fn a_reader_who_leaves_ends_it_quietly() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut show = Show::new(Closed, true, &list());
        let failure = show.answer(Answer::Lines("line\n".to_owned())).expect_err("a broken pipe");
        assert_eq!((failure.code, failure.code.exit_code()), (Code::OutputClosed, 0));
    }
}
