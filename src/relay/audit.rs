//! Who deleted, granted, restored or set what, and when: names, ids and counts, and nothing of what rows hold.
//!
//! Entries are rows of the system space: collection `audit`, key `CUSTOMER/ID`, where ids sort by time; what is about
//! all customers stands under `/`, and is told to each of them. They are kept for [`KEPT_DAYS`].
//!
//! **Invariant**: one entry per call, however many rows it is about, and it is on the disk before the call is answered;
//! what was done and cannot be noted, since the store fails just then, is in the log.
//! What is set in the system space itself stands in the same transaction as its entry. The exception are deletes that come
//! one by one, or among other rows of a batch: a commit for each would double what they cost. They are counted in memory,
//! per database, table and token, and become one entry a minute, or when somebody asks; a relay that is killed forgets
//! the last minute of these.
//!
//! **Absent here**: reads, ordinary writes, and what full nodes write: that is signed, and lies in the log of the space.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::keeping::DAY_MS;
use super::policy::Policy;
use super::problem::{Problem, ProblemCode};
use super::tenant::{Principal, TenantName, Tenants, Visibility, collection, internal, node_problem};
use super::{Access, Relay};
use crate::model::{CollectionName, ObjectKey, Operation, Request, Role, Ticket};
use crate::node::Transaction;
use crate::store::{PageLimits, Upload};

/// How long entries are kept.
pub const KEPT_DAYS: u32 = 400;
/// How often deletes that came one by one are put together.
pub const TOLD_EVERY: Duration = Duration::from_secs(60);
/// So many keys are named in one entry; beyond that they are counted.
const KEYS_MAX: usize = 20;
/// So many tallies are kept in memory.
const TALLIES_MAX: usize = 4096;
/// Entries in an answer if the client does not say, and at most.
const ENTRIES_USUAL: usize = 100;
/// The same, at most.
pub(super) const ENTRIES_MAX: usize = 1000;
/// What the collection is called.
const TABLE: &str = "audit";
/// Under which name stands who works on the machine of the relay itself.
pub const OPERATOR: &str = "operator";
/// Under which name the relay does what was set beforehand.
pub const BY_ITSELF: &str = "relay";

/// Which rows were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// One by one, or among others that were written.
    Rows,
    /// Those of a list of keys.
    Keys,
    /// Those after a version.
    Range,
    /// All of the table.
    All,
    /// Those that nobody had changed for as long as was set.
    Expired,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Deed {
    /// Rows were deleted.
    Delete {
        /// Where.
        database: TenantName,
        /// In which table.
        table: CollectionName,
        /// Which.
        which: Which,
        /// How many.
        count: u64,
        /// Some of their keys.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
    /// A database was emptied.
    Wipe {
        /// Which.
        database: TenantName,
        /// Its revision since.
        revision: u64,
        /// How many rows it had.
        count: u64,
    },
    /// A token was made.
    Grant {
        /// Its id.
        token: String,
        /// The only database that it opens.
        database: Option<TenantName>,
        /// What it allows.
        role: &'static str,
        /// Until when.
        expires_ms: Option<u64>,
    },
    /// A token was ended.
    Revoke {
        /// Its id.
        token: String,
    },
    /// A ticket was made, with which full nodes join.
    Invite {
        /// Which database.
        database: TenantName,
        /// Its id.
        ticket: String,
        /// What it allows.
        role: &'static str,
        /// How many may use it.
        uses: u32,
        /// Until when.
        expires_ms: u64,
    },
    /// The relay's store was restored, copied or put back to an older state.
    Restore {
        /// Versions are counted anew since.
        epoch: String,
    },
    /// A policy was set.
    Policy {
        /// For whom.
        scope: String,
        /// Which.
        policy: Policy,
        /// To what.
        value: Json,
    },
    /// What is set of a table was set.
    Settings {
        /// Where.
        database: TenantName,
        /// Of which table.
        table: CollectionName,
        /// To what.
        settings: Json,
    },
    /// It was set who sees a database without a token.
    Visibility {
        /// Which.
        database: TenantName,
        /// Who.
        visibility: Visibility,
    },
}

impl Deed {
    /// That a ticket was made.
    pub fn invite(database: &super::Database, ticket: &Ticket) -> Self {
        Self::Invite {
            database: database.name.clone(),
            ticket: HEXLOWER.encode(&ticket.id),
            role: ticket.role.as_str(),
            uses: ticket.uses,
            expires_ms: ticket.expires_ms,
        }
    }

    /// That a token was made.
    pub(super) fn grant(record: &super::TokenRecord) -> Self {
        let super::TokenRecord { id, scope, expires_ms, .. } = record;
        let (database, role) = (scope.database.clone(), scope.role.as_str());
        Self::Grant { token: id.clone(), database, role, expires_ms: *expires_ms }
    }
}

/// Deletes that came one by one since the last entry, and some of their keys.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    keys: Vec<String>,
}

