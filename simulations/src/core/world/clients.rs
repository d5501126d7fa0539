//! Thin clients, and what a node does for them: what a relay does, without HTTP.
//!
//! What a client asks may be lost, come twice, or be answered in vain, until all faults end.

use thence::model::SpaceId;
use thence::relay::{Page, beginning, epoch_of};
use thence::store::{Done, PageLimits, StoreError, Trimming, View, Work};

use super::{Happening, World};
use crate::core::client::{Answer, Ask, Client, Token, point_of, sync_point};
use crate::core::node::{Asked, Job};
use crate::oracles::{At, Era, Failure, Origin, fail};
use crate::oracles::{check_has_all, check_page, check_reset, check_taken, check_upload, shown_to};
use crate::world::{Draws, MarkKind, Millis, What};

/// For how long a client waits for an answer.
const PATIENCE_MS: Millis = 400;

/// More pages than it takes to be told of everything.
const PAGES_MAX: usize = 10_000;

/// A client of a space: its number, and the space's.
pub(super) type ClientName = (usize, usize);

fn called((client, space): ClientName) -> String {
    format!("client {client} of space {space}")
}

impl World<'_> {
    /// A client does something of the scenario's.
    pub(super) fn by_client(&mut self, at: usize) {
        let scenario = self.scenario;
        let (name, node) = match scenario.items[at].what {
            What::Upload { client, node, space, .. } | What::Fetch { client, node, space, .. } => {
                ((client, space), node)
            }
            _ => return,
        };
        let chance = self.chance;
        let client = self.clients.entry(name).or_insert_with(|| Client::new(name.0));
        client.node = node;
        match &scenario.items[at].what {
            What::Upload { requests, .. } => {
                let mut draws = chance.draws("client says what it saw", at as u64);
                requests.iter().for_each(|request| client.write(request, draws.yes(500)));
            }
            What::Fetch { limit, .. } => client.limit = Some((*limit).max(1)),
            _ => {}
        }
        self.go_on(name);
    }

    fn draws_of(&self, purpose: &'static str, (client, space): ClientName, number: u64) -> Draws {
        self.chance.draws(purpose, (client as u64) << 48 | (space as u64) << 40 | number)
    }

    /// A client asks what it has to ask, unless it waits for something.
    fn go_on(&mut self, name: ClientName) {
        let Some(client) = self.clients.get_mut(&name) else { return };
        let bytes = *self.chance.draws("page bytes", client.asked).pick(&[1, 60, 200, 1 << 20]);
        let Some(ask) = client.next(bytes) else { return };
        let (number, node) = (client.asked, client.node);
        let mut draws = self.draws_of("client asks", name, number);
        let times = if self.is_quiet() { 1 } else { *draws.pick(&[0, 1, 1, 1, 1, 1, 1, 2]) };
        for _ in 0..times {
            let at = self.now + draws.within((1, 30));
            self.schedule(at, Happening::Asked { name, number, node, ask: Box::new(ask.clone()) });
        }
        self.schedule(self.now + PATIENCE_MS, Happening::Impatient { name, number });
    }

    /// A client that was not answered asks again.
    pub(super) fn impatient(&mut self, name: ClientName, number: u64) {
        if let Some(client) = self.clients.get_mut(&name)
            && client.asked == number
            && client.waits > 0
        {
            client.waits = 0;
            self.go_on(name);
        }
    }

    /// A node is asked.
    pub(super) fn asked(&mut self, name: ClientName, number: u64, node: usize, ask: Ask) -> Result<(), Failure> {
        let space = self.spaces[name.1].0;
        if self.nodes[node].process.is_none() || self.is_cut_off(node) {
            return Ok(());
        }
        match ask {
            Ask::Uploads(uploads) => {
                for upload in uploads {
                    let work = Work::Upload { space, uploads: vec![upload] };
                    self.ask(node, Job { work, asked: Asked::Client(name, number) });
                }
                self.after_input(node);
            }
            Ask::Page { token, limits } => {
                let answer = self.page(name, node, space, token.as_ref(), limits)?;
                answer.into_iter().for_each(|answer| self.answer(name, number, answer));
            }
        }
        Ok(())
    }

    /// The page that a node answers with; nothing if it does not have that space, or cannot read.
    fn page(
        &mut self,
        name: ClientName,
        node: usize,
        space: SpaceId,
        token: Option<&Token>,
        limits: PageLimits,
    ) -> Result<Option<Answer>, Failure> {
        let Some(process) = &self.nodes[node].process else { return Ok(None) };
        let (replica, view) = (process.ledger.replica(), process.ledger.view(space));
        let Some(Some(view)) = self.excused(node, view)? else { return Ok(None) };
        let epoch = epoch_of(replica);
        let (generation, forgot, revision) = (self.nodes[node].generation, self.nodes[node].forgot, view.revision());
        let here = Origin { node, generation, forgot, revision };
        let read = || -> Result<Result<Answer, _>, StoreError> {
            let fresh = sync_point(epoch, view.revision(), beginning(&view)?);
            let point = point_of(token, fresh.clone());
            if let Some(gone) = point.gone(&view, None, &fresh)? {
                return Ok(Ok(Answer::Gone(gone, Token { point: fresh, made: here })));
            }
            let Some(Page { rows, phase, more, .. }) = Page::read(&view, point.phase, None, limits)? else {
                return Ok(Err("its sync point leads nowhere"));
            };
            let token_made = Token { point: sync_point(epoch, view.revision(), phase), made: here };
            let is_misled = token.is_some_and(|token| !token.made.numbers_as(here) && token.point.epoch == epoch);
            let shown = if more { None } else { Some(shown_to(&view)?) };
            Ok(Ok(Answer::Page { rows, token: token_made, shown, is_misled }))
        };
        let Some(answer) = self.excused(node, read())? else { return Ok(None) };
        let answer = answer.or_else(|detail| fail(node, "thin clients miss nothing", detail))?;
        if let (Answer::Gone(gone, _), Some(token)) = (&answer, token) {
            let may_be_copied = self.may_be_renamed(node);
            check_reset(&called(name), *gone, token.made, here, may_be_copied).at(node)?;
        }
        if let (Answer::Page { .. }, Some(token)) = (&answer, token) {
            check_page(&called(name), token.made.revision, here.revision).at(node)?;
        }
        Ok(Some(answer))
    }

    /// Whether a node may have reason to write under another id than before.
    fn may_be_renamed(&self, node: usize) -> bool {
        let is_hostile = (0..self.nodes.len()).any(|node| self.scenario.is_hostile(node));
        is_hostile || self.history.copied.contains(&self.nodes[node].device())
    }

    /// A commit of what clients wrote is reported: they are told, and what they are told holds.
    pub(super) fn tell_clients(&mut self, node: usize, jobs: &[Job], done: &[Done]) -> Result<(), Failure> {
        for (job, done) in jobs.iter().zip(done) {
            let (Asked::Client(name, number), Work::Upload { space, uploads }) = (job.asked, &job.work) else {
                continue;
            };
            let (Done::Uploaded(outcome), [upload]) = (done, &uploads[..]) else { continue };
            let outcome = match outcome {
                Ok(rows) => {
                    let shelf = self.nodes[node].shelves.get(space);
                    let era = Era { space: *space, revision: shelf.map_or(0, |shelf| shelf.revision) };
                    check_upload(upload, era.revision).at(node)?;
                    let taken = check_taken(&self.history, era, shelf, upload).at(node)?;
                    self.nodes[node].acknowledged.extend(taken.into_iter().map(|event| (era, event)));
                    Ok(rows.first().map(|row| row.seen.clone()).unwrap_or_default())
                }
                Err(error) => Err(error.clone()),
            };
            self.answer(name, number, Answer::Uploaded(Box::new(upload.clone()), outcome));
        }
        Ok(())
    }

    /// An answer is on its way to a client, or lost.
    fn answer(&mut self, name: ClientName, number: u64, answer: Answer) {
        self.queued += 1;
        let mut draws = self.draws_of("client is answered", name, number << 20 | self.queued);
        if self.is_quiet() || !draws.yes(150) {
            let at = self.now + draws.within((1, 30));
            self.schedule(at, Happening::Answered { name, number, answer: Box::new(answer) });
        }
    }

    /// A client is answered.
    pub(super) fn answered(&mut self, name: ClientName, number: u64, answer: Answer) -> Result<(), Failure> {
        let (now, who) = (self.now, called(name));
        let Some(client) = self.clients.get_mut(&name).filter(|client| client.asked == number && client.waits > 0)
        else {
            return Ok(());
        };
        let node = client.node;
        let words = in_words(&answer);
        let shown = client.hear(answer);
        self.trace.note(now, node, "client", words.as_bytes());
        self.trace.tell(now, || format!("{who}: {words}"));
        self.trace.record(|story| story.mark(now, node, MarkKind::Acknowledged, format!("{who}: {words}"), ""));
        let Some(client) = self.clients.get(&name) else { return Ok(()) };
        if let Some(shown) = shown {
            check_has_all(&who, &client.rows, &shown).at(node)?;
        }
        self.go_on(name);
        Ok(())
    }

    /// A node forgets what a relay forgets in time.
    pub(super) fn forget(&mut self, node: usize, space: usize, older_ms: Millis) -> Result<(), Failure> {
        let (space, before) = (self.spaces[space].0, self.now.saturating_sub(older_ms));
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let read = |view: View| -> Result<Trimming, StoreError> {
            let limits = PageLimits { rows: usize::MAX, bytes: usize::MAX, looked_at: usize::MAX };
            let (deletions, _) = view.old_deletions(0, &|_| before, limits)?;
            Ok(Trimming { revision: view.revision(), deletions, ids: view.old_ids(None, before, limits)?.0 })
        };
        let found = process.ledger.view(space).and_then(|view| view.map(read).transpose());
        let Some(Some(trimming)) = self.excused(node, found)? else { return Ok(()) };
        let device = self.nodes[node].device();
        let era = Era { space, revision: trimming.revision };
        self.history.forgotten.extend(trimming.ids.iter().map(|id| (device, era, id.clone())));
        self.ask(node, Job { work: Work::Trim { space, trimming }, asked: Asked::Nobody });
        self.start_commit(node);
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.deadline.is_some()
    }

    /// All faults end: clients send what they have not sent, and ask for what they lack, unless their node is not one that
    /// has it all. Returns how many writes they send.
    pub(super) fn clients_finish(&mut self) -> usize {
        let members = self.members();
        self.clients.retain(|(_, space), client| members[*space].1.contains(&client.node));
        let names: Vec<ClientName> = self.clients.keys().copied().collect();
        for name in &names {
            if let Some(client) = self.clients.get_mut(name) {
                client.limit = client.limit.or(Some(3));
            }
            self.go_on(*name);
        }
        self.clients.values().map(|client| client.outbox.len()).sum()
    }

    /// In the end every client has sent everything, and has everything once it asks.
    pub(super) fn check_clients(&mut self) -> Result<(), Failure> {
        let names: Vec<ClientName> = self.clients.keys().copied().collect();
        for name in names {
            let Some(client) = self.clients.get_mut(&name) else { continue };
            let node = client.node;
            if !client.outbox.is_empty() || client.waits > 0 {
                return fail(node, "liveness", format!("{} is not answered", called(name)));
            }
            client.limit = Some(2);
            let space = self.spaces[name.1].0;
            for page in 0.. {
                let ask = self.clients.get_mut(&name).and_then(|client| client.next(1 << 10));
                let Some(Ask::Page { token, limits }) = ask else { break };
                let answer = self.page(name, node, space, token.as_ref(), limits)?;
                let (Some(client), Some(answer)) = (self.clients.get_mut(&name), answer) else { break };
                if let Some(shown) = client.hear(answer) {
                    check_has_all(&called(name), &client.rows, &shown).at(node)?;
                }
                if page > PAGES_MAX {
                    return fail(node, "liveness", format!("{} is told for ever that there is more", called(name)));
                }
            }
        }
        Ok(())
    }
}

fn in_words(answer: &Answer) -> String {
    match answer {
        Answer::Uploaded(upload, outcome) => {
            let id = upload.remark.id.as_ref().map(|id| id.as_str()).unwrap_or_default();
            match outcome {
                Ok(_) => format!("{id} is taken"),
                Err(error) => format!("{id} is refused: {error}"),
            }
        }
        Answer::Page { rows, shown, .. } => {
            let rows: Vec<String> = rows
                .iter()
                .map(|row| {
                    let gone = if row.fields.is_none() { " is gone" } else { "" };
                    format!("{}/{}{gone}", row.collection, row.key)
                })
                .collect();
            let more = if shown.is_some() { ", and that is all" } else { "" };
            format!("is given {}{more}", if rows.is_empty() { "nothing".to_owned() } else { rows.join(", ") })
        }
        Answer::Gone(gone, _) => format!("has to begin anew: {gone:?}"),
    }
}
