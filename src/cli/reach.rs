//! Who does a command: the node that runs on the data folder, or this process for a moment.
//!
//! A command speaks to the running node if there is one. Otherwise it claims the folder, opens the store, does what
//! is asked with the same function, and lets go. Where somebody else is in the way (another command; a node that
//! starts or stops) it waits, [`PATIENCE`] in total.
//!
//! **Invariant**: a command is done by one of the two, once. It is handed to another only if the first had not begun.

use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::Answer;
use super::command::Command;
use super::execute::execute;
use super::failure::{Code, Failure};
use super::interrupt::Interrupt;
use super::socket::{self, Socket};
use super::wire::{self, COMMAND_BYTES_MAX, REPLY_BYTES_MAX, Reply, WIRE_VERSION, WireError};
use crate::node::{DataFolder, FolderError, Node, NodeConfig};

/// How long a command waits for whoever is in its way.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait between two looks at a node that starts or stops.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many answers may wait to be printed.
const ANSWERS_WAITING_MAX: usize = 4;

/// The way to whoever does a command.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The data folder.
    pub folder: DataFolder,
    /// How much memory the store may use where this process opens it, in bytes.
    pub cache_bytes: usize,
    /// Whether the user wants an end.
    pub interrupt: Interrupt,
}

/// Whoever does a command.
pub enum Host {
    /// The running node.
    Running(Connection),
    /// A node in this process. Close it.
    Here(Node),
}

/// What is done with an answer, in order.
pub type Each<'a> = &'a mut (dyn FnMut(Answer) -> Result<(), Failure> + Send);

impl Reach {
    /// Has a command done.
    pub async fn ask(&self, command: &Command, each: Each<'_>) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let host = tokio::select! {
                host = self.find(command.needs_network(), until) => host?,
                () = self.interrupt.wanted() => return Err(Failure::interrupted()),
            };
            match host {
                Host::Here(node) => return self.ask_here(node, command, each).await,
                Host::Running(connection) => {
                    let mut answered = false;
                    let outcome = {
                        let mut each = |answer| {
                            answered = true;
                            each(answer)
                        };
                        tokio::select! {
                            outcome = connection.ask(command, &mut each) => outcome,
                            () = self.interrupt.wanted() => Err(Failure::interrupted()),
                        }
                    };
                    match outcome {
                        Err(failure) if failure.code == Code::Stopping && !answered && Instant::now() < until => {
                            tokio::time::sleep(LOOK_AGAIN).await;
                        }
                        outcome => return outcome,
                    }
                }
            }
        }
    }

    /// Finds who does commands now.
    pub async fn find(&self, network: bool, until: Instant) -> Result<Host, Failure> {
        loop {
            if let Some(connection) = Connection::open(&self.folder, until).await? {
                return Ok(Host::Running(connection));
            }
            match self.open_here(network, until).await {
                Ok(node) => return Ok(Host::Here(node)),
                Err(Unopened::NodeRunning) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(Unopened::NodeRunning) => return Err(does_not_answer(&self.folder)),
                Err(Unopened::Failed(failure)) => return Err(failure),
            }
        }
    }

    async fn open_here(&self, network: bool, until: Instant) -> Result<Node, Unopened> {
        let folder = self.folder.clone();
        let wait = until.saturating_duration_since(Instant::now());
        // It waits by sleeping, which must not hold up the rest.
        let claiming = tokio::task::spawn_blocking(move || folder.claim_for_command(wait));
        let claim = match claiming.await.map_err(|error| Unopened::Failed(Failure::bug(error)))? {
            Ok(claim) => claim,
            Err(FolderError::NodeRunning { .. }) => return Err(Unopened::NodeRunning),
            Err(error) => return Err(Unopened::Failed(error.into())),
        };
        let listen = network.then(|| std::net::SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut config = NodeConfig::new(claim);
        config.listen = listen;
        config.keep_connected = false;
        config.cache_bytes = self.cache_bytes;
        Node::open(config).await.map_err(|error| Unopened::Failed(error.into()))
    }

    /// Has a command done by a node in this process, and closes that.
    pub async fn ask_here(&self, node: Node, command: &Command, each: Each<'_>) -> Result<(), Failure> {
        let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let (worker, command) = (node.clone(), command.clone());
        let work = tokio::spawn(async move { execute(&worker, command, &sender).await });
        let told = loop {
            tokio::select! {
                answer = answers.recv() => match answer.map(&mut *each) {
                    None => break Ok(()),
                    Some(Ok(())) => {}
                    Some(Err(failure)) => break Err(failure),
                },
                () = self.interrupt.wanted() => break Err(Failure::interrupted()),
            }
        };
        drop(answers);
        if told.is_err() {
            work.abort();
        }
        let outcome = work.await;
        node.close().await;
        told?;
        outcome.unwrap_or_else(|error| Err(Failure::bug(error)))
    }
}

