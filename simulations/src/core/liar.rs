//! A hostile node: what it says in place of what its process says.
//!
//! Its process is honest and never learns what was made of its words, so its lies come at every phase of the protocol.
//! Each liar has its own subset of tricks and its own share of truth: one that lied at every word would never get
//! beyond the greeting.
//!
//! **Invariant**: it says no more than a bounded number of things that its process did not say, so that a storm among
//! the honest is theirs.
//!
//! What it does not do: forge what it has no key for. Events are forged with its own.

use std::collections::VecDeque;
use std::sync::Arc;

use thence::causal::{Claims, Dot, Knowledge, ReplicaId, VersionVector, Witness};
use thence::model::{DeviceKey, Genesis, Revision, Role, Segment, SignedTicket, SpaceId, Ticket, Voucher};
use thence::replica::{Channel, Message, Open, Probed, Refusal, SessionId};
use thence::store::{Ledger, MemoryStore, Store, Work};

use crate::world::{Chance, Draws};

/// What a liar can do to a message, or say beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    /// Bits flipped, cut, doubled.
    Alter,
    /// An older message instead: of its own or of somebody else.
    Repeat,
    /// On another channel, or in another session.
    Misplace,
    /// Nothing at all.
    Omit,
    /// Has more than it has, or something else.
    Acknowledge,
    /// Knows more than it knows, or something else.
    Claim,
    /// Many openings.
    Flood,
    /// Somebody else's segments, as if they showed its grant; or one in which it grants itself what it likes.
    Show,
    /// Segments in another order.
    Shuffle,
    /// Events of its own making.
    Forge,
    /// A word that does not belong here.
    Contradict,
    /// A ticket of its own making, in its own name or in that of the owner.
    Invite,
}

const TRICKS: &[Trick] = &[
    Trick::Alter,
    Trick::Repeat,
    Trick::Misplace,
    Trick::Omit,
    Trick::Acknowledge,
    Trick::Claim,
    Trick::Flood,
    Trick::Show,
    Trick::Shuffle,
    Trick::Forge,
    Trick::Forge,
    Trick::Contradict,
    Trick::Invite,
];

/// So many lies, and then the truth only.
const LIES_MAX: u64 = 400;

/// So much of what it heard and said it remembers.
const REMEMBERED_MAX: usize = 64;

/// Something that leaves a node.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) session: SessionId,
    pub(super) channel: Channel,
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

impl Said {
    fn new(session: SessionId, channel: Channel, message: &Message) -> Self {
        Self { session, channel, kind: message.kind(), body: message.body() }
    }
}

#[derive(Debug)]
pub(super) struct Liar {
    chance: Chance,
    /// Numbers this liar's draws.
    entity: u64,
    key: DeviceKey,
    geneses: Vec<Genesis>,
    tricks: Vec<Trick>,
    /// Of a thousand messages, how many are lies.
    rate: u64,
    words: u64,
    lies: u64,
    remembered: VecDeque<(Channel, Message)>,
    segments: VecDeque<(SpaceId, Vec<u8>)>,
    witnesses: VecDeque<Witness>,
    revisions: VecDeque<(SpaceId, Revision)>,
}

impl Liar {
    pub(super) fn new(chance: Chance, node: usize, key: DeviceKey, geneses: Vec<Genesis>) -> Self {
        let entity = (node as u64) << 32;
        let mut draws = chance.draws("liar", entity);
        let share = *draws.pick(&[150, 400, 1000]);
        let mut tricks: Vec<Trick> = TRICKS.iter().copied().filter(|_| draws.yes(share)).collect();
        if tricks.is_empty() {
            tricks.push(*draws.pick(TRICKS));
        }
        let rate = *draws.pick(&[50, 150, 300, 600]);
        let (remembered, segments) = (VecDeque::new(), VecDeque::new());
        let (witnesses, revisions) = (VecDeque::new(), VecDeque::new());
        Self {
            chance,
            entity,
            key,
            geneses,
            tricks,
            rate,
            words: 0,
            lies: 0,
            remembered,
            segments,
            witnesses,
            revisions,
        }
    }

    /// How many things it said that its process did not.
    pub(super) fn lies(&self) -> u64 {
        self.lies
    }

