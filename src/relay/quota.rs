//! How much more a database takes in: what is to be written against its policies, before any of it is.
//!
//! **Invariant**: however many clients write at once, none of them brings a database over its quota of rows, or a table
//! over its own. Bytes are estimated from what is sent, so that quota is met to within what the store adds to rows.
//! What takes nothing more, deletes above all, is never refused. What devices bring was acknowledged to their users, so
//! it is counted and not refused.
//!
//! What there is the ledger counts as it goes, so a write costs the same however much there is. Only a batch that could
//! reach a quota is looked at row by row, one such batch at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::MutexGuard;

use super::policy::{Policies, Policy, PolicyScope};
use super::problem::{Problem, ProblemCode};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::{CollectionName, Operation, Request, SpaceId};
use crate::store::{Row, Upload, View};

/// So many databases at a time are looked at row by row.
const TURNS: usize = 64;

/// What holds for each table that a batch is about.
pub(super) type ByTable = BTreeMap<CollectionName, Policies>;

/// Rows and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    rows: u64,
    bytes: u64,
}

impl Amount {
    fn and(self, other: Self) -> Self {
        Self { rows: self.rows.saturating_add(other.rows), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn without(self, other: Self) -> Self {
        Self { rows: self.rows.saturating_sub(other.rows), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// The most that a request adds, whatever is there.
    fn most_of(request: &Request) -> Self {
        let (rows, bytes) = match &request.operation {
            Operation::Put(fields) | Operation::Update(fields) => (1, bytes_of(fields) + request.key.as_str().len()),
            Operation::Patch(fields) => (0, bytes_of(fields)),
            Operation::Add(_, value) | Operation::Resolve(_, value) => (0, bytes_of(value)),
            Operation::Delete
            | Operation::Unset(_)
            | Operation::Increment(..)
            | Operation::Remove(..)
            | Operation::Restore
            | Operation::Discard => (0, 0),
        };
        Self { rows, bytes: bytes as u64 }
    }

    /// What it adds to what is there.
    fn added_by(request: &Request, row: Option<&Row>) -> Self {
        let most = Self::most_of(request);
        let Some(fields) = row.and_then(|row| row.fields.as_ref()) else { return most };
        let replaced = match &request.operation {
            Operation::Put(_) => bytes_of(fields) + request.key.as_str().len(),
            Operation::Patch(new) => {
                new.keys().filter_map(|name| fields.get(name)).filter(|old| !old.is_object()).map(bytes_of).sum()
            }
            _ => 0,
        };
        Self { rows: 0, bytes: most.bytes.saturating_sub(replaced as u64) }
    }
}

fn bytes_of(json: &impl serde::Serialize) -> usize {
    serde_json::to_string(json).map_or(0, |text| text.len())
}

/// What is being written at this moment, per database: it may or may not be counted by the ledger yet.
#[derive(Debug)]
pub struct Quotas {
    under_way: Mutex<BTreeMap<SpaceId, Amount>>,
    /// Whose turn it is to be looked at row by row; databases share them by chance.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

impl Default for Quotas {
    fn default() -> Self {
        Self { under_way: Mutex::default(), turns: std::array::from_fn(|_| tokio::sync::Mutex::default()) }
    }
}

impl Quotas {
    fn turn(&self, space: SpaceId) -> &tokio::sync::Mutex<()> {
        &self.turns[usize::from(space.as_bytes()[0]) % TURNS]
    }

    /// Notes what is about to be written, if `fits` says of what others are writing that it does.
    fn begin(
        &self,
        space: SpaceId,
        amount: Amount,
        fits: impl FnOnce(Amount) -> Result<bool, Problem>,
    ) -> Result<Option<UnderWay<'_>>, Problem> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let others = under_way.get(&space).copied().unwrap_or_default();
        if !fits(others)? {
            return Ok(None);
        }
        under_way.insert(space, others.and(amount));
        Ok(Some(UnderWay { quotas: self, space, amount }))
    }
}

/// Something that is being written, until this is dropped.
struct UnderWay<'a> {
    quotas: &'a Quotas,
    space: SpaceId,
    amount: Amount,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.quotas.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = under_way.remove(&self.space).unwrap_or_default().without(self.amount);
        if rest != Amount::default() {
            under_way.insert(self.space, rest);
        }
    }
}

/// What may be written of a batch. It counts as being written until this is dropped.
#[derive(Default)]
pub(super) struct Admission<'a> {
    /// Why not, by the place in the batch.
    pub(super) refused: BTreeMap<usize, Problem>,
    _under_way: Option<UnderWay<'a>>,
    _turn: Option<MutexGuard<'a, ()>>,
}

/// What there is, as far as somebody limits it.
struct Room<'a> {
    view: &'a View,
    /// What holds for the database.
    policies: &'a Policies,
    /// Rows that each table may have.
    table_rows: BTreeMap<CollectionName, u64>,
    tables: BTreeSet<CollectionName>,
    rows: u64,
    bytes: u64,
    rows_of: BTreeMap<CollectionName, u64>,
}

