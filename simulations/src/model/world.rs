//! All nodes in all states that they were ever seen in, and each step that one of them takes, taken once.
//!
//! A node's step depends on the node alone, and so does what it sends. So a step that occurs in a thousand worlds is
//! computed in one of them (Guerraoui, Yabandeh, *Model Checking a Networked System Without the Network*, NSDI 2011,
//! which explores the nodes apart from the network altogether; here the network stays, and decides what is explored).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use thence::model::{DeviceKey, Genesis, Role, SpaceId};
use thence::replica::SessionId;

use super::failure::{At, Failure};
use super::line::Lane;
use super::local::{Act, Local};
use super::platter::{Platter, content};
use super::pool::{Digest, Pool, digest_bytes};
use super::turn::Turn;
use crate::oracles::History;
use crate::world::{Chance, Scenario, What};

/// A message, as it travels.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

/// What one step of one node comes to.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) after: u32,
    /// Sent on which session and lane: which message.
    pub(super) sent: Vec<(SessionId, Lane, u32)>,
}

pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) chance: Chance,
    pub(super) keys: Vec<DeviceKey>,
    pub(super) spaces: Vec<(SpaceId, Genesis)>,
    pub(super) history: History,
    pub(super) frames: Pool<Digest, Frame>,
    pub(super) platters: Pool<Digest, Platter>,
    pub(super) locals: Pool<Digest, Local>,
    steps: BTreeMap<(u32, Act), Rc<Step>>,
    /// Everything that was ever seen, in order.
    pub(super) seen: blake3::Hasher,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let chance = Chance::new(scenario.seed);
        let key = |node: usize| DeviceKey::from_secret(&chance.bytes("device key", node as u64));
        let keys: Vec<DeviceKey> = (0..scenario.nodes).map(key).collect();
        let mut history = History::default();
        history.of_many_worlds = true;
        for item in &scenario.items {
            if let What::PutBack { node } = item.what {
                history.copied.insert(keys[node].device());
            }
        }
        let spaces = (0..scenario.spaces).map(|number| {
            let mut nonce = [0; 16];
            nonce.copy_from_slice(&chance.bytes("genesis", number as u64)[..16]);
            let genesis = Genesis { creator: keys[0].device(), nonce };
            history.creators.insert(genesis.space(), genesis.creator);
            (genesis.space(), genesis)
        });
        let spaces = spaces.collect();
        Self {
            scenario,
            chance,
            keys,
            spaces,
            history,
            frames: Pool::new(),
            platters: Pool::new(),
            locals: Pool::new(),
            steps: BTreeMap::new(),
            seen: blake3::Hasher::new(),
        }
    }

    /// A node with an empty disk and no process.
    pub(super) fn first(&mut self, node: usize) -> Result<u32, Failure> {
        let nonce = self.chance.draw("incarnation", node as u64, 0);
        let platter = Platter::new(node, &self.keys[node], nonce)?;
        let platter = self.platters.add(content(&platter.disk).at(node)?, platter);
        let acknowledged = BTreeSet::new();
        Ok(self.add(Local { node, platter, process: None, acknowledged, image: None, renewals: 0 }))
    }

    pub(super) fn add(&mut self, local: Local) -> u32 {
        let (digest, before) = (local.digest(), self.locals.len());
        let number = self.locals.add(digest, local);
        if self.locals.len() > before {
            self.seen.update(&digest);
        }
        number
    }

    pub(super) fn add_frame(&mut self, kind: u8, body: Vec<u8>) -> u32 {
        let digest = digest_bytes([&[kind][..], &body]);
        let before = self.frames.len();
        let number = self.frames.add(digest, Frame { kind, body });
        if self.frames.len() > before {
            self.seen.update(&digest);
        }
        number
    }

    /// What comes of an act of a node in this state.
    pub(super) fn step(&mut self, local: u32, act: Act) -> Result<Rc<Step>, Failure> {
        if let Some(step) = self.steps.get(&(local, act)) {
            return Ok(Rc::clone(step));
        }
        let step = Rc::new(Turn::take(self, local, act)?);
        self.steps.insert((local, act), Rc::clone(&step));
        Ok(step)
    }

    /// How many steps were computed.
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn edge_of(session: SessionId) -> usize {
        usize::try_from(session.0 >> 32).unwrap_or_default()
    }

    /// The other end of a session.
    pub(super) fn peer(&self, session: SessionId, node: usize) -> usize {
        let (dialer, listener) = self.scenario.edges[Self::edge_of(session)];
        if dialer == node { listener } else { dialer }
    }

    /// The space of a lane, or the lane of a space.
    pub(super) fn space(&self, lane: Lane) -> Option<SpaceId> {
        Some(self.spaces.get(usize::from(lane).checked_sub(1)?)?.0)
    }

    /// Who must hold a space in the end: node 0, and whoever redeems a ticket of an owner that it is connected to.
    pub(super) fn members(&self, space: usize) -> BTreeSet<usize> {
        let edges = &self.scenario.edges;
        let (mut members, mut owners) = (BTreeSet::from([0]), BTreeSet::from([0]));
        loop {
            let before = (members.len(), owners.len());
            for item in &self.scenario.items {
                if let What::Redeem { node, space: of, from, role } = item.what
                    && of == space
                    && owners.contains(&from)
                    && (edges.contains(&(node, from)) || edges.contains(&(from, node)))
                {
                    members.insert(node);
                    if role == Role::Owner {
                        owners.insert(node);
                    }
                }
            }
            if before == (members.len(), owners.len()) {
                return members;
            }
        }
    }
}
