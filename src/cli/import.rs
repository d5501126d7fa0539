//! `thence import`: a JSON lines file, written in batches.
//!
//! A thread reads and checks lines and gathers them into batches; several batches are being written at a time, by the
//! running node or, for a second at a time, by this process, which lets others at the store in between.
//!
//! **Invariant**: memory is bounded whatever the file. Rows with the same key are written in the order of the file:
//! no two batches under way touch the same object. Each row is an update, which writes only what differs, so a
//! repeated import costs no event, and one that was interrupted or killed is resumed by repeating it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answer::{Answer, WrittenRow};
use super::command::Command;
use super::execute::execute;
use super::failure::{Code, Failure};
use super::reach::{Connection, Host, PATIENCE, Reach};
use super::show::spinner;
use crate::model::{CollectionName, InvalidEdit, OBJECT_BYTES_MAX, ObjectKey, Operation, Request, parse_json};
use crate::node::{DataFolder, Node};

/// The most rows in a batch.
const ROWS_MAX: usize = 256;
/// The most text in a batch of several rows.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// The longest line: white space and escapes may make an object longer than it is.
const LINE_BYTES_MAX: usize = 8 << 20;
/// How many batches are being written at a time.
const UNDER_WAY_MAX: usize = 4;
/// How long this process holds the store before it lets others have it.
const TURN: Duration = Duration::from_secs(1);
/// For how long: long enough for whoever waits to see that it is free.
const BREATH: Duration = Duration::from_millis(30);

/// What is imported.
#[derive(Clone, Debug)]
pub struct Import {
    /// Into which space.
    pub space: String,
    /// Into which collection.
    pub collection: CollectionName,
    /// From where; `-` is stdin.
    pub file: PathBuf,
    /// The field that is the key.
    pub key: String,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Rows that were read and written.
    pub rows: u64,
    /// Rows whose object changed.
    pub changed: u64,
    /// Rows whose object was so already.
    pub unchanged: u64,
}

/// Rows that become one transaction.
#[derive(Debug, Default)]
struct Batch {
    /// The line of each row.
    lines: Vec<u64>,
    keys: BTreeSet<String>,
    requests: Vec<Request>,
    bytes: usize,
}

/// Imports, and says what was done even if it failed half-way.
pub async fn import(reach: &Reach, import: &Import, show_progress: bool) -> (Summary, Result<(), Failure>) {
    let read = Arc::new(AtomicU64::new(0));
    let bar = if show_progress { progress_bar(&import.file) } else { ProgressBar::hidden() };
    let (sender, batches) = mpsc::channel(2);
    let reader = {
        let (import, read) = (import.clone(), Arc::clone(&read));
        // Not one of the runtime's own threads: a read of stdin that never ends must not keep the process alive.
        std::thread::Builder::new().name("import".to_owned()).spawn(move || gather(&import, &read, &sender))
    };
    if let Err(error) = reader {
        return (Summary::default(), Err(Failure::bug(error)));
    }
    let (summary, under_way, keys) = (Summary::default(), JoinSet::new(), Vec::new());
    let mut writing = Writing { reach, import, read: &read, bar: &bar, batches, summary, under_way, keys };
    let outcome = writing.run().await;
    bar.finish_and_clear();
    (writing.summary, outcome)
}

