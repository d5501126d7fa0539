//! How far each client is, for those who run the relay.
//!
//! Sync points need no memory of clients; this is for people only, and is gone when the relay stops.
//!
//! **Invariant**: so many clients are remembered and no more, however many names strangers think of; the one that was not
//! heard of for longest is forgotten first.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::problem::Problem;
use super::sync_point::Phase;
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::SpaceId;

/// So many clients are remembered.
const CLIENTS_MAX: usize = 10_000;
/// The longest name of a client, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 128;
/// Who asks so often from one place although there is more does not get on.
const REPEATS_MAX: u32 = 3;

/// What is remembered of the clients.
#[derive(Debug, Default)]
pub struct Clients(BTreeMap<(SpaceId, String), Client>);

#[derive(Debug)]
struct Client {
    seen_ms: u64,
    /// From where it asked last, and to where that led it.
    from: Phase,
    to: Phase,
    more: bool,
    /// How often it asked again from the same place although there was more.
    repeats: u32,
    requests: u64,
}

impl Clients {
    /// Notes that a client asked from `from`, was led to `to`, and was told that there is `more`, or not.
    pub fn note(&mut self, space: SpaceId, name: &str, now_ms: u64, (from, to): (&Phase, &Phase), more: bool) {
        let key = (space, name.to_owned());
        if !self.0.contains_key(&key) && self.0.len() >= CLIENTS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, client)| client.seen_ms).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        let before = self.0.get(&key);
        let repeats = before
            .filter(|before| before.from == *from && before.more)
            .map_or(0, |before| before.repeats.saturating_add(1));
        let requests = before.map_or(1, |before| before.requests.saturating_add(1));
        let (from, to) = (from.clone(), to.clone());
        self.0.insert(key, Client { seen_ms: now_ms, from, to, more, repeats, requests });
    }
}

impl Relay {
    /// Notes where a client is.
    pub(super) fn note_client(&self, access: &Access, name: Option<&str>, led: (&Phase, &Phase), more: bool) {
        let name = name.unwrap_or(access.principal.name());
        let now_ms = self.node.surroundings().wall_ms();
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clients.note(access.database.space, name, now_ms, led, more);
    }

    /// The clients of a database that were heard of since the relay started.
    pub fn clients(&self, access: &Access) -> Result<Json, Problem> {
        let view = self.view(access)?;
        let failed = |error: crate::store::StoreError| node_problem(error.into());
        let (top, horizon) = (view.position().map_err(failed)?, view.horizon().map_err(failed)?);
        let clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let space = access.database.space;
        let of_space = clients.0.range((space, String::new())..).take_while(|((of, _), _)| *of == space);
        let told = of_space.map(|((_, name), client)| {
            let (phase, position, rows_done) = match &client.to {
                Phase::Initial { position, rows_done, .. } => ("initial", *position, Some(*rows_done)),
                Phase::Live { position, .. } => ("live", *position, None),
                Phase::Deletions { position, .. } => ("deletions", *position, None),
            };
            let reason = if position < horizon {
                Some("it was away for longer than deletions are told of some table; if it follows that, it has to begin anew")
            } else if client.repeats >= REPEATS_MAX {
                Some("it asks from the same place again and again: it does not keep the token that it is given")
            } else {
                None
            };
            json!({
                "client": name,
                "last_seen_ms": client.seen_ms,
                "phase": phase,
                "position": position,
                "rows_behind": top.saturating_sub(position),
                "rows_done": rows_done,
                "more": client.more,
                "requests": client.requests,
                "reason": reason,
            })
        });
        Ok(json!({"clients": told.collect::<Vec<_>>(), "version": top, "epoch": self.epoch_text()}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_no_memory_and_those_who_do_not_get_on_are_counted() {
        let mut clients = Clients::default();
        let (space, at) = (SpaceId::from_bytes([1; 16]), |position| Phase::Live { position, high: 9 });
        let mut asks = |name: &str, from: u64, to: u64| {
            clients.note(space, name, 1 << 40, (&at(from), &at(to)), to < 9);
            clients.0[&(space, name.to_owned())].repeats
        };
        for _ in 0..4 {
            asks("stuck", 1, 2);
        }
        assert_eq!(asks("stuck", 1, 2), 4);
        assert_eq!(asks("stuck", 2, 9), 0, "it gets on");
        assert_eq!([asks("stuck", 9, 9), asks("stuck", 9, 9)], [0, 0], "it has everything, and asks for more");
        for n in 0..CLIENTS_MAX as u64 + 50 {
            clients.note(space, &format!("c{n}"), n, (&at(1), &at(1)), true);
        }
        assert_eq!(clients.0.len(), CLIENTS_MAX);
        assert!(clients.0.contains_key(&(space, "stuck".to_owned())), "it was heard of last");
    }
}
