//! A world, written down: who there is, what is done, and what goes wrong when.
//!
//! The text form has one statement a line; `#` begins a comment. Statements that begin with a number happen at that
//! millisecond. Only the fate of single messages, reads and commits (within the weather that a scenario states) is
//! still drawn, by hash of the seed and of the message's own number.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use thence::model::{CollectionName, ObjectKey, Request, Role};
use thence::replica::Limits;

use super::{DiskFault, MediumFault, Millis};
use crate::level::Level;

/// What the network does to messages in one direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// From and to how many milliseconds a message takes.
    pub delay_ms: (Millis, Millis),
    /// Of a thousand messages on a space's channel, how many vanish inside a living session.
    pub loss: u64,
    /// Of a thousand, how many come twice.
    pub duplicate: u64,
    /// Of a thousand, how many do not wait for those before them.
    pub reorder: u64,
}

/// Something that is done, or that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A user writes a transaction.
    Write {
        /// Where.
        node: usize,
        /// Into which space.
        space: usize,
        /// What.
        requests: Vec<Request>,
    },
    /// A user opens an object and saves it whole, as an editor does: with another title, and everything else as shown.
    Resave {
        /// Where.
        node: usize,
        /// In which space.
        space: usize,
        /// The object's collection.
        collection: CollectionName,
        /// The object's key.
        key: ObjectKey,
    },
    /// A user looks at the first conflict that is listed, and decides it for the value that is shown.
    Decide {
        /// Where.
        node: usize,
        /// In which space.
        space: usize,
    },
    /// A thin client writes: each row under an id of its own, sent again until it is answered.
    Upload {
        /// Which client; each has a table of its own in each space.
        client: usize,
        /// The node that it speaks to from now on.
        node: usize,
        /// Of which space.
        space: usize,
        /// What, each by itself.
        requests: Vec<Request>,
    },
    /// A thin client asks for what it lacks, until there is no more.
    Fetch {
        /// Which client.
        client: usize,
        /// The node that it speaks to from now on.
        node: usize,
        /// Of which space.
        space: usize,
        /// So many rows at once.
        limit: usize,
    },
    /// A node forgets, as a relay does, old deletions and the old ids of clients' writes.
    Forget {
        /// Which.
        node: usize,
        /// Of which space.
        space: usize,
        /// Those that are older.
        older_ms: Millis,
    },
    /// A user begins a space anew: all that is in it is gone. Nothing happens unless the node owns it.
    Wipe {
        /// Where.
        node: usize,
        /// Which space.
        space: usize,
    },
    /// A user redeems a ticket, and tries again until it is answered.
    Redeem {
        /// Who.
        node: usize,
        /// For which space.
        space: usize,
        /// At whom, who is also the inviter.
        from: usize,
        /// To become what.
        role: Role,
    },
    /// A node's process ends at once.
    Crash {
        /// Which.
        node: usize,
    },
    /// It is started again.
    Restart {
        /// Which.
        node: usize,
    },
    /// Nothing gets through in one direction.
    Cut {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// What waited gets through.
    Heal {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// The weather changes in one direction.
    Weather {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
        /// What it is from now on.
        weather: Weather,
    },
    /// Of a thousand datagrams so many come with a flipped bit, in one direction.
    Damage {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
        /// How many.
        per_mille: u64,
    },
    /// Longer datagrams do not get through any more, in one direction.
    Narrow {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
        /// The longest that does.
        bytes: usize,
    },
    /// A node is seen at another address by those that it dials, and no more at the one before.
    Move {
        /// Which.
        node: usize,
    },
    /// Nothing of a node runs for a while.
    Pause {
        /// Which.
        node: usize,
        /// For how long.
        ms: Millis,
    },
    /// A node's clock is wrong by so much from now on.
    Clock {
        /// Whose.
        node: usize,
        /// By how much.
        ms: i64,
    },
    /// The connection between two nodes ends.
    Drop {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// A backup of a node's disk is made, whole: an image that nothing tells from the disk itself.
    Save {
        /// Whose.
        node: usize,
    },
    /// A node's process ends, and its disk is put back to the last image that was made of it, if there is one.
    PutBack {
        /// Whose.
        node: usize,
    },
    /// A node's disk and key are copied onto another node, which is that device too from then on.
    Copy {
        /// Whose.
        node: usize,
        /// Onto whom.
        onto: usize,
    },
    /// From now on a node's messages are not what its process says. It is cut off when the faults end.
    Hostile {
        /// Whose.
        node: usize,
    },
    /// The next commit fails.
    DiskFails {
        /// Whose.
        node: usize,
        /// How.
        fault: DiskFault,
    },
    /// Commits and reads take this long from now on.
    DiskSpeed {
        /// Whose.
        node: usize,
        /// From and to.
        ms: (Millis, Millis),
    },
    /// Something goes wrong with the medium under a real store: at the level `store`.
    Medium {
        /// Whose.
        node: usize,
        /// What.
        fault: MediumFault,
    },
}

/// Something at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// When.
    pub at: Millis,
    /// What.
    pub what: What,
}

/// A whole world.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How much of the nodes is real.
    pub level: Level,
    /// Decides what the scenario leaves open.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// What the nodes are configured with.
    pub limits: Limits,
    /// Whether all nodes that connect count each other as cluster peers.
    pub cluster: bool,
    /// Who connects to whom; the first of each pair dials.
    pub edges: Vec<(usize, usize)>,
    /// How many spaces there are; node 0 creates them.
    pub spaces: usize,
    /// The weather at the start, and again at the end.
    pub weather: Weather,
    /// How long commits and reads take at the start, and again at the end.
    pub disk_ms: (Millis, Millis),
    /// How long a connection lives without hearing from the other side.
    pub idle_ms: Millis,
    /// When all faults end.
    pub quiet_at: Millis,
    /// What happens until then, sorted by time.
    pub items: Vec<Item>,
}