/// Customer, database, table, and by whom.
type Deleter = (TenantName, TenantName, CollectionName, String);

/// Deletes that came one by one, as far as there is no entry of them yet.
#[derive(Debug, Default)]
pub struct Tallies(BTreeMap<Deleter, Tally>);

/// What somebody wants to see.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// So many entries at most.
    pub limit: Option<u64>,
    /// After the one with that id.
    pub after: Option<String>,
}

/// A page of entries.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    /// The entries, the oldest first.
    pub entries: Vec<Json>,
    /// Whether there are more.
    pub more: bool,
}

fn key_of(customer: Option<&TenantName>, id: &str) -> String {
    format!("{}/{id}", customer.map_or("", TenantName::as_str))
}

impl Tenants {
    /// The entry of a deed, as part of the transaction that does it.
    pub(super) fn noted(
        &self,
        transaction: Transaction,
        customer: Option<&TenantName>,
        by: &str,
        deed: &Deed,
    ) -> Result<Transaction, crate::node::InvalidRequest> {
        let around = self.node().surroundings();
        let at_ms = around.wall_ms();
        let id = format!("{at_ms:012x}{:08x}", around.random() >> 32);
        let mut fields = serde_json::to_value(deed).unwrap_or_default();
        fields["at_ms"] = at_ms.into();
        fields["by"] = by.into();
        transaction.put(TABLE, &key_of(customer, &id), fields)
    }

    /// Notes a deed that was done elsewhere: of a customer, or one that is about all of them.
    pub async fn note(&self, customer: Option<&TenantName>, by: &str, deed: &Deed) -> Result<(), Problem> {
        self.write(self.noted(Transaction::new(), customer, by, deed)).await
    }

    /// The entries about a customer, and about all; or the latter alone.
    pub fn audit(&self, customer: Option<&TenantName>, query: &AuditQuery) -> Result<AuditPage, Problem> {
        let after = query.after.as_deref().unwrap_or_default();
        if after.len() > 20 || !after.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            let help = "send the `id` of an entry as it came, or nothing to begin at the oldest one";
            return Err(Problem::new(ProblemCode::Malformed, "`after` is the id of no entry", help));
        }
        let limit = match query.limit.map(usize::try_from) {
            None => ENTRIES_USUAL,
            Some(Ok(0)) => {
                let help = format!("ask for 1 to {ENTRIES_MAX} entries");
                return Err(Problem::new(ProblemCode::Malformed, "a limit of 0 entries", help));
            }
            Some(limit) => limit.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX),
        };
        let mut entries = BTreeMap::new();
        let mut more = false;
        for customer in [None, customer].into_iter().take(1 + usize::from(customer.is_some())) {
            // One further of each tells whether there is more.
            more |= !self.entries(customer, after, limit, &mut entries)?;
        }
        more |= entries.len() > limit;
        let entries = entries.into_values().take(limit).collect();
        Ok(AuditPage { entries, more })
    }

    /// Reads entries after one. Returns whether that were all.
    fn entries(
        &self,
        customer: Option<&TenantName>,
        after: &str,
        limit: usize,
        entries: &mut BTreeMap<String, Json>,
    ) -> Result<bool, Problem> {
        let view = self.view()?;
        let (table, prefix) = (collection(TABLE)?, key_of(customer, ""));
        let from: ObjectKey = key_of(customer, after).parse().map_err(|error| internal(&error))?;
        let only = std::collections::BTreeSet::from([table.clone()]);
        let limits = PageLimits { rows: limit + 1, bytes: usize::MAX, looked_at: usize::MAX };
        let page = view.rows_after(Some(&(table, from)), Some(&only), limits);
        let rows = page.map_err(|error| node_problem(error.into()))?.rows;
        for (at, row) in rows.into_iter().enumerate() {
            let Some(id) = row.key.as_str().strip_prefix(&prefix) else { return Ok(true) };
            if at == limit {
                return Ok(false);
            }
            let mut entry = row.fields.unwrap_or_default();
            entry.insert("id".to_owned(), id.into());
            entries.insert(id.to_owned(), entry.into());
        }
        Ok(true)
    }

    /// Forgets entries that are too old. Returns how many.
    pub(super) async fn forget_audit(&self) -> Result<u64, Problem> {
        let before_ms = self.node().surroundings().wall_ms().saturating_sub(u64::from(KEPT_DAYS) * DAY_MS);
        let (view, table) = (self.view()?, collection(TABLE)?);
        let mut old: Vec<ObjectKey> = Vec::new();
        let visited = view.visit(Some(&table), &mut |_, key, _| {
            let at_ms = key.as_str().split_once('/').and_then(|(_, id)| u64::from_str_radix(id.get(..12)?, 16).ok());
            old.extend(at_ms.filter(|at_ms| *at_ms < before_ms).map(|_| key));
            ControlFlow::Continue(())
        });
        visited.map_err(|error| node_problem(error.into()))?;
        let remove = |key| vec![Upload::new(Request { collection: table.clone(), key, operation: Operation::Delete })];
        let parts: Vec<Vec<Upload>> = old.into_iter().map(remove).collect();
        let mut forgotten = 0;
        for outcome in self.node().upload(self.system(), parts).await {
            forgotten += u64::from(outcome.map_err(node_problem)?.is_ok());
        }
        Ok(forgotten)
    }

    /// Notes that versions are counted anew, if they are since the last time that this was looked at.
    pub(super) async fn note_epoch(&self, epoch: &str) -> Result<(), Problem> {
        let device = self.node().device().to_string();
        let known = self.record("relays", &device)?;
        let before = known.as_ref().and_then(|known| known.get("epoch")).and_then(Json::as_str);
        if before == Some(epoch) {
            return Ok(());
        }
        let transaction = Transaction::new().put("relays", &device, json!({"epoch": epoch}));
        let deed = Deed::Restore { epoch: epoch.to_owned() };
        self.write(match before {
            Some(_) => transaction.and_then(|transaction| self.noted(transaction, None, BY_ITSELF, &deed)),
            None => transaction,
        })
        .await
    }
}

