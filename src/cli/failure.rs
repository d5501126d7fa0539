//! Why a command failed: what a script branches on, what happened, and what to do about it.
//!
//! **Invariant**: every failure has words that help, and they stay short whatever was given to the command.

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::model::{InvalidEdit, InvalidName, InvalidTicket, InvalidValue};
use crate::node::{FolderError, JoinError, NodeError, OpenError, RestoreError};
use crate::relay::http::HttpError;
use crate::relay::{Problem, ProblemCode};
use crate::replica::TicketRefusal;
use crate::store::{BackupError, LedgerError, StoreError, WriteError};
use crate::transport::TransportError;

/// The longest message, in characters. What was given to a command may be of any size, and errors repeat it.
const MESSAGE_CHARS_MAX: usize = 2000;

/// What kind of failure it is. The names are a contract with scripts: new ones may come, none changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The arguments or settings make no sense.
    Usage,
    /// There is no such space, object, field, lost edit or peer.
    NotFound,
    /// It was not done in time.
    TimedOut,
    /// The name means several spaces.
    AmbiguousSpace,
    /// This device may not do that in this space.
    NotPermitted,
    /// The write cannot be done.
    Refused,
    /// The ticket gives no access.
    Ticket,
    /// The data folder cannot be used.
    Folder,
    /// Another process holds the data folder.
    Busy,
    /// The store failed or is damaged.
    Storage,
    /// The network cannot be used.
    Network,
    /// A file cannot be read or written.
    File,
    /// Not everything is as it should be: `status --check`.
    NotSynced,
    /// The user ended it.
    Interrupted,
    /// The node stops and takes no more commands.
    Stopping,
    /// The connection to the running node broke.
    Disconnected,
    /// Nobody reads what is printed. Not an error of anyone: the command ends without a word.
    OutputClosed,
    /// A mistake in this program.
    Bug,
}

impl Code {
    /// The exit code of a command that failed so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage => 2,
            Self::TimedOut => 3,
            Self::NotFound => 4,
            _ => 1,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Which of the requests of a transaction was the wrong one, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<usize>,
}

/// The text, cut in the middle if it is too long to be read.
fn shortened(text: String) -> String {
    if text.chars().nth(MESSAGE_CHARS_MAX).is_none() {
        return text;
    }
    let half = MESSAGE_CHARS_MAX / 2;
    let head: String = text.chars().take(half).collect();
    let tail: Vec<char> = text.chars().rev().take(half).collect();
    head + " … " + &tail.into_iter().rev().collect::<String>()
}

impl Failure {
    /// A failure in these words.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: shortened(message.into()), help: help.into(), request: None }
    }

    /// The arguments make no sense.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::Usage, message, help)
    }

    /// The listener has gone: there is nobody to tell.
    pub fn nobody_listens() -> Self {
        Self::new(Code::OutputClosed, "nobody reads the output", "nothing is to be done")
    }

    /// The user ended it.
    pub fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted", "run the command again; what it had finished stays")
    }

    /// A mistake in this program.
    pub fn bug(what: impl std::fmt::Display) -> Self {
        Self::new(
            Code::Bug,
            format!("this should not have happened: {what}"),
            "please report it, with what you did; your data is as the last finished command left it",
        )
    }

    /// The object of JSON that stands for it.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Members<'a> {
            code: Code,
            message: &'a str,
            help: &'a str,
        }
        #[derive(Serialize)]
        struct Document<'a> {
            error: Members<'a>,
        }
        let error = Members { code: self.code, message: &self.message, help: &self.help };
        // Texts always have a form in JSON.
        serde_json::to_string(&Document { error }).unwrap_or_default()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let help = match &error {
            ConfigError::NoHome => "name a data folder with --data DIR or THENCE_DATA",
            ConfigError::File { .. } => {
                "a settings file may hold: data, json, log, log_format, listen, peers, cluster_peers, cache_mib, http, \
                 tls_cert, tls_key, http_insecure, cors"
            }
            ConfigError::HalfOfTls { .. } => "give both, --tls-cert FILE.pem --tls-key FILE.pem, or none",
            _ => "correct or unset it",
        };
        Self::usage(error.to_string(), help)
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self::usage(error.to_string(), "correct the argument; nothing was written")
    }
}

