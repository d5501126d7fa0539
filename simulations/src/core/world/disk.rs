//! The disk: commits in their three moments, and what the oracles read of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use thence::causal::{EventHash, ReplicaId};
use thence::model::{Access, Object, Operation, Request, SpaceId};
use thence::replica::{Input, TicketRefusal};
use thence::store::{Done, Ledger, Report, StoreError, View, Work};

use super::{Happening, REDEEM_AGAIN_MS, REMOVE_MS, World};
use crate::application::APPLICATION;
use crate::core::node::{Asked, Commit, Job, Node};
use crate::oracles::{At, Failure, fail};
use crate::oracles::{
    Broken, Era, ObjectName, Shelf, Told, Verdict, check_asked, check_given_up, check_heeded, check_kept, check_object,
    check_renewed,
};
use crate::world::{Millis, What};

impl World<'_> {
    pub(super) fn disk_draw(&mut self, node: usize, purpose: &'static str) -> u64 {
        let Node { disk_uses, .. } = &mut self.nodes[node];
        *disk_uses += 1;
        self.chance.draw(purpose, (node as u64) << 32 | *disk_uses, 0)
    }

    pub(super) fn disk_delay(&mut self, node: usize) -> Millis {
        let Node { disk_ms, disk_uses, .. } = &mut self.nodes[node];
        *disk_uses += 1;
        self.chance.draws("disk", (node as u64) << 32 | *disk_uses).within(*disk_ms)
    }

    pub(super) fn ask(&mut self, node: usize, job: Job) {
        if let Some(process) = &mut self.nodes[node].process {
            process.waiting.push(job);
        }
    }

    pub(super) fn start_commit(&mut self, node: usize) {
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return };
        if process.commit.is_some() || process.waiting.is_empty() {
            return;
        }
        let (told, jobs) = (process.told.take(), process.next_jobs(self.removed_at_once));
        process.commit = Some(Commit { jobs, told, outcome: None });
        let delay = self.disk_delay(node);
        self.schedule(self.now + delay, Happening::Land { node, life });
    }

    /// Something may be left of what was wiped: it is removed with the next commit, or after a rest in one of its own.
    pub(super) fn remove_later(&mut self, node: usize) {
        let life = self.nodes[node].life;
        if self.nodes[node].process.as_ref().is_some_and(|process| process.removing) {
            self.schedule(self.now + REMOVE_MS, Happening::Remove { node, life });
        }
    }

    /// A disk has rested.
    pub(super) fn start_removal(&mut self, node: usize) {
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return };
        // What is being written removes some, too, and then it is tried again.
        if process.is_mending {
            // Nothing else may ever be written.
            return self.remove_later(node);
        }
        if process.commit.is_some() || !process.removing {
            return;
        }
        let (told, jobs) = (process.told.take(), process.next_jobs(self.removed_at_once));
        process.commit = Some(Commit { jobs, told, outcome: None });
        let delay = self.disk_delay(node);
        self.schedule(self.now + delay, Happening::Land { node, life });
    }

    /// A commit reaches the disk. Nobody knows yet.
    pub(super) fn land(&mut self, node: usize) -> Result<(), Failure> {
        let now = self.now;
        let nonce = self.disk_draw(node, "nonce");
        let Node { process: Some(process), shelves, .. } = &mut self.nodes[node] else { return Ok(()) };
        let mut commit = match process.commit.take() {
            Some(commit) => commit,
            None => Commit { jobs: process.next_jobs(self.removed_at_once), told: None, outcome: None },
        };
        let work: Vec<Work> = commit.jobs.iter().map(|job| job.work.clone()).collect();
        let (before, told) = (process.ledger.replica(), commit.told);
        let drafts = drafts(&process.ledger, &work);
        let (asked, mut members) = (wipes(&work), members_before(&process.ledger, &work));
        let device = process.ledger.device();
        self.history.asked_to_wipe.extend(asked.into_iter().map(|space| (space, device)));
        let outcome = process.ledger.commit(&work, now, nonce);
        let came_back = came_back(shelves, before, &work);
        let failed = outcome.as_ref().err().cloned();
        // Also where it failed: it may be there.
        let forgets = work.iter().any(|work| matches!(work, Work::Trim { .. }));
        let done = outcome.as_ref().map_or(&[][..], |report| &report.done);
        // A wipe that was refused, as by somebody who waits for the grants of the one before it, takes nothing away.
        let is_done = |space: &SpaceId| {
            work.iter().zip(done).any(|(work, done)| {
                matches!((work, done), (Work::Wipe { space: of, .. }, Done::Wiped(Ok(_))) if of == space)
            })
        };
        members.retain(|space, _| is_done(space));
        let refused = matches!(done, [Done::Written(Err(_))]);
        let effective = outcome.as_ref().map_or(0, |report| writes(report).count());
        if let Ok(report) = &outcome {
            for (space, committed) in &report.changed {
                self.trace.note(now, node, "committed in", space.as_bytes());
                for stretch in &committed.written {
                    self.trace.note(now, node, "segment", &stretch.bytes);
                }
            }
            self.trace.tell(now, || describe_report(node, report));
        }
        commit.outcome = Some(outcome);
        process.commit = Some(commit);
        self.nodes[node].forgot += u64::from(forgets);
        if let Some(error) = failed {
            self.strike("disk", node, None);
            return self.excused::<()>(node, Err(error)).map(drop);
        }
        let read = self.read_on(node, false);
        self.tell_landed(node);
        // The disk may have kept anybody from reading.
        let Some(written) = read? else { return Ok(()) };
        if written < effective {
            return fail(node, "durability", format!("{effective} writes, {written} events on the disk"));
        }
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        check_drafts(&process.ledger, &work, &drafts, refused).at(node)?;
        for (space, before) in members {
            process.ledger.access(space).map_or(Ok(()), |now| check_kept(&before, &now)).at(node)?;
        }
        self.check_names(node, before, &came_back, told)
    }

    /// Whether a node that wrote as `before` still may, after a commit that was to take in `came_back`.
    fn check_names(
        &mut self,
        node: usize,
        before: ReplicaId,
        came_back: &[(SpaceId, EventHash)],
        told: Option<Told>,
    ) -> Result<(), Failure> {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let now = process.ledger.replica();
        let taken = came_back.iter().any(|(space, event)| self.nodes[node].has(*space, *event));
        check_renewed(before, now, taken).at(node)?;
        if before != now {
            self.nodes[node].given_up.insert(before);
        }
        check_given_up(&self.nodes[node].given_up, now).at(node)?;
        let Some(told) = told else { return Ok(()) };
        let shelf = self.nodes[node].shelves.get(&told.era.space);
        let shelf = shelf.filter(|shelf| shelf.revision == told.era.revision);
        let Some(known) = shelf.map(|shelf| shelf.vector.counter(told.replica)) else { return Ok(()) };
        check_heeded(&told, now, known).at(node)
    }

    /// The node learns what became of a commit.
    pub(super) fn report(&mut self, node: usize) -> Result<(), Failure> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let Some(Commit { jobs, told, outcome: Some(outcome) }) = process.commit.take() else { return Ok(()) };
        match outcome {
            Ok(report) => self.reported(node, &jobs, report),
            Err(error) => {
                self.trace.tell(self.now, || format!("{node} commit failed: {error}"));
                self.trace.note(self.now, node, "commit failed", &[]);
                // What it was told before that commit it still knows.
                process.told = process.told.take().or(told);
                if jobs.len() == 1 || matches!(error, StoreError::Io(_)) {
                    // What cannot be removed is not tried again and again.
                    process.removing &= !jobs.iter().any(|job| matches!(job.work, Work::Remove { .. }));
                }
                if matches!(error, StoreError::Io(_)) {
                    self.tell_reported(node, true);
                    self.refuse(node, &jobs)?;
                    self.mend(node)?;
                    // A cluster peer does not say it again.
                    let introduced = |job: &Job| job.asked == Asked::Nobody && matches!(job.work, Work::Join { .. });
                    let is_cluster = self.scenario.cluster;
                    jobs.into_iter().filter(|job| is_cluster && introduced(job)).for_each(|job| self.ask(node, job));
                    self.after_input(node);
                    return Ok(());
                }
                if jobs.len() > 1 && process.ledger.failure().is_none() {
                    // One damaged record must not stand in the way of what has nothing to do with it.
                    process.singly = jobs.len();
                    process.waiting.splice(0..0, jobs);
                    self.after_input(node);
                    return Ok(());
                }
                self.refuse(node, &jobs)
            }
        }
    }

    /// The protocol is told that a commit failed, and who waited for it that nothing came of it: as the product does
    /// it, before the store is reopened, since what it then is told of the store has it ask again.
    fn refuse(&mut self, node: usize, jobs: &[Job]) -> Result<(), Failure> {
        self.handle(node, Input::CommitFailed)?;
        for job in jobs {
            match job.asked {
                Asked::Session(session) => {
                    self.handle(node, Input::Admitted { session, answer: Err(TicketRefusal::Unavailable) })?;
                }
                Asked::Sharing(session, space) => {
                    self.handle(node, Input::Shared { session, space, introduction: None })?;
                }
                // Who is not answered asks again.
                Asked::User | Asked::Client(..) | Asked::Nobody => {}
            }
        }
        Ok(())
    }

    pub(super) fn reported(&mut self, node: usize, jobs: &[Job], report: Report) -> Result<(), Failure> {
        self.tell_reported(node, false);
        let Report { done, held, changed, renewed } = report;
        if let Some(renewed) = renewed {
            self.trace.tell(self.now, || format!("{node} {renewed:?}"));
            self.tell_name(node);
            self.handle(node, Input::Writes { replica: renewed.now })?;
        }
        for (job, done) in jobs.iter().zip(&done) {
            if let (Work::Write { space, .. }, Done::Written(Ok(written))) = (&job.work, done)
                && job.asked == Asked::User
                && written.changed > 0
            {
                // All that this device has written here up to now; another copy of it may have written some of it.
                let device = self.nodes[node].key.device();
                let Some(shelf) = self.nodes[node].shelves.get(space) else { continue };
                let era = shelf.era(*space);
                let own = shelf.log.iter().filter(|event| self.history.is_by(era, **event, device));
                let own: Vec<_> = own.map(|event| (era, *event)).collect();
                if self.trace.is_recording() {
                    let names = own.iter().filter_map(|(era, event)| self.history.dot(*era, *event));
                    self.tell_acknowledged(node, &names.collect::<Vec<_>>());
                }
                self.nodes[node].acknowledged.extend(own);
            }
        }
        self.told_of_wipes(node, jobs, &done);
        self.tell_clients(node, jobs, &done)?;
        for (space, revision, known, access) in held {
            self.handle(node, Input::Held { space, revision, known, access })?;
        }
        for (space, committed) in changed {
            self.handle(node, Input::Committed { space, committed })?;
        }
        for (job, done) in jobs.iter().zip(done) {
            match (job.asked, done) {
                (Asked::Session(session), Done::Admitted(answer)) => {
                    self.handle(node, Input::Admitted { session, answer })?;
                }
                (Asked::Sharing(session, space), Done::Shared(introduction)) => {
                    self.handle(node, Input::Shared { session, space, introduction })?;
                }
                _ => {}
            }
        }
        self.after_input(node);
        Ok(())
    }

    /// Users are told that a space is wiped. What is left of it is removed from then on, and of what others wiped.
    fn told_of_wipes(&mut self, node: usize, jobs: &[Job], done: &[Done]) {
        let is_more = jobs.iter().any(|job| matches!(job.work, Work::Wipe { .. } | Work::Follow { .. }));
        let device = self.nodes[node].device();
        let Node { process: Some(process), wiped, .. } = &mut self.nodes[node] else { return };
        if !process.removing && is_more {
            (process.removing, process.interrupted) = (true, false);
        }
        for (job, done) in jobs.iter().zip(done) {
            match (&job.work, done) {
                (Work::Wipe { space, .. }, Done::Wiped(Ok(revision))) if job.asked == Asked::User => {
                    wiped.insert((Era { space: *space, revision: *revision }, device));
                }
                // What was wiped in this very commit the removal has not seen.
                (_, Done::Removed { more }) => (process.removing, process.interrupted) = (*more || is_more, false),
                _ => {}
            }
        }
        self.remove_later(node);
    }

    /// A space was begun anew on a disk. What only that disk held of what it was, nobody expects any more; and whoever was
    /// invited there without the knowledge of the one who did so asks again.
    pub(super) fn left_behind(&mut self, node: usize, space: SpaceId, left: &Shelf) {
        self.excuse(space, left);
        for (at, item) in self.scenario.items.iter().enumerate() {
            if let What::Redeem { node: joined, space: number, from, .. } = item.what
                && (joined == node || from == node)
                && self.spaces[number].0 == space
                && item.at <= self.now
            {
                self.schedule(self.now + REDEEM_AGAIN_MS, Happening::Item(at));
            }
        }
    }

    /// Reads what a disk has beyond what the oracles have seen of it, and checks it: new events, the objects that they
    /// touch (or all), the feed.
    ///
    /// Returns how many of the new events the node's own device wrote; nothing if the log is damaged, and then the node
    /// is down.
    pub(super) fn read_on(&mut self, node: usize, all: bool) -> Result<Option<usize>, Failure> {
        self.nodes[node].disk.look_at(true);
        let read = self.read_spaces(node, all);
        self.nodes[node].disk.look_at(false);
        read
    }

    fn read_spaces(&mut self, node: usize, all: bool) -> Result<Option<usize>, Failure> {
        let Some(process) = &self.nodes[node].process else { return Ok(None) };
        let owner = process.ledger.device();
        let Some(views) = self.excused(node, views(&process.ledger))? else { return self.blinded(node) };
        let mut own = 0;
        for view in views {
            let space = view.id();
            let shelf = self.nodes[node].shelves.entry(space).or_default();
            let read = self.history.read_on(owner, shelf, &view);
            let Some(read) = self.excused(node, read)? else { return self.blinded(node) };
            let mut read = read.at(node)?;
            own += read.own;
            if all || read.renamed || read.left.is_some() {
                read.touched = self.history.objects(space);
            }
            if let Some(left) = read.left {
                self.left_behind(node, space, &left);
            }
            for name in &read.touched {
                let Some(object) = self.excused(node, view.state(&name.0, &name.1))? else { continue };
                let shelf = &self.nodes[node].shelves[&space];
                check_object(&self.history, shelf.era(space), name, shelf, object.as_ref()).at(node)?;
            }
            let limit = 1 + usize::try_from(self.chance.draw("follower", node as u64, 0) % 5).unwrap_or_default();
            let followed = self.nodes[node].followers.entry(space).or_default().follow(&view, limit);
            self.excused(node, followed)?.transpose().at(node)?;
            if let Some(application) = &mut self.application
                && (all || !read.touched.is_empty())
            {
                check_application(application.after_commit(node, &view)).at(node)?;
            }
        }
        Ok(Some(own))
    }
}

