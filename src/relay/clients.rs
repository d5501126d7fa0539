//! How far each client is, for those who run the relay.
//!
//! Sync points need no memory of clients; this is for people only, and is gone when the relay stops.
//!
//! **Invariant**: so many clients are remembered of a database, so many in all, and no more, however many names strangers
//! think of. Of whichever database has most the one is forgotten that was not heard of for longest, so names that are
//! thought of for one database make the relay forget no clients of others as long as those have fewer. Nobody speaks for
//! the client of another token.
//!
//! What it does not do: tell clients apart that come with one token and one `Client-Id`, or with none: they show as one,
//! which may seem to go back and forth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use serde_json::{Value as Json, json};

use super::problem::Problem;
use super::sync_point::Phase;
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::{CollectionName, ObjectKey, SpaceId};

/// So many clients are remembered.
const CLIENTS_MAX: usize = 10_000;
/// So many of one database.
const DATABASE_CLIENTS_MAX: usize = 1_000;
/// The longest name of a client, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 128;
/// Who asks so often from where it had been led on does not keep what it is given.
const REPEATS_MAX: u32 = 3;
/// Who is told that there is more is to ask for it within this time.
const MORE_WITHIN_MS: u64 = 60_000;

/// With which token a client comes, and what it calls itself.
type ClientKey = (String, String);

/// What is remembered of the clients.
#[derive(Debug, Default)]
pub struct Clients {
    databases: BTreeMap<SpaceId, OfDatabase>,
    /// The databases, those with fewest clients first.
    sizes: BTreeSet<(usize, SpaceId)>,
    clients: usize,
    /// So many requests came so far; which came later is known by that.
    requests: u64,
}

#[derive(Debug, Default)]
struct OfDatabase {
    clients: BTreeMap<ClientKey, Client>,
    /// Who asked last in that request.
    latest: BTreeMap<u64, ClientKey>,
}

/// Where a client asked from, and where that led it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Led<'a> {
    pub(super) from: &'a Phase,
    pub(super) to: &'a Phase,
    /// Whether it was told that there is more.
    pub(super) more: bool,
    /// How many rows it still lacks that are being told from the beginning.
    pub(super) rows_left: u64,
}

/// A place from which a client asks. What was written meanwhile makes no other one of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// After that row of all rows, or before the first one.
    Row(Option<(CollectionName, ObjectKey)>),
    /// After that position of the feed.
    Position(u64),
}

impl Place {
    fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Initial { after, .. } => Self::Row(after.clone()),
            Phase::Live { position, .. } | Phase::Deletions { position, .. } => Self::Position(*position),
        }
    }
}

#[derive(Debug)]
struct Client {
    seen_ms: u64,
    /// In which request it was heard of last, and how many were its own.
    latest: u64,
    requests: u64,
    from: Place,
    to: Phase,
    more: bool,
    rows_left: u64,
    /// How often in a row it asked again from where it had been led on.
    repeats: u32,
    /// Where it went back to instead of going on, and how often, since it last came back with the token that ended a
    /// round: whoever does that keeps its tokens.
    returned: Option<(Place, u32)>,
}

impl Client {
    fn position(&self) -> u64 {
        match self.to {
            Phase::Initial { position, .. } | Phase::Live { position, .. } | Phase::Deletions { position, .. } => {
                position
            }
        }
    }

    /// Why it does not get on.
    fn reason(&self, horizon: u64, now_ms: u64) -> Option<&'static str> {
        if self.position() < horizon {
            Some(
                "what it would go on from is told no longer, after a wipe or of some table: if it follows that, it begins anew",
            )
        } else if self.repeats >= REPEATS_MAX {
            Some("it asks from the same place again and again: it does not keep the token that it is given")
        } else if self.returned.as_ref().is_some_and(|(_, times)| *times >= REPEATS_MAX) {
            Some("it goes back to the same place again and again: it does not keep the token that a round ends with")
        } else if self.more && now_ms.saturating_sub(self.seen_ms) > MORE_WITHIN_MS {
            Some("it was told that there is more, and has not asked for it")
        } else {
            None
        }
    }
}