enum Unopened {
    NodeRunning,
    Failed(Failure),
}

fn does_not_answer(folder: &DataFolder) -> Failure {
    let message = format!("the node on {} does not answer", folder.path().display());
    Failure::new(
        Code::Busy,
        message,
        "it may be starting, stopping or overloaded: repeat the command, or look at its log",
    )
}

/// A connection to the running node, before it was asked anything.
pub struct Connection {
    socket: BufReader<Socket>,
}

impl Connection {
    /// Connects with the node on `folder`; none if none is there to answer.
    pub async fn open(folder: &DataFolder, until: Instant) -> Result<Option<Self>, Failure> {
        let path = folder.socket();
        let connected = socket::connect(&path).await.map_err(|error| {
            let help = "use the account that runs the node, or name another folder with --data DIR";
            Failure::new(Code::Folder, format!("{}: {error}", path.display()), help)
        })?;
        let Some(socket) = connected else { return Ok(None) };
        let mut socket = BufReader::new(socket);
        let greeting = tokio::time::timeout_at(until, wire::read(&mut socket, REPLY_BYTES_MAX)).await;
        match greeting.map_err(|_| does_not_answer(folder))? {
            Ok(Some(Reply::Greeting { wire: WIRE_VERSION, .. })) => Ok(Some(Self { socket })),
            Ok(Some(Reply::Greeting { release, .. })) => {
                let message = format!("the node that is running is thence {release}, this is {}", crate_version());
                Err(Failure::new(Code::Busy, message, "restart the node, so that both are of one release"))
            }
            Ok(Some(_)) | Err(WireError::Garbled(_) | WireError::TooLong(_)) => {
                let message = format!("what answers at {} is not a node", path.display());
                Err(Failure::new(Code::Folder, message, "stop it, or name another folder with --data DIR"))
            }
            // It went away before it said a word.
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// Has a command done.
    pub async fn ask(mut self, command: &Command, each: Each<'_>) -> Result<(), Failure> {
        let line = wire::line(command).map_err(Failure::bug)?;
        if line.len() > COMMAND_BYTES_MAX {
            let message = format!("a command has at most {COMMAND_BYTES_MAX} bytes, not {}", line.len());
            return Err(Failure::new(Code::Refused, message, "split it; nothing was written"));
        }
        // What a node says before it hangs up is read even if it did not want to hear all of this.
        let _ = self.socket.write_all(&line).await;
        loop {
            match wire::read(&mut self.socket, REPLY_BYTES_MAX).await {
                Ok(Some(Reply::Answer(answer))) => each(answer)?,
                Ok(Some(Reply::Done)) => return Ok(()),
                Ok(Some(Reply::Failed(failure))) => return Err(failure),
                Ok(Some(Reply::Greeting { .. }) | None) | Err(WireError::Io(_) | WireError::CutOff) => {
                    return Err(Failure::new(
                        Code::Disconnected,
                        "the node went away before it had answered; what was asked of it may have happened or not",
                        "look first (`thence get`, `thence status`), then repeat the command if need be",
                    ));
                }
                Err(error) => return Err(Failure::bug(format!("the node's answer is {error}"))),
            }
        }
    }
}

/// The release of this program.
pub fn crate_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