/// A text that is no scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidScenario {
    line: usize,
    detail: String,
}

impl fmt::Display for InvalidScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.detail)
    }
}

impl std::error::Error for InvalidScenario {}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay_ms: (low, high), loss, duplicate, reorder } = self;
        write!(f, "delay {low} {high} loss {loss} duplicate {duplicate} reorder {reorder}")
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { node, space, requests } => {
                let requests = serde_json::to_string(requests).map_err(|_| fmt::Error)?;
                write!(f, "write {node} {space} {requests}")
            }
            Self::Upload { client, node, space, requests } => {
                let requests = serde_json::to_string(requests).map_err(|_| fmt::Error)?;
                write!(f, "upload {client} via {node} {space} {requests}")
            }
            Self::Fetch { client, node, space, limit } => write!(f, "fetch {client} via {node} {space} limit {limit}"),
            Self::Forget { node, space, older_ms } => write!(f, "forget {node} {space} older {older_ms}"),
            Self::Wipe { node, space } => write!(f, "wipe {node} {space}"),
            Self::Resave { node, space, collection, key } => write!(f, "resave {node} {space} {collection} {key}"),
            Self::Decide { node, space } => write!(f, "decide {node} {space}"),
            Self::Redeem { node, space, from, role } => write!(f, "redeem {node} {space} from {from} as {role}"),
            Self::Crash { node } => write!(f, "crash {node}"),
            Self::Restart { node } => write!(f, "restart {node}"),
            Self::Cut { from, to } => write!(f, "cut {from} {to}"),
            Self::Heal { from, to } => write!(f, "heal {from} {to}"),
            Self::Weather { from, to, weather } => write!(f, "weather {from} {to} {weather}"),
            Self::Damage { from, to, per_mille } => write!(f, "damage {from} {to} {per_mille}"),
            Self::Narrow { from, to, bytes } => write!(f, "narrow {from} {to} {bytes}"),
            Self::Move { node } => write!(f, "move {node}"),
            Self::Pause { node, ms } => write!(f, "pause {node} {ms}"),
            Self::Clock { node, ms } => write!(f, "clock {node} {ms}"),
            Self::Drop { a, b } => write!(f, "drop {a} {b}"),
            Self::Save { node } => write!(f, "save {node}"),
            Self::PutBack { node } => write!(f, "put-back {node}"),
            Self::Copy { node, onto } => write!(f, "copy {node} onto {onto}"),
            Self::Hostile { node } => write!(f, "hostile {node}"),
            Self::DiskFails { node, fault: DiskFault::Lost } => write!(f, "disk-fails {node} lost"),
            Self::DiskFails { node, fault: DiskFault::Landed } => write!(f, "disk-fails {node} landed"),
            Self::DiskSpeed { node, ms: (low, high) } => write!(f, "disk-speed {node} {low} {high}"),
            Self::Medium { node, fault } => write!(f, "medium {node} {fault}"),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let Limits { window_bytes_max, frame_bytes_max, eager_vector_len_max, .. } = self.limits;
        let Limits { ack_ms, forward_ms, stall_ms, stalls_max, .. } = self.limits;
        writeln!(text, "level {}\nseed {}\nnodes {}\nspaces {}", self.level, self.seed, self.nodes, self.spaces)?;
        writeln!(text, "bytes window {window_bytes_max} frame {frame_bytes_max} eager {eager_vector_len_max}")?;
        writeln!(text, "times ack {ack_ms} forward {forward_ms} stall {stall_ms} stalls {stalls_max}")?;
        if self.limits.session_window_bytes_max != Limits::default().session_window_bytes_max {
            writeln!(text, "session {}", self.limits.session_window_bytes_max)?;
        }
        writeln!(text, "calm {}", self.weather)?;
        writeln!(text, "disk {} {}\nidle {}", self.disk_ms.0, self.disk_ms.1, self.idle_ms)?;
        if self.cluster {
            writeln!(text, "cluster")?;
        }
        for (dialer, listener) in &self.edges {
            writeln!(text, "edge {dialer} {listener}")?;
        }
        for Item { at, what } in &self.items {
            writeln!(text, "{at} {what}")?;
        }
        writeln!(text, "quiet {}", self.quiet_at)?;
        f.write_str(&text)
    }
}

