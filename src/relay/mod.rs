//! The relay: a node that is always on, and also serves thin clients over HTTP, many tenants at once.
//!
//! A thin client has no version vector of its own: a phone app, a browser page, a script. It names what it has by an
//! opaque [`SyncPoint`], and what it saw of a row by that row's [`Context`](crate::model::Context); the relay writes for
//! it as an ordinary replica. What full nodes are sent over QUIC and what thin clients are sent over HTTP is one state.
//!
//! | file | what it is |
//! |---|---|
//! | `tenant` | customers, their databases, and tokens |
//! | `sync_point`, `keys` | how far a client is, as a text that only a relay can read |
//! | `row`, `upload`, `changes`, `page`, `deletions` | what clients write and read |
//! | `clients` | how far each client is, for people |
//! | `export` | everything of a customer |
//! | `lost` | edits that lost to a delete |
//! | `audit` | who deleted, granted or set what |
//! | `invite` | tickets, with which full nodes join |
//! | `events` | hints that there is something new |
//! | `policy`, `quota` | what clients may use, and what they have used of it |
//! | `settings`, `keeping` | what is set per table, and what follows from it by itself |
//! | `table` | tables as a whole, and manifests |
//! | `problem` | what a request is answered that cannot be done |
//! | [`origin`](Origin) | a web origin whose pages may speak to it |
//! | [`http`] | the server: what holds for every request, whatever it is about |
//! | [`routes`], `api` | which path leads where, and from a request to a function of the relay and back |
//! | `openapi`, `operation`, `schemas` | the same for machines, as OpenAPI |
//!
//! The functions of [`Relay`] need no socket.

mod api;
mod audit;
mod changes;
mod clients;
mod deletions;
mod events;
mod export;
pub mod http;
mod invite;
mod keeping;
mod keys;
mod lost;
mod openapi;
mod operation;
mod origin;
mod page;
mod policy;
mod problem;
mod quota;
mod routes;
mod row;
mod schemas;
mod settings;
mod sync_point;
mod table;
mod tenant;
mod upload;
mod wiping;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use data_encoding::HEXLOWER;

use self::audit::Tallies;
pub use self::audit::{AuditPage, AuditQuery, BY_ITSELF, Deed, OPERATOR, TOLD_EVERY, Which};
pub use self::changes::{Changes, Wanted};
use self::clients::Clients;
pub use self::deletions::Deleting;
use self::http::{KEYS_MAX, Rate};
pub use self::keeping::{KEPT_EVERY, Kept};
pub use self::keys::{Keys, KeysError};
pub use self::origin::{InvalidOrigin, Origin};
pub use self::page::{Gone, Page, beginning, epoch_of};
pub use self::policy::{InForce, Policies, Policy, PolicyScope, Setting};
pub use self::problem::{Problem, ProblemCode};
use self::quota::Quotas;
pub use self::routes::routes;
pub use self::row::{RowChange, RowOperation};
pub use self::settings::{Schema, TableSettings};
use self::sync_point::Unreadable;
pub use self::sync_point::{Bearer, Phase, SYNC_POINT_BYTES_MAX, SyncPoint};
pub use self::table::Range;
pub use self::tenant::{
    Database, InvalidTenantName, Principal, SYSTEM_NAME, Scope, TenantName, Tenants, TokenRecord, Visibility,
};
pub use self::upload::BATCH_ROWS_MAX;
use crate::model::{CollectionName, Role};
use crate::node::{Node, NodeError};
use crate::store::View;

/// A node that serves thin clients.
#[derive(Debug)]
pub struct Relay {
    node: Node,
    tenants: Tenants,
    keys: Mutex<Keys>,
    clients: Mutex<Clients>,
    quotas: Quotas,
    tallies: Mutex<Tallies>,
    exporting: Mutex<BTreeSet<TenantName>>,
    rate: Rate,
    began: Instant,
}

/// A database that somebody may use.
#[derive(Clone, Debug)]
pub struct Access {
    /// The database.
    pub database: Database,
    /// Who asks.
    pub principal: Principal,
    /// What they may do in it.
    pub role: Role,
}

impl Access {
    fn bearer(&self) -> Bearer<'_> {
        let Database { customer, name, .. } = &self.database;
        Bearer { customer: customer.as_str(), database: name.as_str(), principal: self.principal.name() }
    }
}

/// What everybody is told who may not know whether there is such a thing, or for whom there is none.
pub(crate) fn not_found() -> Problem {
    let help = "check the customer and the database; `PUT` on the database registers it";
    Problem::new(ProblemCode::NotFound, "there is no such database, as far as this token reaches", help)
}

impl Relay {
    /// Makes a node a relay.
    pub async fn open(node: &Node, keys: Keys) -> Result<Self, NodeError> {
        let tenants = Tenants::open(node).await?;
        let (keys, clients, quotas, tallies) =
            (Mutex::new(keys), Mutex::default(), Quotas::default(), Mutex::default());
        let (rate, began) = (Rate::new(1, KEYS_MAX), node.surroundings().now());
        let exporting = Mutex::default();
        let relay = Self { node: node.clone(), tenants, keys, clients, quotas, tallies, exporting, rate, began };
        if let Err(problem) = relay.tenants.note_epoch(&relay.epoch_text()).await {
            tracing::warn!(%problem, "that the store was restored, if it was, could not be noted");
        }
        Ok(relay)
    }

