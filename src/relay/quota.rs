//! How much more a database takes in: what is to be written against its policies, before any of it is.
//!
//! **Invariant**: however many clients write at once, none of them brings a database over its quota of rows, or a table
//! over its own. Bytes are estimated from what is sent, so that quota is met to within what the store adds to rows.
//! What takes nothing more is never refused: deletes above all, and a write whose id has taken effect before. What devices
//! bring was acknowledged to their users, so it is counted and not refused.
//!
//! What there is the ledger counts as it goes, so a write costs the same however much there is. Only a batch that could
//! reach a quota is looked at row by row, one such batch at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value as Json};
use tokio::sync::MutexGuard;

use super::policy::{Policies, Policy, PolicyScope};
use super::problem::{Problem, ProblemCode};
use super::tenant::node_problem;
use super::upload::is_known;
use super::{Access, Database, Relay};
use crate::model::{CollectionName, Operation, Path, Request, SpaceId};
use crate::store::{StoreError, Upload, View};

/// So many databases at a time are looked at.
const PLACES: usize = 64;
/// What an entry of a counter takes beside its name, about.
const COUNTER_BYTES: usize = 20;

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
            Operation::Add(path, value) | Operation::Resolve(path, value) => (0, name_bytes(path) + bytes_of(value)),
            Operation::Increment(path, _) => (0, name_bytes(path) + COUNTER_BYTES),
            // Its bytes are there already.
            Operation::Restore => (1, 0),
            Operation::Delete | Operation::Unset(_) | Operation::Remove(..) | Operation::Discard => (0, 0),
        };
        Self { rows, bytes: bytes as u64 }
    }

    /// What it adds to a row of these fields. `keeps` says whether what is there may stay beside what is written, as it
    /// does if its writer had not seen all of it: then nothing is replaced.
    fn added_by(request: &Request, fields: Option<&Map<String, Json>>, keeps: bool) -> Self {
        let most = Self::most_of(request);
        let Some(fields) = fields else { return most };
        let replaced = match &request.operation {
            // Counting goes on from all that is there, whatever its writer had seen.
            Operation::Increment(path, _) if shown_at(fields, path).is_some() => usize::MAX,
            Operation::Add(path, value) if is_in_set(shown_at(fields, path), value) => usize::MAX,
            _ if keeps => 0,
            Operation::Put(_) => bytes_of(fields) + request.key.as_str().len(),
            Operation::Patch(new) => {
                let old = fields.iter().filter(|(name, old)| new.contains_key(*name) && !old.is_object());
                bytes_of(&old.collect::<BTreeMap<_, _>>())
            }
            _ => 0,
        };
        Self { rows: 0, bytes: most.bytes.saturating_sub(replaced as u64) }
    }
}

fn name_bytes(path: &Path) -> usize {
    path.names().iter().map(String::len).sum()
}

/// What a field shows.
fn shown_at<'a>(fields: &'a Map<String, Json>, path: &Path) -> Option<&'a Json> {
    let (first, rest) = path.names().split_first()?;
    rest.iter().try_fold(fields.get(first)?, |map, name| map.get(name))
}

fn is_in_set(shown: Option<&Json>, element: &Json) -> bool {
    shown.and_then(Json::as_array).is_some_and(|elements| elements.contains(element))
}

/// How many bytes something has as JSON.
pub(super) fn bytes_of(json: &impl serde::Serialize) -> usize {
    serde_json::to_string(json).map_or(0, |text| text.len())
}

/// What is being written at this moment, per database: it may or may not be counted by the ledger yet.
///
/// What there is has to be read while nobody else begins or ends: what a write that ends in between has added would be
/// seen neither here nor there. So reads are waited for, and only databases that share a place wait for each other.
#[derive(Debug)]
pub struct Quotas {
    places: [Place; PLACES],
}

/// Databases that share it by chance.
#[derive(Debug, Default)]
struct Place {
    under_way: Mutex<BTreeMap<SpaceId, Amount>>,
    /// Whose turn it is to be looked at row by row.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Place::default()) }
    }
}

impl Quotas {
    fn place(&self, space: SpaceId) -> &Place {
        &self.places[usize::from(space.as_bytes()[0]) % PLACES]
    }

    /// Has nobody else make tables of that database, or open tickets to it, until this is dropped.
    pub(super) async fn turn(&self, space: SpaceId) -> MutexGuard<'_, ()> {
        self.place(space).turn.lock().await
    }

    /// Notes what is about to be written, if `fits` says of what others are writing that it does.
    fn begin(
        &self,
        space: SpaceId,
        amount: Amount,
        fits: impl FnOnce(Amount) -> Result<bool, Problem>,
    ) -> Result<Option<UnderWay<'_>>, Problem> {
        let place = self.place(space);
        let mut under_way = place.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let others = under_way.get(&space).copied().unwrap_or_default();
        if !fits(others)? {
            return Ok(None);
        }
        under_way.insert(space, others.and(amount));
        Ok(Some(UnderWay { place, space, amount }))
    }
}

/// Something that is being written, until this is dropped.
struct UnderWay<'a> {
    place: &'a Place,
    space: SpaceId,
    amount: Amount,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.place.under_way.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// The tables that have settings and no rows, and those that this batch makes.
    tables: BTreeSet<CollectionName>,
    rows: u64,
    bytes: u64,
    rows_of: BTreeMap<CollectionName, u64>,
}