/// The words of a line, taken one by one.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, String> {
        let rest = self.rest.trim_start();
        let (word, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        self.rest = rest;
        if word.is_empty() { Err("something is missing at the end".to_owned()) } else { Ok(word) }
    }

    fn expect(&mut self, expected: &str) -> Result<(), String> {
        let word = self.word()?;
        if word == expected { Ok(()) } else { Err(format!("expected {expected:?}, found {word:?}")) }
    }

    fn value<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is not what belongs here"))
    }

    fn named<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        self.expect(name)?;
        self.value()
    }

    fn pair<T: FromStr>(&mut self) -> Result<(T, T), String> {
        Ok((self.value()?, self.value()?))
    }

    fn weather(&mut self) -> Result<Weather, String> {
        self.expect("delay")?;
        let delay_ms = self.pair()?;
        let (loss, duplicate, reorder) = (self.named("loss")?, self.named("duplicate")?, self.named("reorder")?);
        Ok(Weather { delay_ms, loss, duplicate, reorder })
    }

    fn what(&mut self) -> Result<What, String> {
        Ok(match self.word()? {
            "write" => {
                let (node, space) = self.pair()?;
                let rest = std::mem::take(&mut self.rest);
                What::Write { node, space, requests: serde_json::from_str(rest).map_err(|error| error.to_string())? }
            }
            "resave" => {
                let (node, space) = self.pair()?;
                let collection = CollectionName::user(self.word()?).map_err(|error| error.to_string())?;
                What::Resave { node, space, collection, key: self.value()? }
            }
            "decide" => {
                let (node, space) = self.pair()?;
                What::Decide { node, space }
            }
            "upload" => {
                let client = self.value()?;
                let (node, space) = (self.named("via")?, self.value()?);
                let rest = std::mem::take(&mut self.rest);
                let requests = serde_json::from_str(rest).map_err(|error| error.to_string())?;
                What::Upload { client, node, space, requests }
            }
            "fetch" => {
                let client = self.value()?;
                let (node, space) = (self.named("via")?, self.value()?);
                What::Fetch { client, node, space, limit: self.named("limit")? }
            }
            "forget" => {
                let (node, space) = self.pair()?;
                What::Forget { node, space, older_ms: self.named("older")? }
            }
            "wipe" => {
                let (node, space) = self.pair()?;
                What::Wipe { node, space }
            }
            "redeem" => {
                let (node, space) = self.pair()?;
                What::Redeem { node, space, from: self.named("from")?, role: self.named("as")? }
            }
            "crash" => What::Crash { node: self.value()? },
            "restart" => What::Restart { node: self.value()? },
            "cut" => What::Cut { from: self.value()?, to: self.value()? },
            "heal" => What::Heal { from: self.value()?, to: self.value()? },
            "weather" => What::Weather { from: self.value()?, to: self.value()?, weather: self.weather()? },
            "damage" => What::Damage { from: self.value()?, to: self.value()?, per_mille: self.value()? },
            "narrow" => What::Narrow { from: self.value()?, to: self.value()?, bytes: self.value()? },
            "move" => What::Move { node: self.value()? },
            "pause" => What::Pause { node: self.value()?, ms: self.value()? },
            "clock" => What::Clock { node: self.value()?, ms: self.value()? },
            "drop" => What::Drop { a: self.value()?, b: self.value()? },
            "save" => What::Save { node: self.value()? },
            "put-back" => What::PutBack { node: self.value()? },
            "copy" => What::Copy { node: self.value()?, onto: self.named("onto")? },
            "hostile" => What::Hostile { node: self.value()? },
            "disk-fails" => What::DiskFails {
                node: self.value()?,
                fault: match self.word()? {
                    "lost" => DiskFault::Lost,
                    "landed" => DiskFault::Landed,
                    other => return Err(format!("a commit is lost or landed, not {other:?}")),
                },
            },
            "disk-speed" => What::DiskSpeed { node: self.value()?, ms: self.pair()? },
            "medium" => What::Medium { node: self.value()?, fault: std::mem::take(&mut self.rest).parse()? },
            other => return Err(format!("{other:?} is nothing that can happen")),
        })
    }
}