/// The events among `work` that were written as `replica` and are not on the disk that writes as it.
fn came_back(shelves: &BTreeMap<SpaceId, Shelf>, replica: ReplicaId, work: &[Work]) -> Vec<(SpaceId, EventHash)> {
    let received = work.iter().filter_map(|work| match work {
        Work::Receive { space, segments, .. } => Some((*space, segments)),
        _ => None,
    });
    let own = received.flat_map(|(space, segments)| {
        let own = segments.iter().filter(|segment| segment.author().replica() == replica);
        own.flat_map(|segment| segment.events()).map(move |event| (space, event.hash))
    });
    own.filter(|(space, event)| shelves.get(space).is_none_or(|shelf| !shelf.events.contains(event))).collect()
}

/// The objects that a transaction writes, as they stand before it; none where more than it is committed.
fn drafts(ledger: &Ledger, work: &[Work]) -> BTreeMap<ObjectName, Object> {
    let [Work::Write { space, requests }] = work else { return BTreeMap::new() };
    let Ok(Some(view)) = ledger.view(*space) else { return BTreeMap::new() };
    let read = |request: &Request| {
        let name = (request.collection.clone(), request.key.clone());
        Some((name, view.state(&request.collection, &request.key).ok()?.unwrap_or_default()))
    };
    requests.iter().filter_map(read).collect()
}

