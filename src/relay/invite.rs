//! Tickets, with which full nodes join a database over QUIC.
//!
//! **Invariant**: a ticket that is made here is remembered before it is handed out and until its time is over, and none is
//! made that, with the devices there are and all that open tickets still let in, could exceed the quota. How often one was
//! used is known from who was let in.
//!
//! What it does not do: count tickets that other owners sign on their own devices, nor refuse who comes with one.

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};

use super::audit::Deed;
use super::policy::Policy;
use super::problem::Problem;
use super::quota::used_up;
use super::tenant::{Database, Tenants, collection, internal, key_within, node_problem};
use super::{Access, Relay};
use crate::model::{Operation, Request, SignedTicket, Ticket, TicketId};
use crate::node::{Invitation, Transaction};
use crate::store::Upload;

/// What the collection is called.
const TABLE: &str = "tickets";

/// A ticket that was made.
struct Made {
    key: String,
    id: TicketId,
    uses: u64,
    expires_ms: u64,
}

impl Tenants {
    /// The tickets to a database that are remembered.
    fn tickets(&self, database: &Database) -> Result<Vec<Made>, Problem> {
        let beginning = key_within(database, "");
        let read = |(key, record): (String, Json)| {
            let id = HEXLOWER.decode(key.strip_prefix(&beginning)?.as_bytes()).ok()?.try_into().ok()?;
            let number = |name: &str| record.get(name).and_then(Json::as_u64);
            Some(Made { key, id, uses: number("uses")?, expires_ms: number("expires_ms")? })
        };
        Ok(self.records(TABLE, &beginning)?.into_iter().filter_map(read).collect())
    }

    /// The same as they are kept, with their ids.
    pub(super) fn tickets_kept(&self, database: &Database) -> Result<Vec<Json>, Problem> {
        let beginning = key_within(database, "");
        let with_id = |(key, mut record): (String, Json)| {
            record["ticket"] = key.strip_prefix(&beginning)?.into();
            Some(record)
        };
        Ok(self.records(TABLE, &beginning)?.into_iter().filter_map(with_id).collect())
    }

    /// Remembers and notes a ticket that was made, and forgets those whose time is over.
    pub async fn note_ticket(&self, database: &Database, by: &str, ticket: &Ticket) -> Result<(), Problem> {
        let key = key_within(database, &HEXLOWER.encode(&ticket.id));
        let fields = json!({"uses": ticket.uses, "expires_ms": ticket.expires_ms});
        let (done, deed) = (Transaction::new().put(TABLE, &key, fields), Deed::invite(database, ticket));
        self.write(done.and_then(|done| self.noted(done, Some(&database.customer), by, &deed))).await?;
        let now_ms = self.node().surroundings().wall_ms();
        let (table, mut parts) = (collection(TABLE)?, Vec::new());
        for Made { key, .. } in self.tickets(database)?.into_iter().filter(|made| made.expires_ms <= now_ms) {
            let key = key.parse().map_err(|error| internal(&error))?;
            let request = Request { collection: table.clone(), key, operation: Operation::Delete };
            parts.push(vec![Upload::new(request)]);
        }
        // What is not forgotten now, or somebody else forgot first, matters to nobody.
        drop(self.node().upload(self.system(), parts).await);
        Ok(())
    }
}

impl Relay {
    /// Makes a ticket to a database, if there is room for all whom it lets in.
    pub async fn invite(&self, access: &Access, invitation: &Invitation) -> Result<SignedTicket, Problem> {
        let database = &access.database;
        let _turn = self.quotas.turn(database.space).await;
        if let Some(quota) = self.policies(access, None)?.quota(Policy::Devices) {
            let (view, now_ms) = (self.view(access)?, self.node.surroundings().wall_ms());
            // This relay is one of them, and counts for nobody.
            let mut used = view.devices().len().saturating_sub(1) as u64;
            for Made { id, uses, .. } in
                self.tenants.tickets(database)?.into_iter().filter(|made| made.expires_ms > now_ms)
            {
                used = used.saturating_add(uses.saturating_sub(view.redeemed(id)));
            }
            if used.saturating_add(u64::from(invitation.uses)) > quota {
                return Err(used_up(Policy::Devices, used, quota));
            }
        }
        let ticket = self.node.invite(database.space, invitation).map_err(node_problem)?;
        self.tenants.note_ticket(database, access.principal.name(), ticket.ticket()).await?;
        Ok(ticket)
    }
}