impl FromStr for Scenario {
    type Err = InvalidScenario;

    fn from_str(text: &str) -> Result<Self, InvalidScenario> {
        let weather = Weather { delay_ms: (1, 5), loss: 0, duplicate: 0, reorder: 0 };
        let mut scenario = Self {
            level: Level::Core,
            seed: 0,
            nodes: 0,
            limits: Limits::default(),
            cluster: false,
            edges: Vec::new(),
            spaces: 1,
            weather,
            disk_ms: (1, 3),
            idle_ms: 1000,
            quiet_at: 0,
            items: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = Words { rest: line };
            let done = scenario.statement(&mut words).and_then(|()| match words.rest.trim() {
                "" => Ok(()),
                rest => Err(format!("{rest:?} is too much")),
            });
            done.map_err(|detail| InvalidScenario { line: number, detail })?;
        }
        scenario.check().map_err(|detail| InvalidScenario { line: 0, detail })?;
        scenario.items.sort_by_key(|item| item.at);
        Ok(scenario)
    }
}

impl What {
    fn nodes_mut(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Write { node, .. }
            | Self::Resave { node, .. }
            | Self::Decide { node, .. }
            | Self::Upload { node, .. }
            | Self::Fetch { node, .. }
            | Self::Forget { node, .. }
            | Self::Wipe { node, .. }
            | Self::Crash { node }
            | Self::Restart { node }
            | Self::Save { node }
            | Self::PutBack { node }
            | Self::Hostile { node }
            | Self::DiskFails { node, .. }
            | Self::DiskSpeed { node, .. }
            | Self::Move { node }
            | Self::Pause { node, .. }
            | Self::Clock { node, .. }
            | Self::Medium { node, .. } => vec![node],
            Self::Redeem { node, from, .. } => vec![node, from],
            Self::Copy { node, onto } => vec![node, onto],
            Self::Cut { from, to }
            | Self::Heal { from, to }
            | Self::Weather { from, to, .. }
            | Self::Damage { from, to, .. }
            | Self::Narrow { from, to, .. } => vec![from, to],
            Self::Drop { a, b } => vec![a, b],
        }
    }

    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<usize> {
        self.clone().nodes_mut().into_iter().map(|node| *node).collect()
    }

    /// The space that it names, if any.
    pub fn space_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Write { space, .. }
            | Self::Resave { space, .. }
            | Self::Decide { space, .. }
            | Self::Upload { space, .. }
            | Self::Fetch { space, .. }
            | Self::Forget { space, .. }
            | Self::Wipe { space, .. }
            | Self::Redeem { space, .. } => Some(space),
            _ => None,
        }
    }

    /// How many requests a user makes in it.
    pub fn requests(&self) -> usize {
        self.clone().requests_mut().map_or(0, |requests| requests.len())
    }

    /// The same, to be changed.
    pub fn requests_mut(&mut self) -> Option<&mut Vec<Request>> {
        match self {
            Self::Write { requests, .. } | Self::Upload { requests, .. } => Some(requests),
            _ => None,
        }
    }
}

