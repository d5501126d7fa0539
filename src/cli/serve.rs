//! The running node's side of the local socket: lets commands in and does them, each on a connection of its own.
//!
//! **Invariant**: whatever is sent, memory and time per connection are bounded, and a sender that makes no sense is
//! told so. A command whose client has gone is given up, except that a write which had begun is finished.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, BufReader};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::command::Command;
use super::execute::execute;
use super::failure::{Code, Failure};
use super::reach::crate_version;
use super::socket::{Listener, Socket};
use super::wire::{self, COMMAND_BYTES_MAX, Reply, WIRE_VERSION, WireError};
use crate::node::Node;

/// How many commands are done at once. Others wait to be let in.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to say what it wants.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to read what it is told while the node stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How many answers may wait to be sent to one client.
const ANSWERS_WAITING_MAX: usize = 4;

/// Serves commands until `stop` is done, then finishes those that are under way.
pub async fn serve(node: &Node, listener: Listener, stop: impl Future<Output = ()>) {
    let (stopping, seen) = watch::channel(false);
    let (at_work, mut all_done) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let admitted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            (place, accepted) = admitted => match accepted {
                Ok(socket) => {
                    let (node, seen, at_work) = (node.clone(), seen.clone(), at_work.clone());
                    connections.spawn(async move {
                        let _place = place;
                        converse(&node, socket, seen, at_work).await;
                    });
                }
                Err(error) => {
                    // Out of file handles, most likely: those that are open are closed again in time.
                    tracing::warn!(%error, "a command could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // First the name goes, so that nobody knocks in vain; whoever waits at the door sees the connection end before
    // a greeting, and asks elsewhere.
    drop(listener);
    let _ = stopping.send(true);
    drop(at_work);
    let finish = async {
        while connections.join_next().await.is_some() {}
        // Also the work whose clients have gone: a node is only closed once nobody holds it any more.
        let _ = all_done.recv().await;
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, finish).await.is_err() {
        tracing::warn!("some commands were given up, nobody read their answers");
    }
    connections.shutdown().await;
}

fn stopping() -> Failure {
    Failure::new(Code::Stopping, "the node is stopping", "repeat the command when it has stopped")
}

/// Held by whoever works for a command; never used to say anything.
type AtWork = mpsc::Sender<()>;

/// One connection, from the greeting to the end. Errors of the connection itself concern nobody else.
async fn converse(node: &Node, socket: Socket, mut seen: watch::Receiver<bool>, at_work: AtWork) {
    let (from, mut to) = tokio::io::split(socket);
    let mut from = BufReader::new(from);
    let greeting = Reply::Greeting { wire: WIRE_VERSION, release: crate_version().to_owned() };
    if wire::write(&mut to, &greeting).await.is_err() {
        return;
    }
    let asked = tokio::select! {
        asked = tokio::time::timeout(ASK_TIME_MAX, wire::read::<Command>(&mut from, COMMAND_BYTES_MAX)) => asked,
        _ = seen.wait_for(|stopping| *stopping) => Ok(Err(WireError::CutOff)),
    };
    let help = "this socket is for the commands of thence of the same release";
    let refused = |what: String| Failure::new(Code::Usage, what, help);
    let outcome = match asked {
        _ if *seen.borrow() => Err(stopping()),
        Err(_) => Err(refused(format!("nothing was asked within {} s", ASK_TIME_MAX.as_secs()))),
        Ok(Err(WireError::Io(_)) | Ok(None)) => return,
        Ok(Err(error)) => Err(refused(error.to_string())),
        Ok(Ok(Some(command))) => {
            let waits = command.waits();
            tokio::select! {
                outcome = answer(node, command, &mut to, at_work) => outcome,
                // A client says nothing more: this ends when it hangs up, or sends what nobody asked for.
                more = from.read_u8() => match more {
                    Ok(_) => Err(refused("a connection carries one command; the first was begun".to_owned())),
                    Err(_) => return,
                },
                // Everything else is finished: said to be stopping, its client would ask somebody else to do it again.
                _ = seen.wait_for(|stopping| *stopping), if waits => Err(stopping()),
            }
        }
    };
    let last = outcome.map_or_else(Reply::Failed, |()| Reply::Done);
    let _ = wire::write(&mut to, &last).await;
}

/// Does a command and sends the answers.
async fn answer(
    node: &Node,
    command: Command,
    to: &mut (impl AsyncWrite + Unpin),
    at_work: AtWork,
) -> Result<(), Failure> {
    let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
    // A task of its own: a write that has begun is finished even if its client hangs up.
    let (worker, waits) = (node.clone(), command.waits());
    let work = tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = execute(&worker, command, &sender) => outcome,
            () = sender.closed(), if waits => Err(Failure::nobody_listens()),
        };
        drop(worker);
        drop(at_work);
        outcome
    });
    while let Some(answer) = answers.recv().await {
        if wire::write(to, &Reply::Answer(answer)).await.is_err() {
            return Err(Failure::nobody_listens());
        }
    }
    work.await.unwrap_or_else(|error| Err(Failure::bug(error)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::cli::answer::{Answer, Created};
    use crate::cli::socket;
    use crate::cli::wire::REPLY_BYTES_MAX;
    use crate::node::{DataFolder, NodeConfig};

    /// A node without a network that serves the socket of a folder, and how to stop it.
    struct Served {
        folder: DataFolder,
        stop: oneshot::Sender<()>,
        done: tokio::task::JoinHandle<()>,
        _place: tempfile::TempDir,
    }

    async fn served() -> Served {
        let place = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::new(place.path().join("data"));
        folder.init().expect("an empty folder");
        let claim = folder.claim_for_node(Duration::from_secs(5)).expect("nobody else");
        let node = Node::open(NodeConfig::new(claim)).await.expect("a node");
        let listener = Listener::bind(&folder.socket()).expect("a free place");
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(async move {
            serve(&node, listener, async { drop(stopped.await) }).await;
            node.close().await;
        });
        Served { folder, stop, done, _place: place }
    }

    impl Served {
        async fn connect(&self) -> BufReader<Socket> {
            let socket = socket::connect(&self.folder.socket()).await.expect("allowed").expect("somebody listens");
            let mut socket = BufReader::new(socket);
            assert!(matches!(next(&mut socket).await, Some(Reply::Greeting { wire: WIRE_VERSION, .. })));
            socket
        }

        /// What it says to these bytes, after the greeting.
        async fn says(&self, bytes: &[u8]) -> Vec<Reply> {
            let mut socket = self.connect().await;
            // It may hang up before it has read all of this.
            let _ = socket.write_all(bytes).await;
            let mut said = Vec::new();
            while let Some(reply) = next(&mut socket).await {
                said.push(reply);
            }
            said
        }
    }

    async fn next(socket: &mut BufReader<Socket>) -> Option<Reply> {
        wire::read(socket, REPLY_BYTES_MAX).await.ok().flatten()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_makes_no_sense_is_told_so_and_harms_nobody() {
        let served = served().await;
        let deep = [&b"[".repeat(100_000)[..], b"\n"].concat();
        let garbled: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\n",
            b"{\"erase_all\":{}}\n",
            b"{\"get\":{\"space\":\"s\",\"collection\":\"c\",\"key\":\"\"}}\n",
            &deep,
            b"\"list_spaces\"\nand more",
        ];
        for bytes in garbled {
            let said = served.says(bytes).await;
            assert!(matches!(said.last(), Some(Reply::Failed(failure)) if failure.code == Code::Usage), "{said:?}");
        }
        let said = served.says(&vec![b'x'; COMMAND_BYTES_MAX + 1]).await;
        assert!(matches!(said.as_slice(), [Reply::Failed(failure)] if failure.code == Code::Usage), "{said:?}");
        drop(served.connect().await);

        let said = served.says(b"{\"create_space\":{\"name\":\"atlas\"}}\n").await;
        let created =
            |reply: &Reply| matches!(reply, Reply::Answer(Answer::Created(Created { name, .. })) if name == "atlas");
        assert!(created(&said[0]) && said[1] == Reply::Done, "{said:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_waits_is_told_that_it_stops() {
        let served = served().await;
        served.says(b"{\"create_space\":{\"name\":\"atlas\"}}\n").await;
        let mut watching = served.connect().await;
        let watch = Command::Watch { space: "atlas".to_owned(), after: None, follow: true };
        wire::write(&mut watching, &watch).await.expect("connected");
        assert!(matches!(next(&mut watching).await, Some(Reply::Answer(Answer::Watching { .. }))));
        let mut undecided = served.connect().await;

        served.stop.send(()).expect("it runs");
        for socket in [&mut watching, &mut undecided] {
            assert!(matches!(next(socket).await, Some(Reply::Failed(failure)) if failure.code == Code::Stopping));
        }
        served.done.await.expect("it stops");
        assert!(!served.folder.socket().exists());
        served.folder.claim_for_command(Duration::ZERO).expect("the folder is free");
    }
}
