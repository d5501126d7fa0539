//! What a command asks of a node, and what it answers: the two sides of the local socket.
//!
//! **Invariant**: names, paths, tickets and numbers were parsed before a [`Command`] exists, here and again when one
//! arrives over the socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::model::{CollectionName, Conflict, DeviceId, ObjectKey, Request, Role, SignedTicket, SpaceId};
use crate::node::{ClusterPeer, PeerStatus, Status};
use crate::relay::{InForce, Policy, PolicyScope, Setting, TenantName, TokenRecord};
use crate::store::{Change, ChangeKind, Copied, Found, Removal, Renewed, SpaceSummary};
use crate::transport::PeerAddress;

/// Ids and tickets are text on the wire, as people write them.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What is asked of a node. Spaces are named as the user did; the node knows what that means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Create a space. Answer: [`Answer::Created`].
    CreateSpace {
        /// What it is called.
        name: String,
    },
    /// Answer: [`Answer::Spaces`].
    ListSpaces,
    /// Begin a space anew. Answer: [`Answer::Wiped`].
    Wipe {
        /// The space.
        space: String,
        /// Whether whoever asks knows what that means.
        yes: bool,
        /// Only if this is its revision.
        revision: Option<u64>,
    },
    /// Answer: [`Answer::Jobs`].
    ListJobs,
    /// Answer: [`Answer::Job`].
    ShowJob {
        /// Its id.
        id: String,
    },
    /// Remember a peer and dial it.
    AddPeer {
        /// The peer.
        peer: PeerAddress,
    },
    /// Forget a peer.
    RemovePeer {
        /// The peer.
        #[serde(with = "as_text")]
        device: DeviceId,
    },
    /// Answer: [`Answer::Peers`].
    ListPeers,
    /// Sign a ticket. Answer: [`Answer::Ticket`].
    Invite {
        /// To which space.
        space: String,
        /// What the redeemer may do.
        role: Role,
        /// How many may redeem it.
        uses: u32,
        /// How long it is valid, in seconds.
        expires_s: u64,
    },
    /// Make a token for clients of this relay. Answer: [`Answer::Token`].
    CreateToken {
        /// Whose databases it opens.
        customer: TenantName,
        /// The only one that it opens.
        database: Option<TenantName>,
        /// What it allows.
        role: Role,
        /// How long it is valid, in seconds.
        expires_s: Option<u64>,
    },
    /// Answer: [`Answer::Tokens`].
    ListTokens,
    /// End a token. Answer: [`Answer::Revoked`].
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// What holds in a scope. Answers: [`Answer::Policies`].
    ShowPolicies {
        /// The scope.
        scope: PolicyScope,
        /// Only this one.
        policy: Option<Policy>,
    },
    /// Set a policy. Answer: [`Answer::Policy`].
    SetPolicy {
        /// For whom.
        scope: PolicyScope,
        /// Which.
        policy: Policy,
        /// To what.
        setting: Setting,
    },
    /// Answer: [`Answer::Customers`].
    ListCustomers,
    /// Answer: [`Answer::Databases`].
    ShowCustomer {
        /// The customer.
        customer: TenantName,
    },
    /// Who did what to a customer. Answers: [`Answer::Audit`].
    Audit {
        /// The customer.
        customer: TenantName,
        /// So many entries at most.
        limit: u64,
        /// After that one.
        after: Option<String>,
    },
    /// Redeem a ticket. Answer: [`Answer::Joined`].
    Join {
        /// The ticket.
        #[serde(with = "as_text")]
        ticket: SignedTicket,
        /// Whether to say meanwhile how far it is: [`Answer::Progress`].
        progress: bool,
    },
    /// Write a transaction. Answer: [`Answer::Written`].
    Write {
        /// Into which space.
        space: String,
        /// What, all of it or nothing.
        requests: Vec<Request>,
    },
    /// Answer: [`Answer::Object`].
    Get {
        /// Its space.
        space: String,
        /// Its collection.
        collection: CollectionName,
        /// Its key.
        key: ObjectKey,
    },
    /// Answers: [`Answer::Places`].
    List {
        /// The space.
        space: String,
        /// Only this collection.
        collection: Option<CollectionName>,
    },
    /// Answers: [`Answer::Lines`].
    Export {
        /// The space.
        space: String,
        /// Only this collection.
        collection: Option<CollectionName>,
    },
    /// Answers: [`Answer::Conflicts`].
    Conflicts {
        /// The space.
        space: String,
    },
    /// Answers: [`Answer::Lost`].
    Lost {
        /// The space.
        space: String,
    },
    /// Answers: [`Answer::Watching`], then [`Answer::Changes`].
    Watch {
        /// The space.
        space: String,
        /// After which position; none for what comes from now on.
        after: Option<u64>,
        /// Whether to wait for more once everything was told.
        follow: bool,
    },
    /// A backup of this instant. Answers: [`Answer::Bytes`].
    Backup,
    /// Answer: [`Answer::Status`].
    Status {
        /// Whether it is a failure that something is not as it should be.
        check: bool,
    },
    /// Dial everyone and wait. Answers: [`Answer::Progress`], then [`Answer::Synced`].
    Sync {
        /// How long, in milliseconds.
        timeout_ms: u64,
        /// Whether progress is of interest.
        progress: bool,
    },
}