impl<'a> Room<'a> {
    fn new(view: &'a View, policies: &'a Policies, table_rows: BTreeMap<CollectionName, u64>) -> Result<Self, Problem> {
        let failed = |error: crate::store::StoreError| node_problem(error.into());
        let (rows, bytes) = view.size().map_err(failed)?;
        let count = |table: &CollectionName| {
            Ok((table.clone(), view.table_count(table).map_err(failed)?.map_or(0, |(rows, _)| rows)))
        };
        let rows_of = table_rows.keys().map(count).collect::<Result<_, Problem>>()?;
        Ok(Self { view, policies, table_rows, tables: BTreeSet::new(), rows, bytes, rows_of })
    }

    /// Whether all quotas hold, whatever of this is new.
    fn holds_with(&self, amount: Amount) -> bool {
        let fits = |quota: Option<u64>, is: u64| quota.is_none_or(|quota| is <= quota);
        fits(self.policies.quota(Policy::Rows), self.rows.saturating_add(amount.rows))
            && fits(self.policies.quota(Policy::Bytes), self.bytes.saturating_add(amount.bytes))
            && (self.table_rows.iter()).all(|(table, quota)| {
                self.rows_of.get(table).copied().unwrap_or(0).saturating_add(amount.rows) <= *quota
            })
    }

    /// Takes in one more, if there is room for it.
    fn take(&mut self, request: &Request) -> Result<(), Problem> {
        let Request { collection, key, .. } = request;
        let row = self.view.row(collection, key).map_err(|error| node_problem(error.into()))?;
        let Amount { rows, bytes } = Amount::added_by(request, row.as_ref());
        let of_table = self.rows_of.get(collection).copied().unwrap_or(0) + rows;
        let is_new_table = rows > 0 && !self.view.has_collection(collection) && !self.tables.contains(collection);
        let tables = self.view.collections_count() + self.tables.len() as u64 + 1;
        let quota = |policy: Policy| self.policies.quota(policy).unwrap_or(u64::MAX);
        if rows > 0 && self.rows + rows > quota(Policy::Rows) {
            return Err(used_up(Policy::Rows, self.rows, quota(Policy::Rows)));
        }
        if let Some(quota) = self.table_rows.get(collection).filter(|quota| rows > 0 && of_table > **quota) {
            return Err(used_up(Policy::TableRows, of_table - rows, *quota));
        }
        if bytes > 0 && self.bytes.saturating_add(bytes) > quota(Policy::Bytes) {
            return Err(used_up(Policy::Bytes, self.bytes, quota(Policy::Bytes)));
        }
        if is_new_table && tables > quota(Policy::Tables) {
            return Err(used_up(Policy::Tables, tables - 1, quota(Policy::Tables)));
        }
        self.rows += rows;
        self.bytes = self.bytes.saturating_add(bytes);
        self.rows_of.insert(collection.clone(), of_table);
        if is_new_table {
            self.tables.insert(collection.clone());
        }
        Ok(())
    }
}