impl Relay {
    /// Notes what somebody did who was let in to a database. It is done, so whatever comes of this is no failure of it.
    pub(super) async fn note(&self, access: &Access, deed: &Deed) {
        self.note_of(&access.database.customer, access.principal.name(), deed).await;
    }

    /// Notes what somebody did to a customer.
    pub(super) async fn note_of(&self, customer: &TenantName, by: &str, deed: &Deed) {
        if let Err(problem) = self.tenants.note(Some(customer), by, deed).await {
            tracing::error!(%problem, %customer, by, ?deed, "what was done could not be noted");
        }
    }

    /// Counts rows that were deleted one by one; there is an entry of them a little later.
    pub(super) async fn tally_deletes<'k>(
        &self,
        access: &Access,
        deleted: impl IntoIterator<Item = &'k (CollectionName, ObjectKey)>,
    ) {
        let is_full = {
            let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            for (table, key) in deleted {
                let (customer, database) = (access.database.customer.clone(), access.database.name.clone());
                let deleter = (customer, database, table.clone(), access.principal.name().to_owned());
                let tally = tallies.0.entry(deleter).or_default();
                tally.count += 1;
                if tally.keys.len() < KEYS_MAX {
                    tally.keys.push(key.as_str().to_owned());
                }
            }
            tallies.0.len() > TALLIES_MAX
        };
        if is_full {
            self.tell_tallies().await;
        }
    }

    /// Makes entries of the deletes that came one by one.
    pub async fn tell_tallies(&self) {
        let tallies = std::mem::take(&mut *self.tallies.lock().unwrap_or_else(PoisonError::into_inner));
        for ((customer, database, table, by), Tally { count, keys }) in tallies.0 {
            let deed = Deed::Delete { database, table, which: Which::Rows, count, keys };
            self.note_of(&customer, &by, &deed).await;
        }
    }

    /// The entries about a customer.
    pub async fn audit(&self, customer: &TenantName, query: &AuditQuery) -> Result<AuditPage, Problem> {
        self.tell_tallies().await;
        self.tenants.audit(Some(customer), query)
    }

    /// The customer of that name, if `asker` owns all of it.
    pub(super) fn owned_customer(&self, asker: &Principal, customer: &str) -> Result<TenantName, Problem> {
        let Principal::Token(token) = asker else { return Err(super::unauthenticated()) };
        let name = customer.parse::<TenantName>().map_err(|_| super::not_found())?;
        if token.scope.customer.as_ref().is_some_and(|customer| *customer != name) {
            return Err(super::not_found());
        }
        if token.scope.database.is_some() || token.scope.role < Role::Owner {
            let help = "use a token of an owner of all of the customer's databases";
            let detail = "this token does not reach everything of the customer";
            return Err(Problem::new(ProblemCode::Forbidden, detail, help));
        }
        if !self.tenants.has_customer(&name)? {
            return Err(super::not_found());
        }
        Ok(name)
    }
}

/// Some of these keys, as an entry names them.
pub(super) fn some_of<'k>(keys: impl Iterator<Item = &'k str>) -> Vec<String> {
    keys.take(KEYS_MAX).map(str::to_owned).collect()
}
