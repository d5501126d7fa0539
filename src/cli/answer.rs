//! What a node answers to a command: the other side of the local socket. What is printed as JSON is made of the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::command::as_text;
use super::report::StatusReport;
use crate::model::{Conflict, DeviceId, SignedTicket, SpaceId};
use crate::relay::{InForce, Policy, TokenRecord};
use crate::store::{Change, ChangeKind, Found, Removal, SpaceSummary};

/// One piece of what a node answers. Long answers come in several pieces of bounded size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The space that was created.
    Created(Created),
    /// All spaces.
    Spaces(Vec<SpaceRow>),
    /// The space that was begun anew, and the job that removes what was in it.
    Wiped(WipedRow),
    /// All jobs.
    Jobs(Vec<JobRow>),
    /// A job.
    Job(JobRow),
    /// All peers.
    Peers(Vec<PeerRow>),
    /// The peer that was added or removed.
    Peer(NamedPeer),
    /// A ticket.
    Ticket(TicketRow),
    /// A token that was made.
    Token(TokenRow),
    /// All tokens.
    Tokens(Vec<TokenRow>),
    /// The id of the token that was ended.
    Revoked(RevokedRow),
    /// What holds in a scope.
    Policies(Vec<PolicyRow>),
    /// What holds now of a policy that was set.
    Policy(PolicyRow),
    /// All customers.
    Customers(Vec<CustomerRow>),
    /// The databases of a customer.
    Databases(Vec<DatabaseRow>),
    /// Who did what to a customer, each entry as JSON.
    Audit(Vec<Json>),
    /// The space that a ticket led to.
    Joined(Created),
    /// What a transaction did.
    Written(WrittenRow),
    /// An object.
    Object(ObjectRow),
    /// Where some objects are.
    Places(Vec<Place>),
    /// Finished lines, each with its end.
    Lines(String),
    /// Bytes in base64.
    Bytes(String),
    /// Some fields that hold several values.
    Conflicts(Vec<ConflictRow>),
    /// Some edits that lost to a delete.
    Lost(Vec<LostRow>),
    /// What is watched.
    Watching {
        /// The space.
        #[serde(with = "as_text")]
        space: SpaceId,
        /// After which position.
        position: u64,
    },
    /// Some changes.
    Changes {
        /// The position of the last of them.
        position: u64,
        /// A [`ChangeRow`] as JSON per line, each with its end.
        lines: String,
    },
    /// How everything stands.
    Status(StatusReport),
    /// How far a sync is.
    Progress(Progress),
    /// What a sync found.
    Synced(SyncRow),
}

/// A space and its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
}

/// A line of `space list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceRow {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// On a relay the customer's database that it is, as `CUSTOMER/DATABASE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What this device may do there, if that is known yet.
    pub role: Option<String>,
    /// How many objects are visible.
    pub objects: u64,
}

impl SpaceRow {
    /// A line of `space list`.
    pub fn new(summary: &SpaceSummary) -> Self {
        let SpaceSummary { id, name, role, objects, .. } = summary;
        let (id, role) = (id.to_string(), role.map(|role| role.to_string()));
        Self { id, name: name.clone(), database: None, role, objects: *objects }
    }
}

/// What `space wipe` did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WipedRow {
    /// The job that removes what was in it.
    pub job: String,
    /// The revision that began.
    pub revision: u64,
}

/// A line of `job list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// What it is called.
    pub job: String,
    /// The space.
    pub space: String,
    /// The revision that began with the wipe.
    pub revision: u64,
    /// `running` or `done`.
    pub state: String,
    /// How many objects are removed.
    pub rows_done: u64,
    /// Of how many.
    pub rows_total: u64,
    /// How often it was interrupted and gone on with.
    pub retries: u64,
    /// How many steps of it failed, and were repeated.
    pub errors: u64,
    /// When the space was wiped, in milliseconds since 1970.
    pub begun_ms: u64,
    /// When it was done.
    pub done_ms: Option<u64>,
}

impl JobRow {
    /// A line of `job list`.
    pub fn new(removal: &Removal) -> Self {
        Self {
            job: removal.id(),
            space: removal.space.to_string(),
            revision: removal.revision,
            state: removal.state().to_owned(),
            rows_done: removal.removed,
            rows_total: removal.objects,
            retries: removal.interrupted,
            errors: removal.errors,
            begun_ms: removal.at_ms,
            done_ms: removal.done_ms,
        }
    }
}

/// A line of `peer list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The peer.
    pub device: String,
    /// Where it is or was reached, if that is known: `host:port`.
    pub address: Option<String>,
    /// Whether there is a connection now.
    pub connected: bool,
}

/// A token of a relay's client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its public part.
    pub id: String,
    /// The text to hand over, where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whose databases it opens; none for an administrator.
    pub customer: Option<String>,
    /// The only one that it opens.
    pub database: Option<String>,
    /// What it allows.
    pub role: String,
    /// Until when, in milliseconds since 1970.
    pub expires: Option<u64>,
}

impl TokenRow {
    /// What is known of a token, and its text if it was just made.
    pub fn new(record: TokenRecord, token: Option<String>) -> Self {
        let TokenRecord { id, scope, expires_ms, .. } = record;
        let (customer, database) = (scope.customer.map(String::from), scope.database.map(String::from));
        Self { id, token, customer, database, role: scope.role.to_string(), expires: expires_ms }
    }
}

/// A token that was ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokedRow {
    /// Its public part.
    pub id: String,
}

