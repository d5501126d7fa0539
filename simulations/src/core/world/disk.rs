//! The disk: commits in their three moments, and what the oracles read of it.

use thence::replica::Input;
use thence::store::{Done, Ledger, Report, StoreError, View, Work};

use super::{At, Failure, Happening, World, fail};
use crate::core::node::{Asked, Commit, Job, Node};
use crate::oracles::check_object;
use crate::world::Millis;

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
        process.commit = Some(Commit { jobs: process.next_jobs(), outcome: None });
        let delay = self.disk_delay(node);
        self.schedule(self.now + delay, Happening::Land { node, life });
    }

    /// A commit reaches the disk. Nobody knows yet.
    pub(super) fn land(&mut self, node: usize) -> Result<(), Failure> {
        let now = self.now;
        let nonce = self.disk_draw(node, "nonce");
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let mut commit = process.commit.take().unwrap_or_else(|| Commit { jobs: process.next_jobs(), outcome: None });
        let work: Vec<Work> = commit.jobs.iter().map(|job| job.work.clone()).collect();
        let outcome = process.ledger.commit(&work, now, nonce);
        let failed = outcome.as_ref().err().cloned();
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
        match failed {
            Some(error) => self.excused::<()>(node, Err(error)).map(drop),
            None => match self.read_on(node, false)? {
                Some(written) if written < effective => {
                    fail(node, "durability", format!("{effective} writes, {written} events on the disk"))
                }
                _ => Ok(()),
            },
        }
    }

    /// The node learns what became of a commit.
    pub(super) fn report(&mut self, node: usize) -> Result<(), Failure> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let Some(Commit { jobs, outcome: Some(outcome) }) = process.commit.take() else { return Ok(()) };
        match outcome {
            Ok(report) => self.reported(node, &jobs, report),
            Err(error) => {
                self.trace.tell(self.now, || format!("{node} commit failed: {error}"));
                self.trace.note(self.now, node, "commit failed", &[]);
                if matches!(error, StoreError::Io(_)) {
                    return self.mend(node);
                }
                if jobs.len() > 1 && process.ledger.failure().is_none() {
                    // One damaged record must not stand in the way of what has nothing to do with it.
                    process.singly = jobs.len();
                    process.waiting.splice(0..0, jobs);
                    self.after_input(node);
                    return Ok(());
                }
                self.handle(node, Input::CommitFailed)
            }
        }
    }

    pub(super) fn reported(&mut self, node: usize, jobs: &[Job], report: Report) -> Result<(), Failure> {
        let Report { done, held, changed, renewed } = report;
        if let Some(renewed) = renewed {
            self.trace.tell(self.now, || format!("{node} {renewed:?}"));
            self.handle(node, Input::Writes { replica: renewed.now })?;
        }
        for (job, done) in jobs.iter().zip(&done) {
            if let (Work::Write { space, .. }, Done::Written(Ok(written))) = (&job.work, done)
                && job.asked == Asked::User
                && written.changed > 0
            {
                // All that this device has written here up to now; another copy of it may have written some of it.
                let device = self.nodes[node].key.device();
                let log = self.nodes[node].shelves.get(space).map(|shelf| shelf.log.clone()).unwrap_or_default();
                let own = log.into_iter().filter(|event| self.history.is_by(*space, *event, device));
                let own: Vec<_> = own.map(|event| (*space, event)).collect();
                self.nodes[node].acknowledged.extend(own);
            }
        }
        for (space, revision, known, access) in held {
            self.handle(node, Input::Held { space, revision, known, access })?;
        }
        for (space, committed) in changed {
            self.handle(node, Input::Committed { space, committed })?;
        }
        for (job, done) in jobs.iter().zip(done) {
            if let (Asked::Session(session), Done::Admitted(answer)) = (job.asked, done) {
                self.handle(node, Input::Admitted { session, answer })?;
            }
        }
        self.after_input(node);
        Ok(())
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
            if all || read.renamed {
                read.touched = self.history.objects(space).cloned().collect();
            }
            for name in &read.touched {
                let Some(object) = self.excused(node, view.state(&name.0, &name.1))? else { continue };
                let shelf = &self.nodes[node].shelves[&space];
                check_object(&self.history, space, name, shelf, object.as_ref()).at(node)?;
            }
            let limit = 1 + usize::try_from(self.chance.draw("follower", node as u64, 0) % 5).unwrap_or_default();
            let followed = self.nodes[node].followers.entry(space).or_default().follow(&view, limit);
            self.excused(node, followed)?.transpose().at(node)?;
        }
        Ok(Some(own))
    }
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

fn views(ledger: &Ledger) -> Result<Vec<View>, StoreError> {
    let view = |space| ledger.view(space).transpose();
    ledger.spaces().into_iter().filter_map(view).collect()
}