    /// Takes in what came to its node.
    pub(super) fn hear(&mut self, channel: Channel, message: Message) {
        self.remember(channel, message);
    }

    fn remember(&mut self, channel: Channel, message: Message) {
        fn push<T>(list: &mut VecDeque<T>, item: T) {
            if list.len() >= REMEMBERED_MAX {
                list.pop_front();
            }
            list.push_back(item);
        }
        if let (Message::Open(open), Channel::Space(space)) = (&message, channel) {
            push(&mut self.revisions, (space, open.revision.clone()));
        }
        match (&message, channel) {
            (Message::Segments(segments) | Message::Show(segments), Channel::Space(space)) => {
                segments.iter().for_each(|bytes| push(&mut self.segments, (space, bytes.to_vec())));
            }
            (Message::Ack(witnesses), _) => witnesses.iter().for_each(|witness| push(&mut self.witnesses, *witness)),
            (Message::Know(knowledge) | Message::Open(Open { knowledge: Some(knowledge), .. }), _) => {
                let claims = knowledge.ranges().flat_map(|(_, claims)| claims.iter());
                claims.for_each(|witness| push(&mut self.witnesses, witness));
            }
            _ => {}
        }
        push(&mut self.remembered, (channel, message));
    }

    /// What it says when its process says `message`. `sessions` are all that it has.
    pub(super) fn say(
        &mut self,
        sessions: &[SessionId],
        session: SessionId,
        channel: Channel,
        message: &Message,
    ) -> Vec<Said> {
        self.words += 1;
        let mut draws = self.chance.draws("lie", self.entity + self.words);
        self.remember(channel, message.clone());
        let truth = Said::new(session, channel, message);
        if self.lies >= LIES_MAX || !draws.yes(self.rate) {
            return vec![truth];
        }
        let trick = *draws.pick(&self.tricks);
        let said = self.lie(&mut draws, trick, sessions, truth.clone(), message).unwrap_or_else(|| vec![truth]);
        self.lies += said.len() as u64;
        said
    }