impl Command {
    /// Whether it needs the network even where no node is running.
    pub fn needs_network(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Sync { .. })
    }

    /// Whether it waits for others and can be ended and asked again at any time.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Sync { .. })
    }
}

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

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// This device.
    pub device: String,
    /// The incarnation of its store.
    pub replica: String,
    /// Every time that the store began to write under a new replica id; the first one first.
    pub renewals: Vec<RenewalReport>,
    /// Where it listens, if it does.
    pub listening: Option<String>,
    /// Why nothing can be written at the moment, if so.
    pub storage_failure: Option<String>,
    /// Every cluster peer, and every device that would be one if this node agreed.
    pub cluster: Vec<ClusterReport>,
    /// Every space that can be read.
    pub spaces: Vec<SpaceReport>,
    /// What was found damaged or cannot be read.
    pub damage: Vec<String>,
    /// What is not as it should be, in whole sentences.
    pub complaints: Vec<String>,
}

/// A cluster peer, or one that would be if both sides said so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// The device.
    pub device: String,
    /// Whether both count each other as one.
    pub state: String,
    /// Why not, if not.
    pub reason: Option<String>,
}

/// How a space stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceReport {
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
    /// How many bytes they take on disk.
    pub bytes: u64,
    /// The last event that is known of each replica.
    pub vector: BTreeMap<String, u64>,
    /// How many objects have a field with several values.
    pub conflicts: u64,
    /// How many edits lost to a delete.
    pub lost: u64,
    /// Stores that were copied, or put back, and wrote twice under one replica id.
    pub copied: Vec<CopiedReport>,
    /// How it stands with every peer.
    pub peers: Vec<PeerReport>,
}

/// A store that wrote more than once under one replica id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopiedReport {
    /// Whose store it was.
    pub device: String,
    /// The id.
    pub replica: String,
    /// How many copies of it wrote. What each wrote is there.
    pub copies: usize,
}

/// That this store began to write under another replica id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenewalReport {
    /// The id before.
    pub before: String,
    /// The id since.
    pub now: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
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

/// How a space stands with a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer.
    pub device: String,
    /// How far it is.
    pub state: String,
    /// Events that it has and that are not here.
    pub behind_events: u64,
    /// Events that are here and that it has not acknowledged.
    pub ahead_events: u64,
    /// When both were last in step, in milliseconds since 1970.
    pub last_synced_ms: Option<u64>,
    /// Why it is not in step, if it is not.
    pub reason: Option<String>,
}

impl PeerReport {
    /// Whether nothing is to be done; see [`PeerStatus::is_well`].
    pub fn is_well(&self) -> bool {
        let nothing_waits = self.ahead_events == 0 && self.behind_events == 0 && self.last_synced_ms.is_some();
        self.state == "synced" || (self.state == "offline" && nothing_waits)
    }
}

impl From<&Status> for StatusReport {
    fn from(status: &Status) -> Self {
        let peer = |peer: &PeerStatus| PeerReport {
            device: peer.device.to_string(),
            state: peer.state.as_str().to_owned(),
            behind_events: peer.behind_events,
            ahead_events: peer.ahead_events,
            last_synced_ms: peer.last_synced_ms,
            reason: peer.reason.clone(),
        };
        let cluster = |peer: &ClusterPeer| ClusterReport {
            device: peer.device.to_string(),
            state: peer.state.as_str().to_owned(),
            reason: peer.reason.clone(),
        };
        let copied = |copied: &Copied| CopiedReport {
            device: copied.device.to_string(),
            replica: copied.replica.to_string(),
            copies: copied.copies,
        };
        let renewal = |renewed: &Renewed| RenewalReport {
            before: renewed.before.to_string(),
            now: renewed.now.to_string(),
            reason: renewed.reason.to_string(),
            at_ms: renewed.at_ms,
        };
        let spaces = status.spaces.iter().map(|space| {
            let summary = &space.summary;
            SpaceReport {
                id: summary.id.to_string(),
                name: summary.name.clone(),
                database: None,
                role: summary.role.map(|role| role.to_string()),
                objects: summary.objects,
                bytes: summary.bytes,
                vector: summary.vector.iter().map(|dot| (dot.replica.to_string(), dot.counter)).collect(),
                conflicts: summary.conflicts,
                lost: summary.lost,
                copied: space.copied.iter().map(copied).collect(),
                peers: space.peers.iter().map(peer).collect(),
            }
        });
        Self {
            device: status.device.to_string(),
            replica: status.replica.to_string(),
            renewals: status.renewals.iter().map(renewal).collect(),
            listening: status.listening.map(|address| address.to_string()),
            storage_failure: status.storage_failure.clone(),
            cluster: status.cluster.iter().map(cluster).collect(),
            spaces: spaces.collect(),
            damage: status.damage.clone(),
            complaints: status.complaints(),
        }
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
