//! No trespass: nothing is read, written or forwarded without a grant that holds.
//!
//! What is checked, of every node that is not hostile itself:
//!
//! - **Reading and forwarding**, at every message that a node sends on a space's channel and that tells anything of the
//!   space (Open, Know, Segments, Ack, Diverged, Probed): the receiver's device has a role in the access that lies on the
//!   sender's disk, or it showed in this session that it has one. What it showed counts if it holds against
//!   everything that was ever written anywhere: a grant to that device by somebody who owned the space when it was
//!   written.
//! - **Holding**, at the end: whoever holds a space was once granted a role in it, or created it.
//! - **Writing**, at the end, for every event of every disk: its author's device was granted in the event's own causal
//!   past what the event does: to own the space if it touches the node's own collections, to write it otherwise.
//!   The creator owns, and so does whoever began that revision of the space. The grants of that past are on the same disk, so who wrote them is checked in the same way.
//!   A hostile author says of the past of its events what it likes: for those, the grant stands before the event in
//!   the log of each disk.
//!
//! - **Granting**, at the end, for every event of every disk whose author is honest: nobody is granted what no user
//!   invited them to.
//!
//! Grants are read from the mutations themselves, and the strongest that was ever written counts: no scenario takes a
//! grant away yet. A refusal may tell no more than that: whoever has no role hears the same of a space that is there as
//! of one that is not. Probes, and what a node shows of its own grants, are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thence::causal::EventHash;
use thence::model::{Access, CollectionName, Content, DeviceId, Event, Grant, Role, Segment, Slot, SpaceId, Value};
use thence::replica::{Message, Refusal, SessionId};

use super::{Era, History, Shelf, Verdict, broken};

const INVARIANT: &str = "no trespass";

/// What peers showed to whom, by session, receiving node and era.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(BTreeSet<(SessionId, usize, Era)>);

impl Shown {
    /// Takes in what `peer` sent to a node. It counts in the era of which it is, which may be a later one than the node's:
    /// the node is going over to it then.
    pub(crate) fn hear(
        &mut self,
        history: &History,
        (session, node, space): (SessionId, usize, SpaceId),
        peer: DeviceId,
        message: &Message,
    ) {
        let Message::Show(segments) = message else { return };
        let begun = history.begun.keys().copied().filter(|era| era.space == space);
        let verify = |era: Era| {
            let last = Segment::verify(era.space, era.revision, Arc::from(segments.last()?.as_ref())).ok()?;
            Some((era, last))
        };
        let Some((era, last)) = [Era::first(space)].into_iter().chain(begun).find_map(verify) else { return };
        let grants = |event: &Event| {
            let owner = || role(history, era, &past(history, era, event.hash), last.author().device);
            grants(event).any(|(device, _)| device == peer) && owner() == Some(Role::Owner)
        };
        if last.events().iter().any(grants) {
            self.0.insert((session, node, era));
        }
    }

    /// Whether a node may say `message` of a space to the device `peer`. `access` is that of its disk, if that is in the
    /// era that it speaks of; otherwise any grant that there was before counts.
    pub(crate) fn check_said(
        &self,
        history: &History,
        (session, node, era): (SessionId, usize, Era),
        access: Option<Option<&Access>>,
        peer: DeviceId,
        message: &Message,
    ) -> Verdict {
        let tells = matches!(
            message,
            Message::Open(_)
                | Message::Know(_)
                | Message::Segments(_)
                | Message::Ack(_)
                | Message::Diverged(_)
                | Message::Probed(_)
        );
        let refuses = matches!(message, Message::Refuse(refusal) if *refusal != Refusal::NotFound);
        if !(tells || refuses) || self.0.contains(&(session, node, era)) {
            return Ok(());
        }
        let ever = || role_until(history, era.space, era.revision, peer);
        // Whoever was a member before a wipe is told of it before the grants of the new revision have come.
        let may_see = |access: Option<&Access>| {
            access.is_some_and(|access| access.role(peer).is_some() || access.may_see(peer) && ever().is_some())
        };
        if access.map_or_else(|| ever().is_some(), may_see) {
            return Ok(());
        }
        let space = era.space;
        broken(INVARIANT, format!("{space:?} is spoken of to {peer}, which has no role there: {message:?}"))
    }
}

