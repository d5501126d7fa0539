//! The two tasks that touch the disk, each on a thread of its own: one commits, one reads the log for peers.
//!
//! **Group commit**: while one batch is being made durable, everything that arrives gathers and becomes the next one.
//! A lone write is committed at once; sixty-four concurrent ones share a commit. Nothing is answered before the commit
//! that holds it.
//!
//! **When the disk fails**: everything that waits is refused, and what comes is refused at once, without touching the
//! disk. Now and then the store is reopened, so that reading goes on, and probed; only when there is room again is
//! anything acknowledged. A thread that panics ends the node: what it knew is in doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Event;
use super::health::Pulse;
use super::intake::Room;
use super::lease::Lease;
use super::surroundings::Surroundings;
use crate::model::{Request, SpaceId};
use crate::replica::{Lookup, SessionId, TicketRefusal};
use crate::store::{Done, Ledger, Report, StoreError, Work};

/// The most that is put into one commit, so that the first to wait does not wait for long.
const GROUP_MAX: usize = 1024;
/// No more is gathered once a group holds so many bytes of segments or requests: decoded and joined they take many times that.
const GROUP_BYTES: usize = 2 << 20;
/// How long to wait between two attempts to mend a store that failed. An attempt that takes long, since the engine reads
/// the whole file, is followed by twice the time that it took.
const MEND_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether a reader has found out that the store failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the disk rests between two steps of the removal of what was wiped, if nothing else is to be written.
const REMOVE_EVERY: Duration = Duration::from_millis(20);
/// So many rows of what was wiped are removed in one step.
const REMOVED_AT_ONCE: usize = 1000;

/// Who waits for a commit.
pub(super) enum Waiter {
    /// Nobody.
    None,
    /// Room for what peers send, which comes back with the answer.
    Room(#[expect(dead_code, reason = "it is there to be dropped")] Room),
    /// A caller of the node.
    Caller(oneshot::Sender<Result<Done, StoreError>>),
    /// A peer that showed a ticket.
    Admission(SessionId),
    /// A cluster peer that a space is shared with.
    Sharing(SessionId, SpaceId),
}

pub(super) enum DiskJob {
    Commit(Work, Waiter),
    Read(Lookup),
}

/// The disk threads of one node.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    commits: mpsc::UnboundedSender<(Work, Waiter)>,
    reads: mpsc::UnboundedSender<Lookup>,
    /// When the commit that is under way began.
    pub(super) pulse: Pulse,
}

impl Disk {
    /// Starts both. They end when the last handle is dropped and everything that was asked is done; each of the
    /// receivers tells when one of them has let the store go.
    pub(super) fn start(
        surroundings: &Arc<dyn Surroundings>,
        ledger: &Arc<Ledger>,
        events: &mpsc::UnboundedSender<Event>,
        landed: watch::Sender<u64>,
        lease: Option<Lease>,
    ) -> std::io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        let (commits, jobs) = mpsc::unbounded_channel();
        let (reading, reads) = mpsc::unbounded_channel();
        let (committed, has_committed) = oneshot::channel();
        let (read, has_read) = oneshot::channel();
        let pulse = Pulse::default();
        let committer = Committer {
            surroundings: Arc::clone(surroundings),
            ledger: Arc::clone(ledger),
            events: events.clone(),
            landed,
            lease,
            pulse: pulse.clone(),
            failure: None,
            mended_at: None,
            removing: ledger.removals().map_or(true, |all| all.iter().any(|removal| removal.done_ms.is_none())),
            interrupted: true,
        };
        let alarm = Alarm { thread: "commits", events: events.clone() };
        let commits_task = async move {
            let _alarm = alarm;
            committer.run(jobs).await;
            let _ = committed.send(());
        };
        surroundings.spawn_apart("thence-commit", Box::pin(commits_task))?;
        let (ledger, events) = (Arc::clone(ledger), events.clone());
        let reads_task = async move {
            let _alarm = Alarm { thread: "reads", events: events.clone() };
            read_for_peers(ledger, events, reads).await;
            let _ = read.send(());
        };
        surroundings.spawn_apart("thence-read", Box::pin(reads_task))?;
        Ok((Self { commits, reads: reading, pulse }, vec![has_committed, has_read]))
    }

    pub(super) fn send(&self, job: DiskJob) {
        // A thread that is gone has panicked, and the node stops; whoever waits sees its answer channel closed.
        let _ = match job {
            DiskJob::Commit(work, waiter) => self.commits.send((work, waiter)).map_err(drop),
            DiskJob::Read(read) => self.reads.send(read).map_err(drop),
        };
    }
}

