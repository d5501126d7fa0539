//! One step of one node: the few lines of a node's loop that carry what one half of it wants to the other half.

use std::rc::Rc;
use std::sync::Arc;

use thence::model::{SignedTicket, SpaceId, Ticket};
use thence::replica::{Channel, Input, Message, Millis, Output, Replica, SessionId, TicketRefusal};
use thence::store::{Done, Ledger, Renewal, Report, StoreError, Work};

use super::line::Lane;
use super::local::{Act, Asked, Job, Landed, Local, Process, Reading};
use super::platter::{Platter, content};
use super::pool::digest;
use super::world::{Step, World};
use crate::oracles::{At, Failure, fail};
use crate::oracles::{Era, Shelf, check_claims, check_in_flight, check_sent};
use crate::world::{DiskFault, MemoryDisk, What};

/// One node, taking a step.
pub(super) struct Turn<'w, 'a> {
    world: &'w mut World<'a>,
    local: Local,
    sent: Vec<(SessionId, Lane, u32)>,
}

/// The moment at which everything happens. Replicas are rebased to it, so that time passes in what is left until timers
/// are due and nowhere else.
pub(super) fn now(world: &World<'_>) -> Millis {
    world.scenario.limits.stall_ms
}

impl<'w, 'a> Turn<'w, 'a> {
    /// Takes it.
    pub(super) fn take(world: &'w mut World<'a>, local: u32, act: Act) -> Result<Step, Failure> {
        let local = world.locals[local].clone();
        let mut turn = Turn { world, local, sent: Vec::new() };
        turn.act(act)?;
        let now = now(turn.world);
        if let Some(process) = &mut turn.local.process {
            process.replica.rebase(now);
        }
        let Turn { world, local, sent } = turn;
        Ok(Step { after: world.add(local), sent })
    }

    fn act(&mut self, act: Act) -> Result<(), Failure> {
        let node = self.local.node;
        match act {
            Act::Start => self.start(),
            Act::Crash => self.crash(),
            Act::Connect(session) => {
                let peer = self.world.keys[self.world.peer(session, node)].device();
                self.handle(Input::Connected { session, peer, cluster: false })
            }
            Act::Notice(session) => self.handle(Input::Disconnected { session }),
            Act::Receive(session, lane, message) => self.receive(session, lane, message),
            Act::Land => self.land(None),
            Act::Fail(landed) => self.land(Some(if landed { DiskFault::Landed } else { DiskFault::Lost })),
            Act::Report => self.report(),
            Act::Read(at) => self.read(at),
            Act::Answer(at) => {
                let Some(process) = &mut self.local.process else { return Ok(()) };
                match process.reads.remove(at).found {
                    Some(found) => self.handle(found),
                    None => Ok(()),
                }
            }
            Act::Wake => {
                let due = self.local.process.as_ref().and_then(|process| process.replica.poll_timeout());
                self.handle_at(due.unwrap_or_default(), Input::Tick)
            }
            Act::Write(item) => {
                if let What::Write { space, requests, .. } = &self.world.scenario.items[item].what {
                    let work = Work::Write { space: self.world.spaces[*space].0, requests: requests.clone() };
                    self.ask(work, Asked::User);
                }
                Ok(())
            }
            Act::Redeem(item, session) => self.redeem(item, session),
            Act::Save => {
                self.local.image = Some(self.local.platter);
                Ok(())
            }
            Act::PutBack => {
                self.crash()?;
                self.local.platter = self.local.image.unwrap_or(self.local.platter);
                Ok(())
            }
        }
    }

    fn platter(&self) -> &Platter {
        &self.world.platters[self.local.platter]
    }

    // Processes.