/// Whether a device that holds `shelf` may hold that space, and everything in it was granted when it was written.
pub(crate) fn check_disk(history: &History, space: SpaceId, owner: DeviceId, shelf: &Shelf) -> Verdict {
    let era = shelf.era(space);
    if role_until(history, space, u64::MAX, owner).is_none() {
        return broken(INVARIANT, format!("{space:?} lies on the disk of {owner}, which nobody ever granted a role"));
    }
    let mut before: BTreeSet<EventHash> = BTreeSet::new();
    for hash in &shelf.log {
        let Some(told) = history.events.get(&(era, *hash)) else { continue };
        let (device, dot) = (told.author.device, told.event.dot);
        let reserved = told.event.mutations.iter().any(|mutation| mutation.collection.is_reserved());
        let needed = if reserved { Role::Owner } else { Role::Writer };
        let past = if history.hostile.contains(&device) { &before } else { &told.past };
        let role = role(history, era, past, device);
        if role < Some(needed) {
            let role = role.map_or_else(|| "nothing".to_owned(), |role| role.to_string());
            return broken(
                INVARIANT,
                format!("{dot:?} needs {needed}, and its author was granted {role} when it wrote"),
            );
        }
        let uninvited = |(to, role): &(DeviceId, Role)| {
            let by_creator = history.creators.get(&space) == Some(to);
            !by_creator && !history.invited.contains(&(space, *to, *role)) && !history.hostile.contains(&device)
        };
        if let Some((to, role)) = grants(&told.event).find(uninvited) {
            return broken(INVARIANT, format!("{dot:?} makes {to} {role}, whom nobody invited"));
        }
        before.insert(*hash);
    }
    Ok(())
}

fn past(history: &History, era: Era, event: EventHash) -> BTreeSet<EventHash> {
    history.events.get(&(era, event)).map(|told| told.past.clone()).unwrap_or_default()
}

/// Whether anybody ever made a device an owner before this era.
pub(super) fn was_owner(history: &History, era: Era, device: DeviceId) -> bool {
    role_until(history, era.space, era.revision - 1, device) == Some(Role::Owner)
}

/// The strongest role that a device was granted in any revision of a space up to this one.
fn role_until(history: &History, space: SpaceId, revision: u64, device: DeviceId) -> Option<Role> {
    if history.creators.get(&space) == Some(&device) {
        return Some(Role::Owner);
    }
    let eras = (Era::first(space), EventHash::from_bytes([0; 32]))..;
    let told = history.events.range(eras).take_while(|((era, _), _)| era.space == space && era.revision <= revision);
    told.flat_map(|(_, told)| grants(&told.event)).filter(|(to, _)| *to == device).map(|(_, role)| role).max()
}

/// The strongest role that a device was granted by any of these events.
fn role(history: &History, era: Era, events: &BTreeSet<EventHash>, device: DeviceId) -> Option<Role> {
    let began = history.begun.get(&era).is_some_and(|began| began.contains(&device));
    if began || history.creators.get(&era.space) == Some(&device) {
        return Some(Role::Owner);
    }
    let told = events.iter().filter_map(|hash| history.events.get(&(era, *hash)));
    told.flat_map(|told| grants(&told.event)).filter(|(to, _)| *to == device).map(|(_, role)| role).max()
}

/// What an event grants to whom.
fn grants(event: &Event) -> impl Iterator<Item = (DeviceId, Role)> + '_ {
    let collection = CollectionName::grants();
    event.mutations.iter().filter(move |mutation| mutation.collection == collection).flat_map(|mutation| {
        let device: Option<DeviceId> = mutation.key.as_str().parse().ok();
        let device = device.filter(|device| Grant::key(*device) == mutation.key);
        let granted = mutation.edits.iter().filter_map(|edit| match (&edit.slot, &edit.add) {
            (Slot::Register(path), Some(Content::Value(Value::Text(text)))) if path.to_string() == "role" => {
                text.parse().ok()
            }
            _ => None,
        });
        granted.filter_map(move |role| Some((device?, role)))
    })
}

/// Who was invited by a user to which space, to become what.
pub(crate) type Invited = BTreeSet<(SpaceId, DeviceId, Role)>;

/// Who created each space.
pub(crate) type Creators = BTreeMap<SpaceId, DeviceId>;