/// Tells the node when a thread ends by a panic.
struct Alarm {
    thread: &'static str,
    events: mpsc::UnboundedSender<Event>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.events.send(Event::DiskThreadDied { thread: self.thread });
        }
    }
}

async fn read_for_peers(
    ledger: Arc<Ledger>,
    events: mpsc::UnboundedSender<Event>,
    mut reads: mpsc::UnboundedReceiver<Lookup>,
) {
    while let Some(lookup) = reads.recv().await {
        let found = ledger.look_up(&lookup).unwrap_or_else(|error| {
            let _ = events.send(Event::Damaged(error));
            lookup.failed()
        });
        if events.send(Event::LookedUp(found)).is_err() {
            return;
        }
    }
}

fn weight(work: &Work) -> usize {
    match work {
        Work::Receive { segments, .. } => segments.iter().map(|segment| segment.bytes().len()).sum(),
        Work::Upload { uploads, .. } => uploads.iter().map(|upload| upload.request.weight()).sum(),
        Work::Write { requests, .. } => requests.iter().map(Request::weight).sum(),
        _ => 0,
    }
}

/// Why nothing can be written, and when to try again.
struct Failure {
    error: StoreError,
    mend_at: Instant,
}

struct Committer {
    surroundings: Arc<dyn Surroundings>,
    ledger: Arc<Ledger>,
    events: mpsc::UnboundedSender<Event>,
    landed: watch::Sender<u64>,
    /// The lease beside the store, if it has one.
    lease: Option<Lease>,
    pulse: Pulse,
    failure: Option<Failure>,
    /// When the last attempt to mend it ended, and how long it took.
    mended_at: Option<(Instant, Duration)>,
    /// Whether something may be left of what was wiped.
    removing: bool,
    /// Whether its removal was interrupted since the last step.
    interrupted: bool,
}