/// A line of `policy show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// What it is called.
    pub name: String,
    /// What holds; none is no limit.
    pub value: Option<u64>,
    /// Where that was set: `relay`, a customer, `CUSTOMER/DATABASE` or `CUSTOMER/DATABASE/TABLE`; none if nowhere.
    pub scope: Option<String>,
    /// What holds where nothing is set.
    pub default: Option<u64>,
    /// What it counts.
    pub about: String,
}

impl PolicyRow {
    /// What holds of a policy.
    pub fn new(policy: Policy, InForce { value, set }: InForce) -> Self {
        let (name, about) = (policy.as_str().to_owned(), policy.about().to_owned());
        Self { name, value, scope: set.map(|scope| scope.to_string()), default: policy.usual(), about }
    }
}

/// A line of `customer list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomerRow {
    /// What it is called.
    pub customer: String,
    /// How many databases it has.
    pub databases: u64,
}

/// A line of `customer show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatabaseRow {
    /// What it is called.
    pub database: String,
    /// The space that it is.
    pub space: String,
    /// How many rows are visible.
    pub rows: u64,
    /// How many bytes they take on disk, without the log.
    pub bytes: u64,
}

/// A ticket and what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketRow {
    /// The text to hand over.
    pub ticket: String,
    /// To which space it leads.
    pub space: String,
    /// What the redeemer may do.
    pub role: String,
    /// How many may redeem it.
    pub uses: u32,
    /// When it stops being valid, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Where the redeemer will look for this device.
    pub addresses: Vec<String>,
}

impl TicketRow {
    /// What `signed` says.
    pub fn new(signed: &SignedTicket) -> Self {
        let ticket = signed.ticket();
        Self {
            ticket: signed.to_string(),
            space: ticket.genesis.space().to_string(),
            role: ticket.role.to_string(),
            uses: ticket.uses,
            expires_ms: ticket.expires_ms,
            addresses: ticket.addresses.clone(),
        }
    }
}

/// What a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenRow {
    /// How many objects it changed.
    pub changed: usize,
    /// The space's last position once it was written.
    pub position: u64,
}

/// An object, as `get` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// Its fields.
    pub fields: Map<String, Json>,
    /// The fields that hold several values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<FieldConflict>,
}

impl From<Found> for ObjectRow {
    fn from(found: Found) -> Self {
        Self {
            collection: found.collection.into(),
            key: found.key.into(),
            fields: found.fields,
            conflicts: found.conflicts.into_iter().map(FieldConflict::from).collect(),
        }
    }
}

/// A field that holds several values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldConflict {
    /// The field.
    pub field: String,
    /// Its values, the winner first.
    pub values: Vec<Json>,
    /// The one that is shown.
    pub winner: Json,
}

impl From<Conflict> for FieldConflict {
    fn from(conflict: Conflict) -> Self {
        let winner = conflict.values.first().cloned().unwrap_or_default();
        Self { field: conflict.path.to_string(), values: conflict.values, winner }
    }
}

/// A line of `conflicts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// The object's collection.
    pub collection: String,
    /// The object's key.
    pub key: String,
    /// The field.
    pub field: String,
    /// Its values, the winner first.
    pub values: Vec<Json>,
    /// The one that is shown.
    pub winner: Json,
}

impl ConflictRow {
    /// The lines of one object.
    pub fn of(found: Found) -> impl Iterator<Item = Self> {
        let Found { collection, key, conflicts, .. } = found;
        conflicts.into_iter().map(move |conflict| {
            let FieldConflict { field, values, winner } = conflict.into();
            Self { collection: collection.to_string(), key: key.to_string(), field, values, winner }
        })
    }
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
}

/// A line of `lost`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LostRow {
    /// The object's collection.
    pub collection: String,
    /// The object's key.
    pub key: String,
    /// What is left of it.
    pub fields: Map<String, Json>,
}

impl From<Found> for LostRow {
    fn from(found: Found) -> Self {
        Self { collection: found.collection.into(), key: found.key.into(), fields: found.fields }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOp {
    /// It is there, with these fields.
    Put,
    /// It is not there any more.
    Delete,
}

/// A line of `watch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeRow {
    /// Where it stands in the feed.
    pub position: u64,
    /// The object's collection.
    pub collection: String,
    /// The object's key.
    pub key: String,
    /// What happened.
    pub op: ChangeOp,
    /// Its fields, if it is there.
    pub fields: Option<Map<String, Json>>,
    /// Whose event it was: `local` or a device.
    pub by: String,
}

impl ChangeRow {
    /// A line of `watch` on `device`.
    pub fn new(change: Change, device: DeviceId) -> Self {
        let (op, fields) = match change.kind {
            ChangeKind::Put(fields) => (ChangeOp::Put, Some(fields)),
            ChangeKind::Delete => (ChangeOp::Delete, None),
        };
        let by = if change.by == device { "local".to_owned() } else { change.by.to_string() };
        Self { position: change.position, collection: change.collection.into(), key: change.key.into(), op, fields, by }
    }
}

/// How far a sync or a join is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Events that others have and that are not here yet.
    pub behind_events: u64,
    /// Events that are here and that others have not acknowledged yet.
    pub ahead_events: u64,
}

/// What a sync found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncRow {
    /// The peers that are in step now.
    pub synced: Vec<String>,
    /// The peers that were reached and are not in step yet.
    pub unfinished: Vec<String>,
    /// The peers that were not reached, and why.
    pub unreached: Vec<Unreached>,
}

/// A peer that was not reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unreached {
    /// The peer.
    pub device: String,
    /// Why.
    pub reason: String,
}

/// A peer that was added, with its address, or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedPeer {
    /// The device.
    pub device: String,
    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