impl From<InvalidValue> for Failure {
    fn from(error: InvalidValue) -> Self {
        Self::usage(error.to_string(), "correct the JSON and repeat the command; nothing was written")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (code, help) = match &error {
            StoreError::InUse { .. } => {
                (Code::Busy, "end the other program that has the store open, and repeat the command")
            }
            StoreError::Unreadable { .. } => {
                (Code::Storage, "it was not touched; `thence restore` puts a backup in its place and keeps it aside")
            }
            StoreError::Damaged(_) => (
                Code::Storage,
                "the disk returned something else than was written: stop the node, then `thence repair` saves what is whole",
            ),
            _ => (Code::Storage, "look after the disk (space, health), then repeat the command"),
        };
        Self::new(code, error.to_string(), help)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let help = match error {
            LedgerError::Store(error) => return error.into(),
            LedgerError::OtherDevice { .. } => {
                "thence.redb and device.key do not belong together: put back the one that does; neither was touched"
            }
            LedgerError::UnknownFormat { .. } => "open it with the release of thence that wrote thence.redb",
            _ => "the thence.redb in the data folder is something else's file: move it away or name another --data DIR",
        };
        Self::new(Code::Storage, error.to_string(), help)
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let (code, help) = match &error {
            FolderError::Absent { path } if path.join("thence.redb").exists() => (
                Code::Folder,
                "there is a store, but the device.key that it belongs to is gone: put that back from a backup"
                    .to_owned(),
            ),
            FolderError::Absent { .. } => (
                Code::Folder,
                "`thence init` makes it one (with a new device.key), or name another with --data DIR".to_owned(),
            ),
            FolderError::Foreign { .. } => {
                (Code::Folder, "name an empty or new folder with --data DIR, or put its device.key back".to_owned())
            }
            FolderError::NodeRunning { .. } => {
                (Code::Busy, "use that one, stop it first, or name another folder with --data DIR".to_owned())
            }
            FolderError::Busy { .. } => (Code::Busy, "repeat the command when the other one has ended".to_owned()),
            FolderError::DamagedKey { .. } => {
                (Code::Folder, "put back the device.key that was there, from a backup; nothing was touched".to_owned())
            }
            FolderError::Ledger(_) => (Code::Storage, String::new()),
            _ => (
                Code::Folder,
                "see to it that this user may read and write there, or name another --data DIR".to_owned(),
            ),
        };
        match error {
            FolderError::Ledger(error) => error.into(),
            error => Self::new(code, error.to_string(), help),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Folder(error) => error.into(),
            RestoreError::Backup { error: BackupError::UnknownVersion { .. }, .. } => Self::new(
                Code::File,
                message,
                "restore it with the release of thence that made it; nothing was touched",
            ),
            RestoreError::Backup { error: BackupError::Io(_), .. } => {
                Self::new(Code::File, message, "name a file that this user can read; nothing was touched")
            }
            RestoreError::Backup { .. } => Self::new(Code::File, message, "name another backup; nothing was touched"),
        }
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        let help = match &error {
            TransportError::Socket { .. } => {
                "another program may use that port, or the address may not be this machine's: choose another with \
                 --listen ADDR:PORT (port 0 picks a free one)"
            }
            _ => "check the network and try again",
        };
        Self::new(Code::Network, error.to_string(), help)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let message = error.to_string();
        match error {
            HttpError::Insecure { .. } => Self::usage(
                message,
                "give it --tls-cert FILE.pem --tls-key FILE.pem; or serve 127.0.0.1 with a proxy on this machine that ends \
                 TLS; or say --http-insecure if such a proxy is elsewhere in a network of your own",
            ),
            HttpError::Pem { .. } => Self::new(
                Code::File,
                message,
                "name files in PEM that this user can read, as a certificate authority gives them",
            ),
            HttpError::Tls { .. } => Self::new(
                Code::File,
                message,
                "name the certificate, followed by those that lead to its root, and its own key",
            ),
            HttpError::Socket { .. } => Self::new(
                Code::Network,
                message,
                "another program may use that port, or the address may not be this machine's: choose another with \
                 --http ADDR:PORT (port 0 picks a free one)",
            ),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Folder(error) => error.into(),
            OpenError::Transport(error) => error.into(),
            error => Self::new(Code::Folder, error.to_string(), "see what the system says about it, and try again"),
        }
    }
}

impl From<InvalidEdit> for Failure {
    fn from(error: InvalidEdit) -> Self {
        let (code, help) = match &error {
            InvalidEdit::NotFound { .. } => (
                Code::NotFound,
                "`thence list SPACE COLLECTION` shows the keys that are there, `thence put` makes a new object",
            ),
            InvalidEdit::NotLost { .. } => (Code::NotFound, "`thence lost SPACE` shows what was; nothing was written"),
            InvalidEdit::NoSuchField { .. } => (
                Code::NotFound,
                "`thence conflicts SPACE` shows the fields that hold several values; nothing was written",
            ),
            InvalidEdit::WrongKind { .. } => {
                (Code::Refused, "`thence help COMMAND` explains that command; nothing was written")
            }
            InvalidEdit::MapInSet => (Code::Refused, "give a text, number, truth value or array; nothing was written"),
            InvalidEdit::TooLarge(_) | InvalidEdit::NamesTooLong(_) => {
                (Code::Refused, "spread it over several objects; nothing was written")
            }
            _ => (Code::Refused, "correct it and repeat the command; nothing was written"),
        };
        Self::new(code, error.to_string(), help)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = if problem.code == ProblemCode::NotFound { Code::NotFound } else { Code::Refused };
        Self::new(code, problem.detail, problem.help)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        match error {
            WriteError::Edit { index, error } => Self { request: Some(index), ..error.into() },
            WriteError::UnknownSpace(_) => unknown_space(message),
            WriteError::NotGranted { .. } => Self::new(
                Code::NotPermitted,
                message,
                "ask an owner for a ticket that lets this device write, or `thence sync` if it was let in just now; \
                 nothing was written",
            ),
            WriteError::RowTooLarge { .. } | WriteError::TooLarge { .. } => {
                Self::new(Code::Refused, message, "do it in several commands; nothing was written")
            }
            WriteError::Waiting | WriteError::Backlog | WriteError::Unvouched => {
                Self::new(Code::Refused, message, "nothing was changed")
            }
            WriteError::Changed { .. } | WriteError::Wiped { .. } => {
                Self::new(Code::Refused, message, "read it again, and repeat the command; nothing was written")
            }
        }
    }
}