impl Committer {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<(Work, Waiter)>) {
        loop {
            let now = self.surroundings.now();
            let wait = match &self.failure {
                Some(failure) => failure.mend_at.saturating_duration_since(now),
                None if self.removing => REMOVE_EVERY,
                None => LOOK_EVERY,
            };
            let first = match self.surroundings.within(wait, jobs.recv()).await {
                Some(Some(job)) => Some(job),
                Some(None) => return,
                None => None,
            };
            self.look_after_the_store();
            let removes = self.removing && self.failure.is_none();
            let again = self.removing && self.interrupted;
            let removal = || (Work::Remove { again, rows_max: REMOVED_AT_ONCE }, Waiter::None);
            let first = first.or_else(|| removes.then(removal));
            let Some(first) = first else { continue };
            let removes = removes && !matches!(first.0, Work::Remove { .. });
            let mut bytes = weight(&first.0);
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && bytes < GROUP_BYTES
                && let Ok(job) = jobs.try_recv()
            {
                bytes += weight(&job.0);
                group.push(job);
            }
            if removes {
                // In step with what is written: it costs no commit of its own, and goes on however much that is.
                group.push(removal());
            }
            let (works, waiters): (Vec<Work>, Vec<Waiter>) = group.into_iter().unzip();
            match &self.failure {
                Some(failure) => {
                    let error = failure.error.clone();
                    // Also what peers sent was not kept, and is to be asked for again.
                    let _ = self.events.send(Event::StorageFailed { error: error.clone(), stopped: true });
                    self.refuse(waiters, &error);
                }
                None => self.commit(&works, waiters),
            }
        }
    }

    /// Notices that the store failed, and mends it when it is time to try.
    fn look_after_the_store(&mut self) {
        if self.failure.is_none()
            && let Some(error) = self.ledger.failure()
        {
            self.fail(error);
        }
        if self.failure.as_ref().is_none_or(|failure| failure.mend_at > self.surroundings.now()) {
            return;
        }
        let begun = self.surroundings.now();
        // First what lets readers go on, then whether there is room to write.
        let mended = if self.ledger.failure().is_some() { self.ledger.reopen() } else { Ok(()) };
        let mended = mended.and_then(|()| self.ledger.probe());
        let now = self.surroundings.now();
        self.mended_at = Some((now, now.saturating_duration_since(begun)));
        match mended {
            Ok(()) => {
                self.failure = None;
                (self.removing, self.interrupted) = (true, true);
                // The commit that failed may be there after all: whoever watches, and the protocol, hear of it now.
                self.landed.send_modify(|landed| *landed += 1);
                if !planted!("recovered-in-silence") {
                    let _ = self.events.send(Event::StorageRecovered { held: self.ledger.held() });
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Stops acknowledging, and plans the next attempt: at once, unless there was one just now.
    fn fail(&mut self, error: StoreError) {
        let mend_at = match self.mended_at {
            Some((at, took)) => at + MEND_EVERY.max(2 * took),
            None => self.surroundings.now(),
        };
        let _ = self.events.send(Event::StorageFailed { error: error.clone(), stopped: true });
        self.failure = Some(Failure { error, mend_at });
    }

    fn commit(&mut self, works: &[Work], waiters: Vec<Waiter>) {
        self.pulse.begin(self.surroundings.now());
        let committed = self.ledger.commit(works, self.surroundings.wall_ms(), self.surroundings.random());
        self.pulse.end(self.surroundings.now(), committed.is_ok());
        match committed {
            Ok(report) => self.answer(report, waiters),
            Err(StoreError::Damaged(_)) if works.len() > 1 && self.ledger.failure().is_none() => {
                // One damaged record must not stand in the way of everything that has nothing to do with it.
                for (work, waiter) in works.iter().zip(waiters) {
                    self.commit(std::slice::from_ref(work), vec![waiter]);
                }
            }
            Err(error) => {
                // What cannot be removed is not tried again and again.
                self.removing &= !works.iter().any(|work| matches!(work, Work::Remove { .. }));
                if self.ledger.failure().is_some() || matches!(error, StoreError::Io(_)) {
                    self.fail(error.clone());
                } else {
                    let _ = self.events.send(Event::StorageFailed { error: error.clone(), stopped: false });
                }
                self.refuse(waiters, &error);
            }
        }
    }

    /// Tells those who wait that nothing came of it.
    fn refuse(&self, waiters: Vec<Waiter>, error: &StoreError) {
        for waiter in waiters {
            match waiter {
                Waiter::Caller(caller) => drop(caller.send(Err(error.clone()))),
                Waiter::Admission(session) => {
                    let admitted = vec![(session, Err(TicketRefusal::Unavailable))];
                    let (report, shared) = (Report::default(), Vec::new());
                    let _ = self.events.send(Event::Committed { report, admitted, shared });
                }
                Waiter::Sharing(session, space) => {
                    let (report, admitted, shared) = (Report::default(), Vec::new(), vec![(session, space, None)]);
                    let _ = self.events.send(Event::Committed { report, admitted, shared });
                }
                Waiter::None | Waiter::Room(_) => {}
            }
        }
    }

    fn answer(&mut self, mut report: Report, waiters: Vec<Waiter>) {
        let is_more = !report.held.is_empty();
        if !self.removing && is_more {
            (self.removing, self.interrupted) = (true, false);
        }
        let done = std::mem::take(&mut report.done);
        let (mut admitted, mut shared) = (Vec::new(), Vec::new());
        let mut callers = Vec::new();
        for (done, waiter) in done.into_iter().zip(waiters) {
            match (waiter, done) {
                (Waiter::Caller(caller), done) => callers.push((caller, done)),
                (Waiter::Admission(session), Done::Admitted(answer)) => admitted.push((session, answer)),
                (Waiter::Sharing(session, space), Done::Shared(answer)) => shared.push((session, space, answer)),
                // What was wiped in this very commit the removal has not seen.
                (Waiter::None, Done::Removed { more }) => (self.removing, self.interrupted) = (more || is_more, false),
                (room @ Waiter::Room(_), _) if planted!("room-never-given-back") => std::mem::forget(room),
                _ => {}
            }
        }
        let changed = !report.changed.is_empty() || !report.held.is_empty();
        if let (Some(lease), Some(_)) = (&self.lease, &report.renewed)
            && let Err(error) = lease.make(&self.ledger, self.surroundings.wall_ms(), self.surroundings.random())
        {
            // Then it does not hold the next time, which costs another id.
            tracing::warn!(%error, "cannot make a new lease");
        }
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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Mutex;

    use super::super::surroundings::System;
    use super::*;
    use crate::model::{DeviceKey, Genesis};
    use crate::store::{Batch, MemoryStore, Read, Snapshot, Store};

    /// What the disk does at the moment, and how often it was mended.
    #[derive(Default)]
    struct Mood {
        panics: bool,
        full: bool,
        failed: bool,
        reopened: u32,
    }

    /// A store in memory on a disk with moods.
    #[derive(Default)]
    struct Moody {
        memory: MemoryStore,
        mood: Mutex<Mood>,
    }

    fn full() -> StoreError {
        StoreError::Io("no space left".to_owned())
    }

    impl Moody {
        fn mood(&self, change: impl FnOnce(&mut Mood)) {
            change(&mut self.mood.lock().expect("no panic while it is held"));
        }

        fn check(&self) -> Result<(), StoreError> {
            if self.mood.lock().expect("no panic while it is held").failed { Err(full()) } else { Ok(()) }
        }
    }

    impl Store for Moody {
        fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            self.check()?;
            self.memory.snapshot()
        }

        fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
            self.check()?;
            let (panics, is_full) = {
                let mut mood = self.mood.lock().expect("no panic while it is held");
                mood.failed |= mood.full;
                (mood.panics, mood.full)
            };
            assert!(!panics, "on purpose");
            if is_full { Err(full()) } else { self.memory.commit(compute) }
        }

        fn reopen(&self) -> Result<(), StoreError> {
            self.mood(|mood| (mood.failed, mood.reopened) = (false, mood.reopened + 1));
            Ok(())
        }

        fn failure(&self) -> Option<StoreError> {
            self.check().err()
        }

        fn probe(&self) -> Result<(), StoreError> {
            if self.mood.lock().expect("no panic while it is held").full { Err(full()) } else { Ok(()) }
        }
    }

    struct House {
        store: Arc<Moody>,
        ledger: Arc<Ledger>,
        disk: Disk,
        events: mpsc::UnboundedReceiver<Event>,
        landed: watch::Receiver<u64>,
        ended: Vec<oneshot::Receiver<()>>,
    }

    fn house() -> House {
        let store = Arc::new(Moody::default());
        let key = DeviceKey::from_secret(&[1; 32]);
        let first = Ledger::first_batch(key.device(), 1);
        store.commit(&mut |_| Ok(first.clone())).expect("it works");
        let ledger = Arc::new(Ledger::open(store.clone(), key).expect("a fresh store"));
        let (sender, events) = mpsc::unbounded_channel();
        let (landing, landed) = watch::channel(0);
        let system: Arc<dyn Surroundings> = Arc::new(System);
        let (disk, ended) = Disk::start(&system, &ledger, &sender, landing, None).expect("threads");
        House { store, ledger, disk, events, landed, ended }
    }

    impl House {
        fn create(&self, n: u8) -> oneshot::Receiver<Result<Done, StoreError>> {
            let (caller, done) = oneshot::channel();
            let genesis = Genesis { creator: self.ledger.device(), nonce: [n; 16] };
            let work = Work::Create { genesis, name: format!("space{n}") };
            self.disk.send(DiskJob::Commit(work, Waiter::Caller(caller)));
            done
        }

        fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
            std::iter::from_fn(|| self.events.blocking_recv()).find(wanted).expect("the threads run")
        }
    }

    #[test]
    fn a_full_disk_is_not_asked_for_every_write_and_acknowledges_again_when_there_is_room() {
        let mut house = house();
        assert!(matches!(house.create(1).blocking_recv(), Ok(Ok(Done::Created(_)))));
        house.store.mood(|mood| mood.full = true);
        let begun = Instant::now();
        for n in 2..200 {
            assert_eq!(house.create(n).blocking_recv().expect("an answer"), Err(full()), "write {n}");
        }
        // It was mended for readers, though nothing can be written.
        house.event(|event| matches!(event, Event::StorageFailed { stopped: true, .. }));
        let (mut reopened, mut attempts) = (0, 0);
        while reopened == 0 {
            house.store.mood(|mood| reopened = mood.reopened);
            assert_eq!(house.create(201).blocking_recv().expect("an answer"), Err(full()));
        }
        let mut readable = false;
        house
            .store
            .snapshot()
            .expect("reading goes on")
            .scan(&[0], &[255], &mut |_, _| {
                readable = true;
                ControlFlow::Break(())
            })
            .expect("reading goes on");
        assert!(readable);
        house.store.mood(|mood| attempts = mood.reopened);
        let due = u32::try_from(begun.elapsed().as_secs()).expect("soon") + 2;
        assert!(attempts <= due, "{attempts} attempts where {due} were due");

        let seen = *house.landed.borrow_and_update();
        house.store.mood(|mood| mood.full = false);
        house.event(|event| matches!(event, Event::StorageRecovered { held } if held.len() == 1));
        assert!(*house.landed.borrow() > seen, "watchers look again when it recovers");
        assert!(matches!(house.create(202).blocking_recv(), Ok(Ok(Done::Created(_)))));
    }

    #[test]
    fn a_failure_that_a_reader_met_is_mended_without_a_write() {
        let mut house = house();
        house.store.mood(|mood| mood.failed = true);
        house.event(|event| matches!(event, Event::StorageFailed { stopped: true, .. }));
        house.event(|event| matches!(event, Event::StorageRecovered { .. }));
        assert_eq!(house.store.failure(), None);
    }

    #[test]
    fn what_is_wiped_in_the_commit_that_ends_an_earlier_removal_is_removed_too() {
        let House { ledger, .. } = house();
        let (events, _watched) = mpsc::unbounded_channel();
        let mut committer = Committer {
            surroundings: Arc::new(System),
            ledger: Arc::clone(&ledger),
            events,
            landed: watch::channel(0).0,
            lease: None,
            pulse: Pulse::default(),
            failure: None,
            mended_at: None,
            removing: false,
            interrupted: false,
        };
        let genesis = Genesis { creator: ledger.device(), nonce: [1; 16] };
        let wipe = || Work::Wipe { space: genesis.space(), only: None };
        let remove = || Work::Remove { again: false, rows_max: REMOVED_AT_ONCE };
        committer.commit(&[Work::Create { genesis, name: "home".to_owned() }], vec![Waiter::None]);
        committer.commit(&[wipe()], vec![Waiter::None]);
        committer.commit(&[wipe(), remove()], vec![Waiter::None, Waiter::None]);
        assert!(committer.removing, "the second one");
        committer.commit(&[remove()], vec![Waiter::None]);
        assert!(!committer.removing);
        assert!(ledger.removals().expect("readable").iter().all(|removal| removal.done_ms.is_some()));
        assert_eq!(ledger.rows_left_behind(), Ok(0));
    }

    #[test]
    fn a_disk_thread_that_panics_is_told_and_leaves_nobody_waiting() {
        let mut house = house();
        house.store.mood(|mood| mood.panics = true);
        assert!(house.create(1).blocking_recv().is_err(), "nothing was acknowledged");
        house.event(|event| matches!(event, Event::DiskThreadDied { thread: "commits" }));
        assert!(house.create(2).blocking_recv().is_err(), "and nobody waits for ever");
        drop(house.disk);
        let ended: Vec<bool> = house.ended.into_iter().map(|ended| ended.blocking_recv().is_ok()).collect();
        assert_eq!(ended, [false, true]);
    }
}