    fn start(&mut self) -> Result<(), Failure> {
        let (now, node) = (now(self.world), self.local.node);
        let (_, ledger) = self.platter().reopen(node, &self.world.keys[node])?;
        let mut replica = Replica::new("simulation", 1, self.world.scenario.limits);
        replica.handle(now, Input::Writes { replica: ledger.replica() });
        for (space, revision, known, access) in ledger.held() {
            replica.handle(now, Input::Held { space, revision, known, access });
        }
        self.local.process = Some(Process {
            replica,
            waiting: Vec::new(),
            landed: Default::default(),
            in_doubt: false,
            reads: Vec::new(),
            tickets: Default::default(),
            shown: Default::default(),
        });
        if node == 0 {
            for (number, (space, genesis)) in self.world.spaces.clone().into_iter().enumerate() {
                if self.platter().ledger.access(space).is_none() {
                    self.ask(Work::Create { genesis, name: format!("space {number}") }, Asked::Nobody);
                }
            }
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), Failure> {
        let node = self.local.node;
        if self.local.process.take().is_some_and(|process| process.in_doubt) {
            let (disk, ledger) = self.platter().reopen(node, &self.world.keys[node])?;
            self.put(disk, ledger)?;
        }
        Ok(())
    }

    // The disk.

    fn ask(&mut self, work: Work, asked: Asked) {
        if let Some(process) = &mut self.local.process {
            process.waiting.push(Job { work, asked });
        }
    }

    /// The disk is another one now.
    fn put(&mut self, disk: Arc<MemoryDisk>, ledger: Ledger) -> Result<(), Failure> {
        let node = self.local.node;
        let content = content(&disk).at(node)?;
        let World { platters, history, keys, .. } = &mut *self.world;
        self.local.platter = match platters.find(&content) {
            Some(platter) => platter,
            None => {
                let platter = platters[self.local.platter].read(history, node, &keys[node], disk, ledger)?;
                platters.add(content, platter)
            }
        };
        Ok(())
    }

    fn land(&mut self, fault: Option<DiskFault>) -> Result<(), Failure> {
        let node = self.local.node;
        let nonce = self.world.chance.draw("nonce", node as u64, self.local.renewals);
        let Some(process) = &mut self.local.process else { return Ok(()) };
        let jobs = std::mem::take(&mut process.waiting);
        let work: Vec<Work> = jobs.iter().map(|job| job.work.clone()).collect();
        let (disk, ledger) = self.platter().fork();
        if let Some(fault) = fault {
            disk.fail_next(fault);
        }
        let outcome = ledger.commit(&work, 0, nonce);
        match &outcome {
            Ok(report) => {
                self.local.renewals += u64::from(report.renewed.is_some());
                let before = self.own_events();
                self.put(disk, ledger)?;
                let (written, effective) = (self.own_events() - before, writes(&jobs, report).count());
                if written < effective {
                    return fail(node, "durability", format!("{effective} writes, {written} events on the disk"));
                }
                self.acknowledge(&jobs, report);
            }
            Err(StoreError::Io(_)) => {
                // What is there shows when it is reopened: until then, what was asked of which disk tells it from others.
                let digest = digest(&(self.local.node, self.local.platter, fault, nonce, &jobs));
                let platter = self.platter().in_doubt(disk, ledger);
                self.local.platter = self.world.platters.add(digest, platter);
            }
            Err(error) => return fail(node, "no failure without a fault", error.to_string()),
        }
        let in_doubt = outcome.is_err();
        if let Some(process) = &mut self.local.process {
            process.landed.push_back(Rc::new(Landed { jobs, outcome }));
            process.in_doubt |= in_doubt;
        }
        Ok(())
    }

    fn own_events(&self) -> usize {
        let device = self.world.keys[self.local.node].device();
        let own = |(space, shelf): (&SpaceId, &Shelf)| {
            shelf.log.iter().filter(|event| self.world.history.is_by(shelf.era(*space), **event, device)).count()
        };
        self.platter().shelves.iter().map(own).sum()
    }

    /// Users are told that their writes are there: all that this device has written in that space up to now.
    fn acknowledge(&mut self, jobs: &[Job], report: &Report) {
        let device = self.world.keys[self.local.node].device();
        for (space, _) in writes(jobs, report).filter(|(_, asked)| *asked == Asked::User) {
            let shelf = self.platter().shelves.get(&space);
            let log = shelf.map(|shelf| shelf.log.clone()).unwrap_or_default();
            let era = Era::first(space);
            let own = log.into_iter().filter(|event| self.world.history.is_by(era, *event, device));
            let own: Vec<_> = own.map(|event| (era, event)).collect();
            self.local.acknowledged.extend(own);
        }
    }

    fn report(&mut self) -> Result<(), Failure> {
        let node = self.local.node;
        let landed = self.local.process.as_mut().and_then(|process| process.landed.pop_front());
        let Some(landed) = landed else { return Ok(()) };
        match &landed.outcome {
            Ok(report) => self.reported(&landed.jobs, report),
            Err(_) => {
                let (disk, ledger) = self.platter().fork();
                ledger.reopen().at(node)?;
                let held = ledger.held();
                self.put(disk, ledger)?;
                if let Some(process) = &mut self.local.process {
                    process.in_doubt = false;
                    if landed.jobs.iter().any(|job| matches!(job.work, Work::Join { .. })) {
                        // Users hear that nothing came of it, and show their tickets again.
                        process.tickets.clear();
                    }
                }
                self.handle(Input::CommitFailed)?;
                for job in &landed.jobs {
                    if let Asked::Session(session) = job.asked {
                        self.handle(Input::Admitted { session, answer: Err(TicketRefusal::Unavailable) })?;
                    }
                }
                held.into_iter().try_for_each(|(space, revision, known, access)| {
                    self.handle(Input::Held { space, revision, known, access })
                })
            }
        }
    }

    fn reported(&mut self, jobs: &[Job], report: &Report) -> Result<(), Failure> {
        let Report { done, held, changed, renewed } = report;
        if let Some(renewed) = renewed {
            self.handle(Input::Writes { replica: renewed.now })?;
        }
        for (space, revision, known, access) in held.clone() {
            self.handle(Input::Held { space, revision, known, access })?;
        }
        for (space, committed) in changed.clone() {
            self.handle(Input::Committed { space, committed })?;
        }
        for (job, done) in jobs.iter().zip(done) {
            if let (Asked::Session(session), Done::Admitted(answer)) = (job.asked, done) {
                self.handle(Input::Admitted { session, answer: answer.clone() })?;
            }
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<(), Failure> {
        let Some(process) = &self.local.process else { return Ok(()) };
        let lookup = process.reads[at].lookup.clone();
        let found = match self.platter().ledger.look_up(&lookup) {
            Ok(found) => found,
            Err(StoreError::Io(_)) if process.in_doubt => lookup.failed(),
            Err(error) => return fail(self.local.node, "no failure without a fault", error.to_string()),
        };
        if let Some(process) = &mut self.local.process {
            process.reads[at].found = Some(found);
        }
        Ok(())
    }

    // The protocol.

    fn handle(&mut self, input: Input) -> Result<(), Failure> {
        self.handle_at(now(self.world), input)
    }

    fn handle_at(&mut self, now: Millis, input: Input) -> Result<(), Failure> {
        let Some(process) = &mut self.local.process else { return Ok(()) };
        process.replica.handle(now, input);
        while let Some(output) = self.local.process.as_mut().and_then(|process| process.replica.poll_output()) {
            self.perform(output)?;
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) -> Result<(), Failure> {
        let node = self.local.node;
        match output {
            Output::Send { session, channel, message } => self.send(session, channel, &message),
            Output::Store { session, space, segments } => {
                self.ask(Work::Receive { session, space, segments }, Asked::Nobody);
                Ok(())
            }
            Output::LookUp(lookup) => {
                if let Some(process) = &mut self.local.process {
                    process.reads.push(Reading { lookup, found: None });
                }
                Ok(())
            }
            Output::Admit { session, device, ticket } => {
                self.ask(Work::Admit { device, ticket }, Asked::Session(session));
                Ok(())
            }
            Output::Behind { before, space, counter } => {
                self.ask(Work::Renew { before, reason: Renewal::Behind { space, counter } }, Asked::Nobody);
                Ok(())
            }
            Output::Follow { space, revision } => {
                self.ask(Work::Follow { space, revision }, Asked::Nobody);
                Ok(())
            }
            // No scenario has cluster peers yet.
            Output::Share { .. } | Output::Join { .. } => fail(node, "nobody shares unasked", String::new()),
            Output::Redeemed { session, answer } => {
                match answer {
                    Ok(introduction) => {
                        let introducer = self.world.keys[self.world.peer(session, node)].device();
                        self.ask(Work::Join { introduction, introducer }, Asked::Nobody);
                    }
                    // Shown again, as users do.
                    Err(TicketRefusal::Unavailable) => {
                        if let Some(process) = &mut self.local.process {
                            process.tickets.retain(|_, shown_in| *shown_in != session);
                        }
                    }
                    Err(refusal) => return fail(node, "good tickets are taken", refusal.to_string()),
                }
                Ok(())
            }
            Output::Close { reason, .. } => fail(node, "no honest peer is accused", reason.to_string()),
        }
    }

    /// What was read, or nothing from a disk that failed.
    fn send(&mut self, session: SessionId, channel: Channel, message: &Message) -> Result<(), Failure> {
        let lane = match channel {
            Channel::Control => 0,
            Channel::Space(space) => {
                self.check_said(session, space, message)?;
                let number = self.world.spaces.iter().position(|(of, _)| *of == space);
                let number = number.and_then(|number| Lane::try_from(number + 1).ok());
                let Some(lane) = number else { return fail(self.local.node, "no unknown channel", "") };
                lane
            }
        };
        let message = self.world.add_frame(message.kind(), message.body());
        self.sent.push((session, lane, message));
        Ok(())
    }

    fn check_said(&self, session: SessionId, space: SpaceId, message: &Message) -> Result<(), Failure> {
        let (node, world, platter) = (self.local.node, &*self.world, self.platter());
        let Some(process) = &self.local.process else { return Ok(()) };
        let nothing = Shelf::default();
        let shelf = platter.shelves.get(&space).unwrap_or(&nothing);
        let (access, peer) = (platter.ledger.access(space), world.keys[world.peer(session, node)].device());
        let (era, access) = (Era::first(space), Some(access.as_deref()));
        process.shown.check_said(&world.history, (session, node, era), access, peer, message).at(node)?;
        match message {
            Message::Segments(segments) => {
                for bytes in segments {
                    check_sent(&world.history, era, shelf, bytes).at(node)?;
                }
                let in_flight = process.replica.in_flight_bytes(session, space);
                check_in_flight(&world.scenario.limits, world.history.segment_bytes_max, in_flight).at(node)
            }
            Message::Ack(acks) => check_claims(shelf, &acks.iter().copied().collect(), "an acknowledgement").at(node),
            Message::Open(open) => (open.knowledge.iter().flat_map(|knowledge| knowledge.ranges()))
                .try_for_each(|(_, claims)| check_claims(shelf, claims, "an opening").at(node)),
            Message::Know(knowledge) => (knowledge.ranges())
                .try_for_each(|(_, claims)| check_claims(shelf, claims, "knowledge told in full").at(node)),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, session: SessionId, lane: Lane, message: u32) -> Result<(), Failure> {
        let node = self.local.node;
        let frame = &self.world.frames[message];
        let (kind, body) = (frame.kind, frame.body.clone());
        let channel = self.world.space(lane).map_or(Channel::Control, Channel::Space);
        if let (Channel::Space(space), Ok(Some(message))) = (channel, Message::decode(kind, true, &body))
            && let Some(process) = &mut self.local.process
        {
            let peer = self.world.keys[self.world.peer(session, node)].device();
            process.shown.hear(&self.world.history, (session, node, space), peer, &message);
        }
        self.handle(Input::Received { session, channel, kind, critical: true, body })
    }

    fn redeem(&mut self, item: usize, session: SessionId) -> Result<(), Failure> {
        let What::Redeem { space, from, role, .. } = self.world.scenario.items[item].what else { return Ok(()) };
        let Some(process) = &mut self.local.process else { return Ok(()) };
        process.tickets.insert(item, session);
        let mut id = [0; 16];
        id.copy_from_slice(&self.world.chance.bytes("ticket", item as u64)[..16]);
        let inviter = &self.world.keys[from];
        let ticket = Ticket {
            id,
            genesis: self.world.spaces[space].1,
            role,
            uses: 1,
            expires_ms: u64::MAX,
            inviter: inviter.device(),
            addresses: Vec::new(),
            name: format!("space {space}"),
        };
        let ticket = SignedTicket::sign(ticket, inviter).to_bytes();
        self.handle(Input::Redeem { session, ticket })
    }
}

/// The writes that became events: into which space, and for whom.
fn writes<'a>(jobs: &'a [Job], report: &'a Report) -> impl Iterator<Item = (SpaceId, Asked)> + 'a {
    jobs.iter().zip(&report.done).filter_map(|(job, done)| match (&job.work, done) {
        (Work::Write { space, .. }, Done::Written(Ok(written))) if written.changed > 0 => Some((*space, job.asked)),
        _ => None,
    })
}