impl OfDatabase {
    fn forget_oldest(&mut self) {
        let oldest = self.latest.pop_first();
        oldest.and_then(|(_, key)| self.clients.remove(&key));
    }
}

impl Clients {
    /// Notes that a client was led somewhere.
    fn note(&mut self, space: SpaceId, key: ClientKey, now_ms: u64, led: Led<'_>) {
        self.requests += 1;
        let latest = self.requests;
        let from = Place::of(led.from);
        self.resize(space, |of| {
            let before = of.clients.remove(&key);
            before.as_ref().and_then(|before| of.latest.remove(&before.latest));
            let requests = before.as_ref().map_or(1, |before| before.requests.saturating_add(1));
            let (repeats, returned) = match before {
                None => (0, None),
                Some(before) if from == Place::of(&before.to) => (0, before.returned.filter(|_| before.more)),
                Some(before) if from == before.from => (before.repeats.saturating_add(1), before.returned),
                Some(before) => {
                    let again = before.returned.filter(|(place, _)| *place == from);
                    (0, Some((from.clone(), again.map_or(1, |(_, times)| times.saturating_add(1)))))
                }
            };
            let Led { to, more, rows_left, .. } = led;
            let client =
                Client { seen_ms: now_ms, latest, requests, from, to: to.clone(), more, rows_left, repeats, returned };
            of.clients.insert(key.clone(), client);
            of.latest.insert(latest, key);
            if of.clients.len() > DATABASE_CLIENTS_MAX {
                of.forget_oldest();
            }
        });
        if self.clients > CLIENTS_MAX
            && let Some((_, space)) = self.sizes.last().copied()
        {
            self.resize(space, OfDatabase::forget_oldest);
        }
    }

    /// Changes what is remembered of a database, and counts anew how many that are.
    fn resize(&mut self, space: SpaceId, change: impl FnOnce(&mut OfDatabase)) {
        let of = self.databases.entry(space).or_default();
        let before = of.clients.len();
        change(of);
        let after = of.clients.len();
        self.clients = self.clients + after - before;
        self.sizes.remove(&(before, space));
        if after == 0 {
            self.databases.remove(&space);
        } else {
            self.sizes.insert((after, space));
        }
    }
}

impl Relay {
    /// Notes where a client is.
    pub(super) fn note_client(&self, access: &Access, name: Option<&str>, led: Led<'_>) {
        let principal = access.principal.name();
        let key = (principal.to_owned(), name.unwrap_or(principal).to_owned());
        let now_ms = self.node.surroundings().wall_ms();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.note(access.database.space, key, now_ms, led);
    }