impl<'a> Room<'a> {
    fn new(view: &'a View, policies: &'a Policies, table_rows: BTreeMap<CollectionName, u64>) -> Result<Self, Problem> {
        let failed = |error: StoreError| node_problem(error.into());
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
    fn take(&mut self, upload: &Upload) -> Result<(), Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let Upload { request, seen, .. } = upload;
        let Request { collection, key, .. } = request;
        if is_known(self.view, upload)? {
            return Ok(());
        }
        let object = self.view.state(collection, key).map_err(failed)?.unwrap_or_default();
        let keeps = seen.as_ref().is_some_and(|seen| !seen.covers(&object));
        let Amount { rows, bytes } = Amount::added_by(request, object.shown().as_ref(), keeps);
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
        let turn = self.quotas.turn(space).await;
        let mut others = Amount::default();
        let under_way = self.quotas.begin(space, most, |amount| {
            others = amount;
            Ok(true)
        })?;
        let view = self.view(access)?;
        let mut room = Room::new(&view, policies, table_rows)?;
        if makes_table {
            room.tables = self.tables_without_rows(&access.database, &view)?;
        }
        room.rows = room.rows.saturating_add(others.rows);
        room.bytes = room.bytes.saturating_add(others.bytes);
        room.rows_of.values_mut().for_each(|rows| *rows = rows.saturating_add(others.rows));
        let mut refused = BTreeMap::new();
        for (at, upload) in uploads {
            if let Err(problem) = room.take(upload) {
                if problem.code != ProblemCode::QuotaExceeded {
                    return Err(problem);
                }
                refused.insert(*at, problem);
            }
        }
        Ok(Admission { refused, _under_way: under_way, _turn: Some(turn) })
    }

    /// Waits until a table may be made by what is set of it, or says that there are too many. None other is made until
    /// the turn is dropped.
    pub(super) async fn admit_table(
        &self,
        access: &Access,
        table: &CollectionName,
    ) -> Result<MutexGuard<'_, ()>, Problem> {
        let turn = self.quotas.turn(access.database.space).await;
        let view = self.view(access)?;
        let others = self.tables_without_rows(&access.database, &view)?;
        if view.has_collection(table) || others.contains(table) {
            return Ok(turn);
        }
        let (tables, quota) =
            (view.collections_count() + others.len() as u64, self.policies(access, None)?.quota(Policy::Tables));
        match quota.filter(|quota| tables >= *quota) {
            Some(quota) => Err(used_up(Policy::Tables, tables, quota)),
            None => Ok(turn),
        }
    }

    /// The tables of which something is set, and to which nothing was ever written.
    pub(super) fn tables_without_rows(
        &self,
        database: &Database,
        view: &View,
    ) -> Result<BTreeSet<CollectionName>, Problem> {
        let set = self.tenants.tables(database)?.into_iter();
        let names = set.filter_map(|(name, _)| CollectionName::user(&name).ok());
        Ok(names.filter(|name| !view.has_collection(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let left = || quotas.place(space).under_way.lock().expect("no panic").get(&space).copied();
        assert_eq!(left(), Some(amount(3)));
        drop(second);
        assert_eq!(left(), None);
    }

    #[test]
    fn what_may_stay_beside_what_is_written_is_not_counted_as_replaced() {
        let fields = |json: Json| json.as_object().cloned().expect("an object");
        let there = fields(json!({"text": "0123456789", "count": 1, "in": {"count": 1}, "set": ["a"]}));
        let bytes = |operation: Operation, keeps: bool| {
            let (collection, key) = (CollectionName::user("t").expect("a name"), "k".parse().expect("a key"));
            let request = Request { collection, key, operation };
            let Amount { rows, bytes } = Amount::added_by(&request, Some(&there), keeps);
            assert_eq!(rows, 0);
            assert!(bytes <= Amount::most_of(&request).bytes, "what is looked at first is the most");
            bytes
        };
        let path = |text: &str| text.parse::<Path>().expect("a path");
        let put = |json: Json| Operation::Put(fields(json));
        let patch = |json: Json| Operation::Patch(fields(json));
        assert_eq!(bytes(put(there.clone().into()), false), 0);
        assert!(bytes(put(there.clone().into()), true) > 50, "it stands beside what is there");
        assert_eq!(bytes(patch(json!({"text": "9876543210"})), false), 0);
        assert_eq!(bytes(patch(json!({"text": "98765432101"})), false), 1);
        assert!(bytes(patch(json!({"text": "9876543210"})), true) > 10);
        let long = "n".repeat(1000);
        assert!(bytes(Operation::Increment(path(&long), 1), false) >= 1000, "it may add a field");
        for keeps in [true, false] {
            assert_eq!(bytes(Operation::Increment(path("count"), 1), keeps), 0);
            assert_eq!(bytes(Operation::Increment(path("/in/count"), 1), keeps), 0);
            assert!(bytes(Operation::Increment(path("/in/other"), 1), keeps) > 0);
            assert_eq!(bytes(Operation::Add(path("set"), json!("a")), keeps), 0);
            assert!(bytes(Operation::Add(path("set"), json!("b")), keeps) > 0);
            assert_eq!(bytes(Operation::Delete, keeps), 0);
        }
    }
}