impl Scenario {
    /// Gives nodes other numbers; as many are left as there are different ones.
    pub fn rename_nodes(&mut self, rename: impl Fn(usize) -> usize) {
        self.items.iter_mut().flat_map(|item| item.what.nodes_mut()).for_each(|node| *node = rename(*node));
        self.edges.iter_mut().for_each(|(a, b)| (*a, *b) = (rename(*a), rename(*b)));
        self.nodes = (0..self.nodes).map(rename).max().map_or(0, |last| last + 1);
    }

    /// Into how many parts the nodes fall that no edge joins.
    pub fn parts(&self) -> usize {
        let mut part: Vec<usize> = (0..self.nodes).collect();
        for (a, b) in &self.edges {
            let (from, to) = (part[*a], part[*b]);
            part.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
        }
        part.sort_unstable();
        part.dedup();
        part.len()
    }

    /// Drops what means nothing once two nodes, or two spaces, have become one.
    pub fn drop_nonsense(&mut self) {
        let mut edges: Vec<(usize, usize)> = Vec::new();
        for (a, b) in std::mem::take(&mut self.edges) {
            if a != b && !edges.contains(&(a, b)) && !edges.contains(&(b, a)) {
                edges.push((a, b));
            }
        }
        self.edges = edges;
        let mut items: Vec<Item> = Vec::new();
        for item in std::mem::take(&mut self.items) {
            let nodes = item.what.nodes();
            if !matches!(nodes[..], [a, b] if a == b) && !items.contains(&item) {
                items.push(item);
            }
        }
        self.items = items;
    }

    fn statement(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let word = words.word()?;
        if let Ok(at) = word.parse() {
            self.items.push(Item { at, what: words.what()? });
            return Ok(());
        }
        let limits = &mut self.limits;
        match word {
            "level" => self.level = words.word()?.parse()?,
            "seed" => self.seed = words.value()?,
            "cluster" => self.cluster = true,
            "nodes" => self.nodes = words.value()?,
            "spaces" => self.spaces = words.value()?,
            "bytes" => {
                limits.window_bytes_max = words.named("window")?;
                limits.frame_bytes_max = words.named("frame")?;
                limits.eager_vector_len_max = words.named("eager")?;
            }
            "times" => {
                limits.ack_ms = words.named("ack")?;
                limits.forward_ms = words.named("forward")?;
                limits.stall_ms = words.named("stall")?;
                limits.stalls_max = words.named("stalls")?;
            }
            "session" => limits.session_window_bytes_max = words.value()?,
            "calm" => self.weather = words.weather()?,
            "disk" => self.disk_ms = words.pair()?,
            "idle" => self.idle_ms = words.value()?,
            "edge" => self.edges.push(words.pair()?),
            "quiet" => self.quiet_at = words.value()?,
            other => return Err(format!("{other:?} is no statement")),
        }
        Ok(())
    }

    /// Whether nothing goes wrong in it.
    pub fn is_faultless(&self) -> bool {
        let faultless = |what: &What| {
            let of_clients = matches!(what, What::Upload { .. } | What::Fetch { .. } | What::Forget { .. });
            let of_writers = matches!(what, What::Write { .. } | What::Resave { .. } | What::Decide { .. });
            let of_users = of_writers || matches!(what, What::Wipe { .. });
            of_clients || of_users || matches!(what, What::Redeem { .. })
        };
        self.items.iter().all(|item| faultless(&item.what))
    }

    /// Whether a node is hostile at any time: of such a node nothing is expected.
    pub fn is_hostile(&self, node: usize) -> bool {
        self.items.iter().any(|item| item.what == What::Hostile { node })
    }

    /// Whether every node, space and medium that is named exists.
    fn check(&self) -> Result<(), String> {
        let named = self.items.iter().flat_map(|item| item.what.nodes());
        if let Some(node) = named.chain(self.edges.iter().flat_map(|(a, b)| [*a, *b])).find(|n| *n >= self.nodes) {
            return Err(format!("there is no node {node}"));
        }
        let of_a_medium = |item: &Item| matches!(item.what, What::Medium { .. });
        if !matches!(self.level, Level::Store | Level::Node) && self.items.iter().any(of_a_medium) {
            return Err(format!("nodes of the level {} have no medium: say `level store`", self.level));
        }
        match self
            .items
            .iter()
            .filter_map(|item| item.what.clone().space_mut().copied())
            .find(|space| *space >= self.spaces)
        {
            Some(space) => Err(format!("there is no space {space}")),
            None => Ok(()),
        }
    }
}