/// What is said when a quota is used up.
pub(super) fn used_up(policy: Policy, used: u64, quota: u64) -> Problem {
    let detail = format!("the quota of {policy} ({}) is used up: {used} of {quota}", policy.about());
    let help =
        "delete what is not needed, or ask whoever runs the relay for more; reading, deleting and exporting go on";
    Problem::new(ProblemCode::QuotaExceeded, detail, help).with("policy", policy.as_str())
}

impl Relay {
    /// What holds for a database, or a table of it.
    pub fn policies(&self, access: &Access, table: Option<&CollectionName>) -> Result<Policies, Problem> {
        self.tenants.policies(&PolicyScope::of(&access.database, table))
    }

    /// Looks at what is to be written, in order, and says what there is no room for.
    pub(super) async fn admit<'a>(
        &'a self,
        access: &Access,
        policies: &Policies,
        by_table: &ByTable,
        uploads: &[(usize, &Upload)],
    ) -> Result<Admission<'a>, Problem> {
        let requests = || uploads.iter().map(|(_, upload)| &upload.request);
        let space = access.database.space;
        let most = requests().map(Amount::most_of).fold(Amount::default(), Amount::and);
        if most == Amount::default() {
            return Ok(Admission::default());
        }
        let table_rows: BTreeMap<CollectionName, u64> = (by_table.iter())
            .filter_map(|(table, policies)| Some((table.clone(), policies.quota(Policy::TableRows)?)))
            .collect();
        let limits = |policy: Policy| policies.quota(policy).is_some();
        let counts = limits(Policy::Rows) || limits(Policy::Bytes) || !table_rows.is_empty();
        let view = self.view(access)?;
        let makes_table = limits(Policy::Tables) && by_table.keys().any(|table| !view.has_collection(table));
        if !makes_table && !counts {
            return Ok(Admission::default());
        }
        if !makes_table {
            // What others write is looked at before what there is: counted twice at worst, and never missed.
            let fits = |others: Amount| {
                let view = self.view(access)?;
                Ok(Room::new(&view, policies, table_rows.clone())?.holds_with(others.and(most)))
            };
            if let Some(under_way) = self.quotas.begin(space, most, fits)? {
                return Ok(Admission { _under_way: Some(under_way), ..Admission::default() });
            }
        }
        let turn = self.quotas.turn(space).lock().await;
        let mut others = Amount::default();
        let under_way = self.quotas.begin(space, most, |amount| {
            others = amount;
            Ok(true)
        })?;
        let view = self.view(access)?;
        let mut room = Room::new(&view, policies, table_rows)?;
        room.rows = room.rows.saturating_add(others.rows);
        room.bytes = room.bytes.saturating_add(others.bytes);
        room.rows_of.values_mut().for_each(|rows| *rows = rows.saturating_add(others.rows));
        let mut refused = BTreeMap::new();
        for (at, upload) in uploads {
            if let Err(problem) = room.take(&upload.request) {
                if problem.code != ProblemCode::QuotaExceeded {
                    return Err(problem);
                }
                refused.insert(*at, problem);
            }
        }
        Ok(Admission { refused, _under_way: under_way, _turn: Some(turn) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_counted_until_it_is_done() {
        let (quotas, space) = (Quotas::default(), SpaceId::from_bytes([1; 16]));
        let amount = |rows| Amount { rows, bytes: rows * 10 };
        let fits = |others: Amount| Ok(others.rows + 3 <= 7);
        let first = quotas.begin(space, amount(3), fits).expect("no fault").expect("it fits");
        let second = quotas.begin(space, amount(3), fits).expect("no fault").expect("it fits");
        assert!(quotas.begin(space, amount(3), fits).expect("no fault").is_none());
        assert!(quotas.begin(SpaceId::from_bytes([2; 16]), amount(3), fits).expect("no fault").is_some());
        drop(first);
        assert_eq!(quotas.under_way.lock().expect("no panic").get(&space), Some(&amount(3)));
        drop(second);
        assert!(quotas.under_way.lock().expect("no panic").is_empty());
    }
}