    /// Puts a token for the administrator into a file that only its owner can read, unless one is there that is known
    /// here: after a restore it may not be.
    pub async fn make_administrator(&self, file: &Path) -> Result<(), Problem> {
        if let Ok(text) = std::fs::read_to_string(file) {
            match self.tenants.authenticate(text.trim()) {
                Ok(Principal::Token(token)) if token.scope.customer.is_none() => return Ok(()),
                Err(problem) if problem.code != ProblemCode::Unauthenticated => return Err(problem),
                _ => {}
            }
        }
        let scope = Scope { customer: None, database: None, role: Role::Owner };
        let (token, _) = self.tenants.create_token(scope, None).await?;
        keys::write_secret(file, format!("{token}\n").as_bytes())
            .map_err(|error| Problem::new(ProblemCode::Internal, error.to_string(), "see to it that it can be written"))
    }

    /// Customers, databases and tokens.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Lets `principal` in to a database, to do what takes the role `need`.
    ///
    /// Who is nobody is told so before anything else; who may not see a database is told the same as where there is none.
    pub fn enter(&self, principal: Principal, customer: &str, database: &str, need: Role) -> Result<Access, Problem> {
        let names = (customer.parse::<TenantName>(), database.parse::<TenantName>());
        let known = match &names {
            (Ok(customer), Ok(database)) => self.tenants.database(customer, database)?,
            _ => None,
        };
        let granted = known.as_ref().and_then(|known| principal.role(&known.customer, &known.name));
        let is_public = known.as_ref().is_some_and(|known| known.visibility == Visibility::PublicRead);
        let role = granted.max(is_public.then_some(Role::Reader));
        match (known, role) {
            (Some(database), Some(role)) if role >= need => Ok(Access { database, principal, role }),
            _ if principal == Principal::Anybody => Err(unauthenticated()),
            (Some(_), Some(role)) => {
                let detail = format!("this token is one of a {role}; that takes {need}");
                Err(Problem::new(ProblemCode::Forbidden, detail, "use another token"))
            }
            _ => Err(not_found()),
        }
    }

    /// Lets a request to a database, or a table of it, pass, or says that its sender sends too many. Returns what holds
    /// there. Who has no token is known by the address.
    fn pace(&self, access: &Access, table: Option<&CollectionName>, from: IpAddr) -> Result<Policies, Problem> {
        let policies = self.policies(access, table)?;
        let (limit, most) = (policies.limit(Policy::RequestsPerSecond), Policy::RequestsPerSecond.usual());
        // Up to what the server lets in of one token there is nothing more to be counted.
        if most.is_some_and(|most| limit >= most) {
            return Ok(policies);
        }
        let Database { customer, name, .. } = &access.database;
        // No name has a space in it.
        let key = match &access.principal {
            Principal::Token(token) => format!("{} {customer} {name}", token.id),
            Principal::Anybody => format!("{} {customer} {name}", from.to_canonical()),
        };
        let per_second = u32::try_from(limit).unwrap_or(u32::MAX);
        let since = self.node.surroundings().now().saturating_duration_since(self.began);
        match self.rate.admit_at(key.as_bytes(), since, per_second) {
            Ok(()) => Ok(policies),
            Err(wait) => {
                let detail = format!("more than {limit} requests in a second to this database");
                let problem = Problem::new(ProblemCode::TooManyRequests, detail, "send fewer, with more in each");
                Err(problem.retry_after(wait.as_secs_f64().ceil().max(1.0) as u64))
            }
        }
    }

    /// A view of a database at this instant.
    pub fn view(&self, access: &Access) -> Result<View, Problem> {
        self.node.view(access.database.space).map_err(tenant::node_problem)
    }

    /// Which numbering of positions holds here. Another one begins whenever the store begins to write under another id:
    /// after a restore, and after it was copied.
    pub fn epoch(&self) -> u64 {
        epoch_of(self.node.replica())
    }

    /// The same as it is shown.
    pub fn epoch_text(&self) -> String {
        HEXLOWER.encode(&self.epoch().to_be_bytes())
    }

    fn seal(&self, access: &Access, point: &SyncPoint) -> Result<String, Problem> {
        let around = self.node.surroundings();
        let mut chance = [0; 32];
        chance[..16].copy_from_slice(&around.random_id());
        chance[16..].copy_from_slice(&around.random_id());
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&around.random_id()[..12]);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = keys.newest(around.wall_ms(), chance).map_err(|error| {
            tracing::error!(%error, "cannot keep a key");
            let detail = "the relay cannot keep the keys of sync tokens at the moment";
            Problem::new(ProblemCode::Unavailable, detail, "try again later").retry_after(5)
        })?;
        Ok(point.seal(access.bearer(), key, nonce))
    }

    fn open_token(&self, access: &Access, text: &str) -> Result<SyncPoint, Unreadable> {
        SyncPoint::open(text, access.bearer(), &self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What whoever has no token is told.
pub(crate) fn unauthenticated() -> Problem {
    let help = "send `Authorization: Bearer TOKEN`; `thence token create` makes one";
    Problem::new(ProblemCode::Unauthenticated, "this takes a token", help)
}