    /// What one trick makes of a message; none if there is nothing to make of it.
    fn lie(
        &self,
        draws: &mut Draws,
        trick: Trick,
        sessions: &[SessionId],
        truth: Said,
        message: &Message,
    ) -> Option<Vec<Said>> {
        let session = truth.session;
        let space = match truth.channel {
            Channel::Space(space) => space,
            Channel::Control => self.geneses[pick(draws, self.geneses.len())?].space(),
        };
        let beside = |messages: Vec<Message>| {
            let lies = messages.iter().map(|message| Said::new(session, Channel::Space(space), message));
            Some(std::iter::once(truth.clone()).chain(lies).collect())
        };
        match trick {
            Trick::Alter => Some(vec![altered(draws, truth)]),
            Trick::Omit => Some(Vec::new()),
            Trick::Repeat => {
                let (channel, message) = &self.remembered[pick(draws, self.remembered.len())?];
                let again = Said::new(session, *channel, message);
                Some(if draws.yes(500) { vec![again] } else { vec![truth, again] })
            }
            Trick::Misplace => {
                let elsewhere = self.geneses[pick(draws, self.geneses.len())?].space();
                let channel = if draws.yes(300) { Channel::Control } else { Channel::Space(elsewhere) };
                let other = sessions[pick(draws, sessions.len())?];
                Some(vec![match draws.yes(500) {
                    true => Said { channel, ..truth },
                    false => Said { session: other, ..truth },
                }])
            }
            Trick::Acknowledge => beside(vec![Message::Ack(self.claims(draws))]),
            Trick::Claim => {
                let knowledge = Knowledge::full(self.claims(draws).into_iter().collect::<Claims>());
                let revision = self.revision(draws, space);
                let open =
                    Open { revision, digest: [7; 16], knowledge: Some(knowledge.clone()), answer: draws.yes(300) };
                beside(vec![if draws.yes(500) { Message::Open(open) } else { Message::Know(knowledge) }])
            }
            Trick::Flood => {
                let count = draws.within((2, 40));
                let lies = (0..count).map(|number| {
                    let mut id = *space.as_bytes();
                    id[0] ^= u8::try_from(draws.below(3) * number % 251).unwrap_or(0);
                    let digest = [u8::try_from(draws.below(4)).unwrap_or(0); 16];
                    let revision = self.revision(draws, space);
                    let open = Open { revision, digest, knowledge: None, answer: draws.yes(500) };
                    Said::new(session, Channel::Space(SpaceId::from_bytes(id)), &Message::Open(open))
                });
                Some(lies.collect())
            }
            Trick::Show => {
                let count = draws.within((0, 20));
                let segments =
                    (0..count).filter_map(|_| Some(self.segments[pick(draws, self.segments.len())?].1.clone()));
                let segments: Vec<Vec<u8>> = segments.collect();
                let own = if draws.yes(300) { self.granted_by_itself(space) } else { None };
                let shown = own.map_or(segments, |own| vec![own]);
                beside(vec![Message::Show(shown.into_iter().map(Into::into).collect())])
            }
            Trick::Shuffle => {
                let mut segments: Vec<Vec<u8>> = match message {
                    Message::Segments(segments) => segments.iter().map(|bytes| bytes.to_vec()).collect(),
                    _ => self.segments.iter().map(|(_, bytes)| bytes.clone()).collect(),
                };
                for at in 0..segments.len() {
                    let other = pick(draws, segments.len())?;
                    segments.swap(at, other);
                }
                segments.truncate(1 + pick(draws, segments.len())?);
                let lie = Message::Segments(segments.into_iter().map(Into::into).collect());
                Some(vec![Said::new(session, Channel::Space(space), &lie)])
            }
            Trick::Forge => {
                let (space, bytes) = &self.segments[pick(draws, self.segments.len())?];
                let forged = self.forged(draws, *space, bytes)?;
                let lie = Said::new(session, Channel::Space(*space), &Message::Segments(vec![forged.into()]));
                Some(if draws.yes(500) { vec![lie, truth] } else { vec![truth, lie] })
            }
            Trick::Contradict => {
                let replica = match pick(draws, self.witnesses.len()) {
                    Some(at) => self.witnesses[at].dot.replica,
                    None => ReplicaId::from_bytes([9; 16]),
                };
                let (nonce, spaces) = (draws.below(4), draws.below(4));
                let refusal = *draws.pick(&[Refusal::NotFound, Refusal::Partial]);
                let word = match draws.below(4) {
                    0 => Message::Diverged(replica),
                    1 => Message::Probe(nonce),
                    2 => Message::Probed(Probed { nonce, spaces }),
                    _ => Message::Refuse(refusal),
                };
                beside(vec![word])
            }
            Trick::Invite => {
                let genesis = self.geneses[pick(draws, self.geneses.len())?];
                let ticket = Ticket {
                    id: [8; 16],
                    genesis,
                    role: Role::Owner,
                    uses: 9,
                    expires_ms: u64::MAX,
                    inviter: if draws.yes(500) { genesis.creator } else { self.key.device() },
                    addresses: Vec::new(),
                    name: "mine".to_owned(),
                };
                let ticket = SignedTicket::sign(ticket, &self.key).to_bytes();
                Some(vec![truth, Said::new(session, Channel::Control, &Message::Redeem(ticket.into()))])
            }
        }
    }

    /// Some of what it heard that others know, and what of that it made up.
    fn claims(&self, draws: &mut Draws) -> Vec<Witness> {
        let unknown = Witness { dot: Dot::new(ReplicaId::from_bytes([9; 16]), draws.within((1, 9))), hash: [9; 16] };
        let mut claims: Vec<Witness> = self.witnesses.iter().copied().filter(|_| draws.yes(500)).collect();
        for claim in &mut claims {
            match draws.below(4) {
                0 => claim.dot.counter += draws.within((1, 5)),
                1 => claim.hash[0] ^= 1,
                2 => claim.dot.counter = u64::MAX,
                _ => {}
            }
        }
        claims.extend(draws.yes(300).then_some(unknown));
        claims
    }

