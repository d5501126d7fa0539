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
                    let (node, seen) = (node.clone(), seen.clone());
                    connections.spawn(async move {
                        let _place = place;
                        converse(&node, socket, seen).await;
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
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME_MAX, finish).await.is_err() {
        tracing::warn!("some commands were given up, nobody read their answers");
    }
    connections.shutdown().await;
}

fn stopping() -> Failure {
    Failure::new(Code::Stopping, "the node is stopping", "repeat the command when it has stopped")
}

/// One connection, from the greeting to the end. Errors of the connection itself concern nobody else.
async fn converse(node: &Node, socket: Socket, mut seen: watch::Receiver<bool>) {
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
                outcome = answer(node, command, &mut to) => outcome,
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
async fn answer(node: &Node, command: Command, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
    // A task of its own: a write that has begun is finished even if its client hangs up.
    let (worker, waits) = (node.clone(), command.waits());
    let work = tokio::spawn(async move {
        tokio::select! {
            outcome = execute(&worker, command, &sender) => outcome,
            () = sender.closed(), if waits => Err(Failure::nobody_listens()),
        }
    });
    while let Some(answer) = answers.recv().await {
        if wire::write(to, &Reply::Answer(answer)).await.is_err() {
            return Err(Failure::nobody_listens());
        }
    }
    work.await.unwrap_or_else(|error| Err(Failure::bug(error)))
}
