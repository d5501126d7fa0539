//! The two threads that touch the disk: one commits, one reads the log for peers.
//!
//! **Group commit**: while one batch is being made durable, everything that arrives gathers and becomes the next one.
//! A lone write is committed at once; sixty-four concurrent ones share a commit. Nothing is answered before the commit
//! that holds it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Event;
use crate::causal::VersionVector;
use crate::model::SpaceId;
use crate::replica::{SessionId, TicketRefusal};
use crate::store::{Done, Ledger, Report, StoreError, Work};

/// The most that is put into one commit, so that the first to wait does not wait for long.
const GROUP_MAX: usize = 1024;
/// No more is gathered once a group holds so many bytes of segments: decoded and joined they take many times that.
const GROUP_BYTES: usize = 2 << 20;
/// How long to wait before a store that failed is opened anew.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Who waits for a commit.
pub(super) enum Waiter {
    /// Nobody.
    None,
    /// A caller of the node.
    Caller(oneshot::Sender<Result<Done, StoreError>>),
    /// A peer that showed a ticket.
    Admission(SessionId),
    /// A cluster peer that a space is shared with.
    Sharing(SessionId, SpaceId),
}

pub(super) enum DiskJob {
    Commit(Work, Waiter),
    Fetch { session: SessionId, space: SpaceId, after: VersionVector, bytes_max: usize },
}

/// The disk threads of one node.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    commits: Sender<(Work, Waiter)>,
    fetches: Sender<(SessionId, SpaceId, VersionVector, usize)>,
}

/// Milliseconds since 1970, for people.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Disk {
    /// Starts both threads. They end when the last handle is dropped and everything that was asked is done.
    pub(super) fn start(
        ledger: &Arc<Ledger>,
        events: &mpsc::UnboundedSender<Event>,
        landed: watch::Sender<u64>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (commits, jobs) = channel();
        let (fetches, reads) = channel();
        let committer = {
            let (ledger, events) = (Arc::clone(ledger), events.clone());
            std::thread::Builder::new()
                .name("thence-commit".to_owned())
                .spawn(move || Committer { ledger, events, landed, failed: false }.run(&jobs))?
        };
        let reader = {
            let (ledger, events) = (Arc::clone(ledger), events.clone());
            std::thread::Builder::new()
                .name("thence-read".to_owned())
                .spawn(move || read_for_peers(&ledger, &events, &reads))?
        };
        Ok((Self { commits, fetches }, vec![committer, reader]))
    }

    pub(super) fn send(&self, job: DiskJob) {
        // A thread that is gone has panicked; whoever waits sees its answer channel closed.
        let _ = match job {
            DiskJob::Commit(work, waiter) => self.commits.send((work, waiter)).map_err(drop),
            DiskJob::Fetch { session, space, after, bytes_max } => {
                self.fetches.send((session, space, after, bytes_max)).map_err(drop)
            }
        };
    }
}

fn read_for_peers(
    ledger: &Ledger,
    events: &mpsc::UnboundedSender<Event>,
    reads: &Receiver<(SessionId, SpaceId, VersionVector, usize)>,
) {
    while let Ok((session, space, after, bytes_max)) = reads.recv() {
        let read = ledger.view(space).and_then(|view| match view {
            Some(view) => view.log_after(&after, bytes_max).map(Some),
            None => Ok(None),
        });
        let stretches = read.unwrap_or_else(|error| {
            tracing::error!(%space, %error, "cannot read the log for a peer");
            None
        });
        if events.send(Event::Fetched { session, space, stretches }).is_err() {
            return;
        }
    }
}

fn weight(work: &Work) -> usize {
    match work {
        Work::Receive { segments, .. } => segments.iter().map(|segment| segment.bytes().len()).sum(),
        _ => 0,
    }
}

struct Committer {
    ledger: Arc<Ledger>,
    events: mpsc::UnboundedSender<Event>,
    landed: watch::Sender<u64>,
    failed: bool,
}

impl Committer {
    fn run(mut self, jobs: &Receiver<(Work, Waiter)>) {
        loop {
            let first = if self.failed {
                match jobs.recv_timeout(REOPEN_EVERY) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match jobs.recv() {
                    Ok(job) => Some(job),
                    Err(_) => return,
                }
            };
            if self.failed && self.ledger.reopen().is_ok() {
                self.failed = false;
                // The commit that failed may be there after all: the protocol hears what is held now.
                let _ = self.events.send(Event::StorageRecovered { held: self.ledger.held() });
            }
            let Some(first) = first else { continue };
            let mut bytes = weight(&first.0);
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && bytes < GROUP_BYTES
                && let Ok(job) = jobs.try_recv()
            {
                bytes += weight(&job.0);
                group.push(job);
            }
            let (works, waiters): (Vec<Work>, Vec<Waiter>) = group.into_iter().unzip();
            self.commit(&works, waiters);
        }
    }

    fn commit(&mut self, works: &[Work], waiters: Vec<Waiter>) {
        match self.ledger.commit(works, wall_ms()) {
            Ok(report) => self.answer(report, waiters),
            Err(StoreError::Damaged(_)) if works.len() > 1 => {
                // One damaged record must not stand in the way of everything that has nothing to do with it.
                for (work, waiter) in works.iter().zip(waiters) {
                    self.commit(std::slice::from_ref(work), vec![waiter]);
                }
            }
            Err(error) => {
                self.failed = matches!(error, StoreError::Io(_));
                let message = error.to_string();
                for waiter in waiters {
                    match waiter {
                        Waiter::Caller(caller) => drop(caller.send(Err(StoreError::Io(message.clone())))),
                        Waiter::Admission(session) => {
                            let admitted = vec![(session, Err(TicketRefusal::Unavailable))];
                            let (report, shared) = (Report::default(), Vec::new());
                            let _ = self.events.send(Event::Committed { report, admitted, shared });
                        }
                        Waiter::Sharing(session, space) => {
                            let (report, admitted, shared) =
                                (Report::default(), Vec::new(), vec![(session, space, None)]);
                            let _ = self.events.send(Event::Committed { report, admitted, shared });
                        }
                        Waiter::None => {}
                    }
                }
                let _ = self.events.send(Event::StorageFailed { message, stopped: self.failed });
            }
        }
    }

    fn answer(&self, mut report: Report, waiters: Vec<Waiter>) {
        let done = std::mem::take(&mut report.done);
        let (mut admitted, mut shared) = (Vec::new(), Vec::new());
        let mut callers = Vec::new();
        for (done, waiter) in done.into_iter().zip(waiters) {
            match (waiter, done) {
                (Waiter::Caller(caller), done) => callers.push((caller, done)),
                (Waiter::Admission(session), Done::Admitted(answer)) => admitted.push((session, answer)),
                (Waiter::Sharing(session, space), Done::Shared(answer)) => shared.push((session, space, answer)),
                _ => {}
            }
        }
        let changed = !report.changed.is_empty() || !report.held.is_empty();
        // The driver hears of it before the callers do: whoever saw a write succeed and then asks for the status, or
        // for a sync, is asking about a state that includes it.
        let _ = self.events.send(Event::Committed { report, admitted, shared });
        for (caller, done) in callers {
            let _ = caller.send(Ok(done));
        }
        if changed {
            self.landed.send_modify(|landed| *landed += 1);
        }
    }
}