    /// A revision of a space that it heard of, or one after it that nobody but itself says to have begun: on no owner's
    /// word, or on one that no owner gave.
    fn revision(&self, draws: &mut Draws, space: SpaceId) -> Revision {
        let heard: Vec<&Revision> = self.revisions.iter().filter(|(of, _)| *of == space).map(|(_, of)| of).collect();
        let heard = pick(draws, heard.len()).map_or_else(Revision::first, |at| heard[at].clone());
        let creator = self.geneses.iter().find(|genesis| genesis.space() == space).map(|genesis| genesis.creator);
        let vouchers = match creator {
            Some(creator) if draws.yes(500) => {
                let mut forged = Voucher::sign(space, self.key.device(), &self.key);
                forged.by = creator;
                vec![forged]
            }
            _ => Vec::new(),
        };
        let next = if draws.yes(300) { heard.next(space, vouchers, &self.key) } else { None };
        next.unwrap_or(heard)
    }

    /// A segment of its own in which it makes itself an owner.
    fn granted_by_itself(&self, space: SpaceId) -> Option<Vec<u8>> {
        let genesis = *self.geneses.iter().find(|genesis| genesis.space() == space)?;
        let first = Ledger::first_batch(self.key.device(), self.chance.draw("own ledger", self.entity, 0));
        let store = MemoryStore::new();
        store.commit(&mut |_| Ok(first.clone())).ok()?;
        let ledger = Ledger::open(Arc::new(store), self.key.clone()).ok()?;
        ledger.commit(&[Work::Create { genesis, name: "mine".to_owned() }], 0, 0).ok()?;
        let log = ledger.view(space).ok()??.log_after(&VersionVector::new(), 1).ok()?;
        Some(log.first()?.bytes.to_vec())
    }

    /// A segment that only looks like one of `bytes`, signed as its own.
    fn forged(&self, draws: &mut Draws, space: SpaceId, bytes: &[u8]) -> Option<Vec<u8>> {
        let segment = Segment::verify(space, 1, bytes.into()).ok()?;
        let event = &segment.events()[0];
        let mut forged = bytes.to_vec();
        match draws.below(5) {
            // What somebody else wrote, as its own.
            0 => {}
            // Another depth, mostly one that cannot be. After the hash of the event before stand the number of events and the length of
            // the first one's header, each in one byte if it is short, and then the depth.
            1 => {
                let at = place_of(bytes, event.previous.as_bytes())? + 32;
                let is_short = |at: usize| bytes.get(at).is_some_and(|byte| *byte < 251);
                if !is_short(at) || !is_short(at + 1) || !is_short(at + 2) {
                    return None;
                }
                let depth = u64::from(bytes[at + 2]);
                let depth = *draws.pick(&[1, depth.saturating_sub(1), depth + 1, depth + 3, 250]);
                forged[at + 2] = u8::try_from(depth.min(250)).unwrap_or(250);
            }
            // A witness that nobody has.
            2 => {
                let named: Vec<&Witness> = event.dependencies.iter().chain(&event.witnesses).collect();
                let hash = named[pick(draws, named.len())?].hash;
                forged[place_of(bytes, &hash)?] ^= 1;
            }
            // Another content: what is in the body of the last event, before the signature.
            3 => {
                let at = bytes.len().checked_sub(65 + pick(draws, 12)?)?;
                forged[at] ^= 1;
            }
            // Anything.
            _ => {
                let at = pick(draws, bytes.len().checked_sub(64)?)?;
                forged[at] ^= 1 << draws.below(8);
            }
        }
        Segment::resign(space, 1, &self.key, &forged)
    }
}

/// A place among so many; none if there is none.
fn pick(draws: &mut Draws, count: usize) -> Option<usize> {
    usize::try_from(draws.below(count as u64)).ok().filter(|at| *at < count)
}

fn place_of(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Bits flipped, cut, doubled, or of another kind.
fn altered(draws: &mut Draws, mut said: Said) -> Said {
    match draws.below(8) {
        0 => said.body.truncate(pick(draws, said.body.len()).unwrap_or(0)),
        1 => said.body.extend_from_within(..),
        2 => said.kind ^= 1 << draws.below(6),
        _ => {
            for _ in 0..draws.within((1, 3)) {
                if let Some(at) = pick(draws, said.body.len()) {
                    said.body[at] ^= 1 << draws.below(8);
                }
            }
        }
    }
    said
}