fn progress_bar(file: &Path) -> ProgressBar {
    let bytes = std::fs::metadata(file).map_or(0, |file| if file.is_file() { file.len() } else { 0 });
    if bytes == 0 {
        return spinner("importing");
    }
    let template = "{bar:30} {percent}%  {bytes} of {total_bytes}  {msg}  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

/// A row that cannot be imported.
fn bad_row(line: u64, code: Code, what: impl std::fmt::Display) -> Failure {
    let help =
        "what was written before stays; correct the line and repeat the import: rows that are unchanged cost nothing";
    Failure::new(code, format!("line {line}: {what}"), help)
}

/// Reads the file and hands out batches, then what ended it if that was not the end of the file.
fn gather(import: &Import, read: &AtomicU64, batches: &mpsc::Sender<Result<Batch, Failure>>) {
    let source: io::Result<Box<dyn Read>> = if import.file == Path::new("-") {
        Ok(Box::new(io::stdin().lock()))
    } else {
        // A folder can be opened like a file, and only fails to be read.
        File::open(&import.file).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let ended = source.map_err(|error| unreadable(&import.file, &error)).and_then(|source| {
        let send = |batch| batches.blocking_send(Ok(batch)).map_err(|_| Failure::interrupted());
        gather_from(BufReader::with_capacity(256 << 10, source), import, read, send)
    });
    if let Err(failure) = ended {
        let _ = batches.blocking_send(Err(failure));
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let help = "name a readable file with one JSON object per line, or - for stdin";
    Failure::new(Code::File, format!("{}: {error}", file.display()), help)
}

fn gather_from(
    mut source: impl BufRead,
    import: &Import,
    read: &AtomicU64,
    mut send: impl FnMut(Batch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let count = source.by_ref().take(limit).read_until(b'\n', &mut text);
        let count = count.map_err(|error| unreadable(&import.file, &error))?;
        if count == 0 {
            break;
        }
        read.fetch_add(count as u64, Ordering::Relaxed);
        let row = if count > LINE_BYTES_MAX {
            let what = format!("longer than {LINE_BYTES_MAX} bytes; an object has at most {OBJECT_BYTES_MAX}");
            Err(bad_row(line, Code::Refused, what))
        } else {
            row(&text, line, import)
        };
        let request = match row {
            Ok(Some(request)) => request,
            Ok(None) => continue,
            Err(failure) => {
                // The rows before it are as good as they were.
                if !batch.lines.is_empty() {
                    send(batch)?;
                }
                return Err(failure);
            }
        };
        let full = batch.lines.len() == ROWS_MAX
            || batch.bytes + count > BATCH_BYTES_MAX
            || batch.keys.contains(request.key.as_str());
        if full && !batch.lines.is_empty() {
            send(std::mem::take(&mut batch))?;
        }
        batch.lines.push(line);
        batch.keys.insert(request.key.as_str().to_owned());
        batch.requests.push(request);
        batch.bytes += count;
    }
    if batch.lines.is_empty() { Ok(()) } else { send(batch) }
}

/// The request that a line is; none if it is empty.
fn row(text: &[u8], line: u64, import: &Import) -> Result<Option<Request>, Failure> {
    let bad = |what: String| bad_row(line, Code::Refused, what);
    let text = std::str::from_utf8(text).map_err(|_| bad("not text in UTF-8".to_owned()))?;
    let text = if line == 1 { text.trim_start_matches('\u{FEFF}') } else { text };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // Each line is a document to the parser, whose "line 1" would only confuse.
    let json = parse_json(text).map_err(|error| bad(error.to_string().replace(" at line 1 column ", " at column ")))?;
    let Json::Object(fields) = json else { return Err(bad("not a JSON object".to_owned())) };
    let name = &import.key;
    let key = match fields.get(name) {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Number(number)) if number.is_i64() => number.to_string(),
        Some(_) => {
            return Err(bad(format!("the field {name:?} is to be the key, but is neither a text nor a whole number")));
        }
        None => return Err(bad(format!("there is no field {name:?}, which is to be the key"))),
    };
    let key: ObjectKey = key.parse().map_err(|error: crate::model::InvalidName| bad(error.to_string()))?;
    // Measured here too, since more might not fit into a command; only what could be too long is worth measuring.
    if text.len() > OBJECT_BYTES_MAX {
        let bytes = serde_json::to_string(&fields).map_or(0, |text| text.len());
        if bytes > OBJECT_BYTES_MAX {
            return Err(bad(InvalidEdit::TooLarge(bytes).to_string()));
        }
    }
    Ok(Some(Request { collection: import.collection.clone(), key, operation: Operation::Update(fields) }))
}

/// Who writes.
#[derive(Clone)]
enum Writer {
    Running(DataFolder),
    Here(Node),
}

impl Writer {
    async fn write(self, command: Command) -> Result<WrittenRow, Failure> {
        let mut written = None;
        let mut each = |answer| {
            if let Answer::Written(row) = answer {
                written = Some(row);
            }
            Ok(())
        };
        match self {
            Self::Here(node) => {
                let (sender, mut answers) = mpsc::channel(1);
                execute(&node, command, &sender).await?;
                answers.try_recv().map_or(Ok(()), &mut each)?;
            }
            Self::Running(folder) => {
                let connection = Connection::open(&folder, Instant::now() + PATIENCE).await?;
                let asked = connection.ok_or_else(node_gone)?.ask(&command, &mut each).await;
                asked.map_err(|failure| match failure.code {
                    Code::Disconnected | Code::Stopping => node_gone(),
                    _ => failure,
                })?;
            }
        }
        written.ok_or_else(|| Failure::bug("a write without an answer"))
    }
}

fn node_gone() -> Failure {
    let help = "repeat the import: rows that are unchanged cost nothing";
    Failure::new(Code::Disconnected, "the node stopped during the import; what it had written stays", help)
}

/// The batches that are being written.
struct Writing<'a> {
    reach: &'a Reach,
    import: &'a Import,
    read: &'a AtomicU64,
    bar: &'a ProgressBar,
    batches: mpsc::Receiver<Result<Batch, Failure>>,
    summary: Summary,
    under_way: JoinSet<(Vec<u64>, Result<WrittenRow, Failure>)>,
    /// The keys of each batch under way, by the line of its first row.
    keys: Vec<(u64, BTreeSet<String>)>,
}

impl Writing<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        // Nothing is opened before there is something to write.
        let mut next = self.next().await?.unwrap_or_default();
        loop {
            let host = tokio::select! {
                host = self.reach.find(false, Instant::now() + PATIENCE) => host?,
                () = self.reach.interrupt.wanted() => return Err(Failure::interrupted()),
            };
            let (writer, until) = match host {
                // That it is there is all that was to be known: each batch has a connection of its own.
                Host::Running(_) => (Writer::Running(self.reach.folder.clone()), None),
                Host::Here(node) => (Writer::Here(node), Some(Instant::now() + TURN)),
            };
            let turn = self.turn(next, &writer, until).await;
            // Whatever ended it, what is under way is finished: that is what draining means.
            let mut finished = Ok(());
            while !self.under_way.is_empty() {
                finished = finished.and(self.one_is_done().await);
            }
            if let Writer::Here(node) = writer {
                node.close().await;
            }
            finished?;
            match turn? {
                None => return Ok(()),
                Some(batch) => next = batch,
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The next batch, or what is wrong with the file.
    async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        tokio::select! {
            batch = self.batches.recv() => batch.transpose(),
            () = self.reach.interrupt.wanted() => Err(Failure::interrupted()),
        }
    }

    /// Writes batches, `batch` first, until the file ends or the turn is over; then the batch that is next.
    async fn turn(
        &mut self,
        mut batch: Batch,
        writer: &Writer,
        until: Option<Instant>,
    ) -> Result<Option<Batch>, Failure> {
        loop {
            while self.under_way.len() >= UNDER_WAY_MAX || self.is_in_the_way_of(&batch) {
                self.one_is_done().await?;
            }
            self.begin(batch, writer.clone());
            match self.next().await? {
                None => return Ok(None),
                Some(next) if until.is_some_and(|until| Instant::now() >= until) => return Ok(Some(next)),
                Some(next) => batch = next,
            }
        }
    }

    /// Whether a batch under way writes to an object that `batch` writes to.
    fn is_in_the_way_of(&self, batch: &Batch) -> bool {
        self.keys.iter().any(|(_, keys)| !keys.is_disjoint(&batch.keys))
    }

    fn begin(&mut self, batch: Batch, writer: Writer) {
        let Batch { lines, keys, requests, .. } = batch;
        self.keys.push((lines.first().copied().unwrap_or(0), keys));
        let command = Command::Write { space: self.import.space.clone(), requests };
        self.under_way.spawn(async move { (lines, writer.write(command).await) });
    }

    /// Waits until one batch is done, and counts it.
    async fn one_is_done(&mut self) -> Result<(), Failure> {
        let Some(done) = self.under_way.join_next().await else { return Ok(()) };
        let (lines, outcome) = done.map_err(Failure::bug)?;
        let first = lines.first().copied().unwrap_or(0);
        self.keys.retain(|(line, _)| *line != first);
        let written = outcome.map_err(|failure| match failure.request.and_then(|index| lines.get(index)) {
            Some(line) => bad_row(*line, failure.code, failure.message),
            None => failure,
        })?;
        let (rows, changed) = (lines.len() as u64, written.changed as u64);
        self.summary.rows += rows;
        self.summary.changed += changed;
        self.summary.unchanged += rows.saturating_sub(changed);
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        self.bar.set_message(format!("{} rows", self.summary.rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import_by(key: &str) -> Import {
        let collection = CollectionName::user("places").expect("a name");
        Import { space: "atlas".to_owned(), collection, file: PathBuf::from("-"), key: key.to_owned() }
    }

    /// The lines of each batch that a file becomes, and how it ended.
    fn batches(file: &str) -> (Vec<Vec<u64>>, Result<(), Failure>) {
        let mut batches = Vec::new();
        let ended = gather_from(file.as_bytes(), &import_by("code"), &AtomicU64::new(0), |batch| {
            batches.push(batch.lines);
            Ok(())
        });
        (batches, ended)
    }

    fn key_of(line: &str) -> Result<Option<String>, Failure> {
        row(line.as_bytes(), 3, &import_by("code")).map(|request| request.map(|request| request.key.to_string()))
    }

    #[test]
    fn the_key_is_a_text_or_a_whole_number_and_stays_a_field() {
        assert_eq!(key_of(r#"{"code":"fez"}"#), Ok(Some("fez".to_owned())));
        assert_eq!(key_of("{\"code\":-12}\r\n"), Ok(Some("-12".to_owned())));
        assert_eq!(key_of("  \r\n"), Ok(None));
        let request = row(br#"{"code":"fez","a":1}"#, 1, &import_by("code")).expect("a row").expect("not empty");
        assert!(matches!(request.operation, Operation::Update(fields) if fields.len() == 2));
        for line in [
            r#"{"code":"b""#,
            r#"{"name":"no key"}"#,
            r#"{"code":{}}"#,
            r#"{"code":1.5}"#,
            r#"{"code":9223372036854775808}"#,
            r#"{"code":""}"#,
            r#"{"code":"a","n":1e400}"#,
            "[1]",
        ] {
            let failure = key_of(line).expect_err(line);
            assert!(failure.message.starts_with("line 3: "), "{}", failure.message);
            assert!(!failure.message.contains("line 1"), "{}", failure.message);
        }
    }

    #[test]
    fn what_comes_before_a_bad_row_is_handed_over() {
        let (lines, ended) = batches("\u{FEFF}{\"code\":\"a\"}\n\n{\"code\":\"b\"}\n[1]\n{\"code\":\"c\"}\n");
        assert_eq!(lines, [[1, 3]]);
        assert!(ended.expect_err("a bad row").message.starts_with("line 4: "));
        let (lines, ended) = batches("{\"code\":\"a\"}\n{\"code\":\"b\"}");
        assert_eq!((lines, ended), (vec![vec![1, 2]], Ok(())));
    }

    #[test]
    fn batches_are_bounded_and_hold_each_key_once() {
        let rows = |count: u64| (0..count).map(|n| format!("{{\"code\":{n}}}\n")).collect::<String>();
        let (lines, _) = batches(&rows(600));
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
        let (lines, _) = batches(&(rows(3) + &rows(2)));
        assert_eq!(lines, [vec![1, 2, 3], vec![4, 5]], "the same keys again");
        let large = |n: u64| format!("{{\"code\":{n},\"text\":\"{}\"}}\n", "x".repeat(200_000));
        let (lines, _) = batches(&(large(1) + &large(2)));
        assert_eq!(lines, [[1], [2]]);
    }

    #[test]
    fn a_line_of_any_length_costs_bounded_memory() {
        let endless = io::repeat(b'x');
        let ended = gather_from(BufReader::new(endless), &import_by("code"), &AtomicU64::new(0), |_| Ok(()));
        assert!(ended.expect_err("too long").message.starts_with("line 1: longer than"));
    }
}