    /// The clients of a database that were heard of since the relay started.
    pub fn clients(&self, access: &Access) -> Result<Json, Problem> {
        let view = self.view(access)?;
        let failed = |error: crate::store::StoreError| node_problem(error.into());
        let (top, horizon) = (view.position().map_err(failed)?, view.horizon().map_err(failed)?);
        let now_ms = self.node.surroundings().wall_ms();
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let of_database = clients.databases.get(&access.database.space);
        let mut stuck = 0;
        let tell = |((by, name), client): (&ClientKey, &Client)| {
            let (phase, rows_done) = match &client.to {
                Phase::Initial { rows_done, .. } => ("initial", Some(*rows_done)),
                Phase::Live { .. } => ("live", None),
                Phase::Deletions { .. } => ("deletions", None),
            };
            let (position, reason) = (client.position(), client.reason(horizon, now_ms));
            stuck += u64::from(reason.is_some());
            json!({
                "client": name,
                "by": by,
                "last_seen_ms": client.seen_ms,
                "phase": phase,
                "position": position,
                "rows_behind": top.saturating_sub(position).saturating_add(client.rows_left),
                "rows_done": rows_done,
                "more": client.more,
                "requests": client.requests,
                "repeats": client.repeats,
                "reason": reason,
            })
        };
        let told: Vec<Json> = of_database.into_iter().flat_map(|of| &of.clients).map(tell).collect();
        Ok(json!({"clients": told, "stuck": stuck, "version": top, "epoch": self.epoch_text()}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1 << 40;

    fn space(number: u8) -> SpaceId {
        SpaceId::from_bytes([number; 16])
    }

    fn key(name: impl ToString) -> ClientKey {
        ("token".to_owned(), name.to_string())
    }

    fn live(position: u64) -> Phase {
        Phase::Live { position, high: 9 }
    }

    fn initial(after: Option<&str>, position: u64) -> Phase {
        let table = CollectionName::user("t").expect("a name");
        let after = after.map(|key| (table, key.parse().expect("a key")));
        Phase::Initial { after, position, rows_done: 0, bytes_done: 0 }
    }

    /// Why a client does not get on that was led so.
    fn reason(led: &[(Phase, Phase, bool)]) -> Option<&'static str> {
        let mut clients = Clients::default();
        for (from, to, more) in led {
            clients.note(space(1), key("c"), NOW_MS, Led { from, to, more: *more, rows_left: 0 });
        }
        clients.databases[&space(1)].clients[&key("c")].reason(0, NOW_MS)
    }

    #[test]
    fn who_does_not_get_on_is_told_from_who_does() {
        let stuck = || (live(1), live(2), true);
        assert_eq!(reason(&[stuck(), stuck(), stuck()]), None, "an answer can get lost");
        assert!(reason(&[stuck(), stuck(), stuck(), stuck()]).is_some());
        assert_eq!(reason(&[stuck(), stuck(), stuck(), stuck(), (live(2), live(9), false)]), None, "it gets on");
        let idle = || (live(9), live(9), false);
        assert_eq!(reason(&[idle(), idle(), idle(), idle()]), None, "it has everything, and asks for more");
        // Without a token, whatever was written meanwhile.
        let anew: Vec<_> = (1..=4).map(|position| (initial(None, position), live(position), false)).collect();
        assert!(reason(&anew).is_some());
        let paged = |position| {
            [
                (initial(None, position), initial(Some("m"), position), true),
                (initial(Some("m"), position), live(position), false),
            ]
        };
        assert!(reason(&(1..=4).flat_map(paged).collect::<Vec<_>>()).is_some());
        // A client that begins anew for a reason comes back with what it was given in the end.
        let whole = |position| paged(position).into_iter().chain([(live(position), live(position), false)]);
        assert_eq!(reason(&(1..=4).flat_map(whole).collect::<Vec<_>>()), None);
    }

    #[test]
    fn who_ignores_that_there_is_more_is_told_of_after_a_while() {
        let mut clients = Clients::default();
        clients.note(space(1), key("c"), NOW_MS, Led { from: &live(1), to: &live(2), more: true, rows_left: 0 });
        let client = &clients.databases[&space(1)].clients[&key("c")];
        assert_eq!(client.reason(0, NOW_MS + MORE_WITHIN_MS), None);
        assert!(client.reason(0, NOW_MS + MORE_WITHIN_MS + 1).is_some());
    }

    #[test]
    fn strangers_fill_no_memory_and_take_no_place_of_other_databases() {
        let mut clients = Clients::default();
        let (from, to) = (live(1), live(1));
        let hear = |clients: &mut Clients, database: u8, name: String| {
            clients.note(space(database), key(name), NOW_MS, Led { from: &from, to: &to, more: false, rows_left: 0 });
        };
        hear(&mut clients, 1, "quiet".to_owned());
        for number in 0..2 * DATABASE_CLIENTS_MAX {
            hear(&mut clients, 2, "known".to_owned());
            hear(&mut clients, 2, number.to_string());
        }
        assert_eq!(clients.databases[&space(2)].clients.len(), DATABASE_CLIENTS_MAX);
        assert!(clients.databases[&space(2)].clients.contains_key(&key("known")), "it was heard of just before");
        for database in 3..20 {
            (0..DATABASE_CLIENTS_MAX).for_each(|number| hear(&mut clients, database, number.to_string()));
        }
        assert_eq!(clients.clients, CLIENTS_MAX);
        let remembered = clients.databases.values();
        assert_eq!(
            remembered.map(|of| (of.clients.len(), of.latest.len())).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (CLIENTS_MAX, CLIENTS_MAX)
        );
        assert!(clients.databases[&space(1)].clients.contains_key(&key("quiet")), "its database has one client");
        assert_eq!(clients.sizes.len(), clients.databases.len());
    }
}
