//! `thence watch`: changes as they land, with a running node and without.
//!
//! With a node they stream. Without one, the folder is taken for a moment every now and then, so that other commands
//! come through; when a node starts, the watch moves over to it, and back when it stops.
//!
//! **Invariant**: no change is printed twice and none is left out, whoever is asked: the position of the last one that
//! was printed is all that is remembered, and positions belong to the store.

use std::io::Write;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::answer::Answer;
use super::command::Command;
use super::failure::{Code, Failure};
use super::reach::{Host, PATIENCE, Reach};

/// How long to wait between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often to look even though the store seems untouched: the times of files are coarse in places.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// Prints changes to `to` until the user or the reader has enough.
pub async fn watch(reach: &Reach, space: String, from: Option<u64>, mut to: impl Write + Send) -> Result<(), Failure> {
    let (mut space, mut after) = (space, from);
    let mut seen: Option<(SystemTime, Instant)> = None;
    loop {
        if let Some((time, at)) = seen
            && at.elapsed() < LOOK_ANYWAY
            && modified(reach) == Some(time)
            && !reach.folder.socket().exists()
        {
            if pause(reach).await { continue } else { return Ok(()) }
        }
        let host = tokio::select! {
            host = reach.find(false, Instant::now() + PATIENCE) => host,
            () = enough(reach) => return Ok(()),
        };
        let running = matches!(host, Ok(Host::Running(_)));
        let command = Command::Watch { space: space.clone(), after, follow: running };
        let mut each = |answer| match answer {
            Answer::Watching { space: id, position } => {
                (space, after) = (id.to_string(), Some(position));
                Ok(())
            }
            Answer::Changes { position, lines } => {
                let printed = to.write_all(lines.as_bytes()).and_then(|()| to.flush());
                printed.map_err(|_| Failure::nobody_listens())?;
                after = Some(position);
                Ok(())
            }
            _ => Ok(()),
        };
        let outcome = match host {
            Err(failure) => Err(failure),
            Ok(Host::Here(node)) => reach.ask_here(node, &command, &mut each).await,
            Ok(Host::Running(connection)) => tokio::select! {
                outcome = connection.ask(&command, &mut each) => outcome,
                () = enough(reach) => return Ok(()),
            },
        };
        seen = if running { None } else { modified(reach).map(|time| (time, Instant::now())) };
        match outcome {
            Err(failure) if failure.code == Code::Interrupted => return Ok(()),
            // Before anything was seen these are worth telling; later they pass.
            Err(failure) if after.is_none() || !passes(failure.code) => return Err(failure),
            _ => {}
        }
        if !pause(reach).await {
            return Ok(());
        }
    }
}

/// Whether a failure may be over the next time.
fn passes(code: Code) -> bool {
    matches!(code, Code::Stopping | Code::Disconnected | Code::Busy)
}

/// Waits a moment; whether to go on.
async fn pause(reach: &Reach) -> bool {
    tokio::select! {
        () = tokio::time::sleep(LOOK_AGAIN) => true,
        () = enough(reach) => false,
    }
}

/// Waits until the user or the reader has enough. Where changes are rare, a write would notice only much later that
/// nobody reads any more.
async fn enough(reach: &Reach) {
    tokio::select! {
        () = reach.interrupt.wanted() => {}
        () = reader_gone() => {}
    }
}

#[cfg(unix)]
async fn reader_gone() {
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    #[expect(deprecated, reason = "what replaces it is unsafe; stdout stays open and the same, which is all it needs")]
    let stdout = AsyncFd::with_interest(std::io::stdout(), Interest::ERROR);
    // Files cannot be waited for, and nobody reads them at the other end.
    match stdout {
        Ok(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn reader_gone() {
    std::future::pending().await
}

/// When the store was last written to.
fn modified(reach: &Reach) -> Option<SystemTime> {
    std::fs::metadata(reach.folder.path().join("thence.redb")).and_then(|store| store.modified()).ok()
}