fn unknown_space(message: String) -> Failure {
    Failure::new(
        Code::NotFound,
        message,
        "`thence space list` shows the spaces; `thence space create` makes one, `thence join` brings one here",
    )
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let message = error.to_string();
        match error {
            NodeError::Write(error) => error.into(),
            NodeError::Store(error) => error.into(),
            NodeError::UnknownSpace(_) => unknown_space(message),
            NodeError::AmbiguousSpace { spaces, .. } => {
                let spaces: Vec<String> = (spaces.iter())
                    .map(|space| {
                        let role = space.role.map_or("role unknown yet", |role| role.as_str());
                        format!("{} ({role}, objects: {})", space.id, space.objects)
                    })
                    .collect();
                let message = format!("{message}: {}", spaces.join(", "));
                Self::new(Code::AmbiguousSpace, message, "use the id of the one that you mean instead of the name")
            }
            NodeError::NotOwner { .. } => Self::new(
                Code::NotPermitted,
                message,
                "ask an owner of the space to invite, or to make this device one",
            ),
            NodeError::InvalidSpaceName(_) => Self::usage(message, "choose another name"),
            NodeError::OwnDevice => Self::new(Code::Usage, message, "give the id and address of another device"),
            NodeError::SystemSpace => {
                let help = "see `thence token`, `thence policy` and `thence customer`; databases are wiped one by one";
                Self::new(Code::Refused, message, help)
            }
            NodeError::Unwell(_) => Self::new(Code::Storage, message, "`thence status` says more"),
            NodeError::Stopping => Self::new(Code::Stopping, message, "repeat the command when it has stopped"),
        }
    }
}

const NEW_TICKET: &str = "ask an owner of the space for a new one: `thence invite SPACE`";

impl From<InvalidTicket> for Failure {
    fn from(error: InvalidTicket) -> Self {
        let help = match error {
            InvalidTicket::Syntax => "copy the whole line that `thence invite` printed; it begins with thence1",
            _ => NEW_TICKET,
        };
        Self::new(Code::Ticket, error.to_string(), help)
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let message = error.to_string();
        match error {
            JoinError::Invalid(error) => error.into(),
            JoinError::Node(error) => error.into(),
            JoinError::Unreachable { .. } => Self::new(
                Code::Network,
                message,
                "see to it that a node runs there (`thence node`) and that this machine can reach it over UDP, and join \
                 again; the ticket is as good as before",
            ),
            JoinError::Refused(TicketRefusal::Unavailable) => {
                Self::new(Code::Ticket, message, "try again later; the ticket is as good as before")
            }
            _ => Self::new(Code::Ticket, message, NEW_TICKET),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_contract() {
        let codes = [Code::Refused, Code::Usage, Code::TimedOut, Code::NotFound, Code::Ticket, Code::Busy];
        assert_eq!(codes.map(Code::exit_code), [1, 2, 3, 4, 1, 1]);
        let not_found = InvalidEdit::NotFound { collection: "c".to_owned(), key: "k".to_owned() };
        let failure = Failure::from(WriteError::Edit { index: 3, error: not_found });
        assert_eq!((failure.code.exit_code(), failure.request), (4, Some(3)));
        assert_eq!(Failure::from(NodeError::UnknownSpace("x".to_owned())).code.exit_code(), 4);
    }

    #[test]
    fn the_object_has_its_three_members() {
        let text = Failure::from(NodeError::UnknownSpace("x".to_owned())).to_json();
        let start = r#"{"error":{"code":"not_found","message":"there is no space x here","help":"`thence space list`"#;
        assert!(text.starts_with(start), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).expect("one document");
        assert_eq!(json["error"].as_object().map(serde_json::Map::len), Some(3));
    }

    #[test]
    fn what_was_given_is_not_repeated_at_length() {
        let failure = Failure::from(NodeError::UnknownSpace("é".repeat(100_000)));
        assert!(failure.message.chars().count() <= MESSAGE_CHARS_MAX + 3);
        assert!(failure.message.ends_with(" here"));
    }
}