/// The spaces that users ask to wipe.
fn wipes(work: &[Work]) -> Vec<SpaceId> {
    let wiped = work.iter().filter_map(|work| if let Work::Wipe { space, .. } = work { Some(*space) } else { None });
    wiped.collect()
}

/// Who may do what, before they are wiped, in the spaces that are.
fn members_before(ledger: &Ledger, work: &[Work]) -> BTreeMap<SpaceId, Arc<Access>> {
    // With what comes from elsewhere in the same commit there may be other grants, by what others began anew.
    let is_alone = !work.iter().any(|work| matches!(work, Work::Follow { .. }));
    let wiped = wipes(work).into_iter().filter(|_| is_alone);
    wiped.filter_map(|space| Some((space, ledger.access(space)?))).collect()
}

/// Whether a transaction did what was asked, or nothing if it was refused.
fn check_drafts(ledger: &Ledger, work: &[Work], before: &BTreeMap<ObjectName, Object>, refused: bool) -> Verdict {
    let ([Work::Write { requests, .. }], now) = (work, drafts(ledger, work)) else { return Ok(()) };
    for (name, before) in before {
        let asked = |request: &&Request| !refused && (&request.collection, &request.key) == (&name.0, &name.1);
        let operations: Vec<&Operation> = requests.iter().filter(asked).map(|request| &request.operation).collect();
        now.get(name).map_or(Ok(()), |now| check_asked(before, &operations, now))?;
    }
    Ok(())
}

/// The writes that became events.
fn writes(report: &Report) -> impl Iterator<Item = &Done> + '_ {
    report.done.iter().filter(|done| matches!(done, Done::Written(Ok(written)) if written.changed > 0))
}

fn describe_report(node: usize, report: &Report) -> String {
    let changed = (report.changed.iter()).map(|(space, committed)| {
        let written: Vec<_> = committed.written.iter().map(|stretch| (stretch.first, stretch.last.dot)).collect();
        let split = if committed.split.is_some() { " split" } else { "" };
        format!("{space:?} {written:?} rejected {:?}{split}", committed.rejected)
    });
    format!("{node} commits {:?} {:?}", changed.collect::<Vec<_>>(), report.done)
}

/// What an application says of its own invariant.
pub(super) fn check_application(said: Result<(), String>) -> Result<(), Broken> {
    said.map_err(|detail| Broken { invariant: APPLICATION, detail })
}

fn views(ledger: &Ledger) -> Result<Vec<View>, StoreError> {
    let view = |space| ledger.view(space).transpose();
    ledger.spaces().into_iter().filter_map(view).collect()
}
