//! Beginning a space anew, and the removal of what was in it.
//!
//! **Invariant (a wipe is clean)**: the new revision has a number of its own, under which nothing lies, from the commit on
//! that begins it. So nobody ever sees a part of the old one, however long its rows take to be removed: that happens
//! behind, some in each commit, and goes on where it was after a crash.
//!
//! What stays: how the space began, its name, and who may do what. Positions go on from where they were, so that no
//! version of a row is ever given twice.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value as Json};

use super::key;
use super::record::{self, FeedRow, SpaceRow, WipedRow};
use super::shelf;
use super::writing::{Writing, grant_request};
use super::{Ledger, WriteError};
use crate::model::{Grant, Operation, Request, Revision, Role, SpaceId, about};
use crate::store::{Read, StoreError};

/// So many grants are written in one event.
const GRANTS_AT_ONCE: usize = 200;
/// About how many bytes of rows are removed in one commit.
const REMOVED_BYTES_MAX: usize = 4 << 20;
/// How long it is remembered that something was removed, and how many removals of a space.
const REMEMBERED_MS: u64 = 30 * 86_400_000;
const REMEMBERED: usize = 16;
/// So many revisions of a space may wait to be removed. Whoever begins it anew more often waits.
const BACKLOG_MAX: usize = 16;

/// How far what was in a space before a wipe is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The space.
    pub space: SpaceId,
    /// The revision that began with that wipe.
    pub revision: u64,
    /// How many objects could be seen then.
    pub objects: u64,
    /// How many of them are removed.
    pub removed: u64,
    /// When it was wiped, in milliseconds since 1970.
    pub at_ms: u64,
    /// When all of it was removed; none if it is not yet.
    pub done_ms: Option<u64>,
    /// How often it was interrupted and gone on with: by a restart, or because the disk failed.
    pub interrupted: u64,
    /// How often a step failed in which it was to go on, whatever was at fault: all removals share their steps.
    pub errors: u64,
}

impl Removal {
    /// What the removal is called after which that revision of a space began.
    pub fn id_of(space: SpaceId, revision: u64) -> String {
        format!("wipe-{space}-{revision}")
    }

    /// What it is called.
    pub fn id(&self) -> String {
        Self::id_of(self.space, self.revision)
    }

    /// `running` or `done`.
    pub fn state(&self) -> &'static str {
        if self.done_ms.is_some() { "done" } else { "running" }
    }
}

fn wiped_rows(read: &dyn Read) -> Result<Vec<(u32, WipedRow)>, StoreError> {
    let mut rows = Vec::new();
    shelf::rows(read, &key::all_wiped(), |key, row: WipedRow| {
        let number = key::number_at(key, 1).ok_or_else(|| StoreError::Damaged("a wiped revision".to_owned()))?;
        rows.push((number, row));
        Ok(())
    })?;
    Ok(rows)
}

/// The numbers of the revisions that are over, of which something may still be there.
pub(super) fn unremoved(read: &dyn Read) -> Result<Vec<u32>, StoreError> {
    let rows = wiped_rows(read)?.into_iter();
    Ok(rows.filter(|(_, row)| row.done_ms.is_none()).map(|(number, _)| number).collect())
}

impl Ledger {
    /// What was wiped here and is being removed, or was not long ago; the earliest first.
    pub fn removals(&self) -> Result<Vec<Removal>, StoreError> {
        let unwritten = self.removal_errors.load(Ordering::Relaxed);
        let removal = |(_, row)| {
            let WipedRow { space, revision, objects, removed, at_ms, done_ms, interrupted, errors } = row;
            let errors = if done_ms.is_none() { errors + unwritten } else { errors };
            Removal { space, revision, objects, removed, at_ms, done_ms, interrupted, errors }
        };
        Ok(wiped_rows(&*self.store.snapshot()?)?.into_iter().map(removal).collect())
    }

    /// How many rows belong to revisions that are over. For the simulator's oracles.
    #[doc(hidden)]
    pub fn rows_left_behind(&self) -> Result<usize, StoreError> {
        let writer = self.lock();
        let read = self.store.snapshot()?;
        let is_held = |number: &u32| writer.shelves.values().any(|shelf| shelf.row.number == *number);
        let mut rows = 0;
        for number in (0..writer.meta.next_number).filter(|number| !is_held(number)) {
            for prefix in key::all_of(number) {
                read.scan(&prefix, &key::after_prefix(&prefix), &mut |_, _| {
                    rows += 1;
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(rows)
    }
}

impl Writing<'_> {
    /// Begins a space anew on this device's word, if it is at the revision `only` where that is given, and writes again
    /// who may do what in it.
    pub(super) fn wipe(&mut self, space: SpaceId, only: Option<u64>) -> Result<Result<u64, WriteError>, StoreError> {
        let Some(shelf) = self.shelves.get(&space) else { return Ok(Err(WriteError::UnknownSpace(space))) };
        let role = shelf.access.role(self.me.device);
        // Whoever owned the revision before can show it. Should what began the present one be lost, that is the way out.
        let owned = shelf.access.is_waiting() && shelf.access.vouchers(space, self.me.device).is_some();
        // Who is none cannot be vouched for either: this only says it more plainly.
        if role != Some(Role::Owner) && !owned {
            if shelf.access.is_waiting() {
                return Ok(Err(WriteError::Waiting));
            }
            let role = role.map_or_else(|| "not a member yet".to_owned(), |role| role.to_string());
            return Ok(Err(WriteError::NotGranted { role }));
        }
        if only.is_some_and(|only| only != shelf.row.revision.number()) {
            return Ok(Err(WriteError::Changed { index: 0 }));
        }
        let is_left = |(_, row): &&(u32, WipedRow)| row.space == space && row.done_ms.is_none();
        if wiped_rows(self.read)?.iter().filter(is_left).count() >= BACKLOG_MAX {
            return Ok(Err(WriteError::Backlog));
        }
        let vouchers = shelf.access.vouchers(space, self.me.device);
        let next = vouchers.and_then(|vouchers| shelf.row.revision.next(space, vouchers, self.key));
        let Some(next) = next else { return Ok(Err(WriteError::Unvouched)) };
        let mut grants: Vec<Grant> = shelf.access.members().cloned().collect();
        // Who began the present revision owns it, whether or not what they said of that has come.
        for (device, voucher) in shelf.row.revision.begun() {
            if shelf.access.granted(device) != Some(Role::Owner) {
                grants.retain(|grant| grant.device != device);
                grants.push(Grant { device, role: Role::Owner, ticket: None, voucher });
            }
        }
        let (collection, key) = about();
        let about = self.about(space)?;
        let number = next.number();
        self.begin_anew(space, next)?;
        let named = Request { collection, key, operation: Operation::Put(about) };
        let mut requests: Vec<Request> = std::iter::once(named).chain(grants.iter().map(grant_request)).collect();
        if planted!("wipe-forgets-members") {
            requests.truncate(2);
        }
        self.write_all(space, &requests)?;
        Ok(Ok(number))
    }

    fn write_all(&mut self, space: SpaceId, requests: &[Request]) -> Result<(), StoreError> {
        for requests in requests.chunks(GRANTS_AT_ONCE) {
            if let Err(error) = self.write(space, requests)? {
                return Err(StoreError::Damaged(format!("grants that cannot be written again: {error}")));
            }
        }
        Ok(())
    }

    /// Says again who may do what in the spaces that went over to another revision in this commit, where this device owns
    /// them whatever is granted: whoever began that revision may not have known of all members, and what it said of them
    /// may be lost with its disk.
    pub(super) fn say_again(&mut self) -> Result<(), StoreError> {
        for (space, grants) in std::mem::take(&mut self.followed) {
            let Some(access) = self.shelves.get(&space).map(|shelf| &shelf.access) else { continue };
            if access.role(self.me.device) != Some(Role::Owner) {
                continue;
            }
            let is_missing = |grant: &&Grant| access.granted(grant.device) < Some(grant.role);
            let requests: Vec<Request> = grants.iter().filter(is_missing).map(grant_request).collect();
            self.write_all(space, &requests)?;
        }
        Ok(())
    }

    /// Goes over to a revision that owners began elsewhere.
    pub(super) fn follow(&mut self, space: SpaceId, revision: &Revision) -> Result<(), StoreError> {
        let Some(shelf) = self.shelves.get_mut(&space) else { return Ok(()) };
        let is_new = revision.adds_to(&shelf.row.revision);
        if !is_new || revision.verify(space, shelf.row.genesis.creator).is_err() {
            return Ok(());
        }
        if revision.number() > shelf.row.revision.number() {
            let grants = shelf.access.members().cloned().collect();
            self.followed.insert(space, grants);
            return self.begin_anew(space, revision.clone());
        }
        // Another owner began the same one: what it writes in it counts too.
        shelf.row.revision.join(revision);
        shelf.access.begin(shelf.row.revision.owners());
        let row = shelf.row.clone();
        self.put(key::space(space.as_bytes()), &row);
        self.fresh.insert(space);
        Ok(())
    }

    /// What a space says about itself, as far as that has come.
    fn about(&mut self, space: SpaceId) -> Result<Map<String, Json>, StoreError> {
        let (collection, key) = about();
        let shown = self.object(space, &collection, &key)?.object.shown();
        let name = || self.shelves.get(&space).map(|shelf| ("name".to_owned(), shelf.row.name.as_str().into()));
        Ok(shown.unwrap_or_else(|| name().into_iter().collect()))
    }

    /// Leaves everything behind that was in a space.
    fn begin_anew(&mut self, space: SpaceId, revision: Revision) -> Result<(), StoreError> {
        // Until the grants of the new revision have come it is known whom to speak to, and what the space is called.
        let about = self.about(space)?;
        self.forget(space);
        let Some(shelf) = self.shelves.get(&space) else { return Ok(()) };
        let name = about.get("name").and_then(Json::as_str).unwrap_or(&shelf.row.name).to_owned();
        let inherited = shelf.access.members().cloned().collect();
        let (before, totals) = (shelf.row.number, shelf.totals.clone());
        let row = WipedRow {
            space,
            revision: revision.number(),
            objects: totals.objects,
            removed: 0,
            at_ms: self.chance.now_ms,
            done_ms: None,
            interrupted: 0,
            errors: 0,
        };
        let next = SpaceRow { revision, inherited, name, ..shelf.row.clone() };
        if !planted!("wiped-rows-stay") {
            self.put(key::wiped(before), &row);
        }
        // What peers acknowledged was of the old revision.
        let acknowledged = key::acknowledgements(space.as_bytes());
        let mut gone = Vec::new();
        self.read.scan(&acknowledged, &key::after_prefix(&acknowledged), &mut |key, _| {
            gone.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        self.batch.extend(gone.into_iter().map(|key| (key, None)));
        self.hold(next);
        if let Some(shelf) = self.shelves.get_mut(&space) {
            // The wipe itself takes a place: whoever watches where the feed stands notices it.
            shelf.totals.position = if planted!("positions-begin-again") { 0 } else { totals.position + 1 };
            (shelf.totals.horizon, shelf.totals.begun) = (shelf.totals.position, shelf.totals.position);
            let (number, totals) = (shelf.row.number, shelf.totals.clone());
            self.put(key::totals(number), &totals);
        }
        Ok(())
    }

    /// Removes up to `rows_max` rows of what was wiped, the earliest first, `again` after an interruption. Returns whether
    /// there may be more.
    pub(super) fn remove_wiped(&mut self, again: bool, rows_max: usize) -> Result<bool, StoreError> {
        let rows = wiped_rows(self.read)?;
        self.forget_removals(&rows);
        let (mut gone, mut bytes): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
        let mut more = false;
        for (number, mut row) in rows.into_iter().filter(|(_, row)| row.done_ms.is_none()) {
            if more {
                break;
            }
            row.interrupted += u64::from(again);
            row.errors += self.removal_errors;
            let feed = key::feed(number);
            for prefix in key::all_of(number) {
                let of_feed = prefix == feed;
                self.read.scan(&prefix, &key::after_prefix(&prefix), &mut |key, value| {
                    if gone.len() >= rows_max || bytes >= REMOVED_BYTES_MAX {
                        more = true;
                        return ControlFlow::Break(());
                    }
                    let is_visible = |value| record::read(key, value).is_ok_and(|row: FeedRow| !row.deleted);
                    // What cannot be read is removed all the same; only nobody counts it.
                    row.removed += u64::from(of_feed && is_visible(value));
                    bytes += value.len();
                    gone.push(key.to_vec());
                    ControlFlow::Continue(())
                })?;
            }
            row.done_ms = (!more).then_some(self.chance.now_ms);
            self.put(key::wiped(number), &row);
        }
        self.batch.extend(gone.into_iter().map(|key| (key, None)));
        Ok(more)
    }

    /// Forgets removals that are done: those of long ago, and all but the latest ones of a space.
    fn forget_removals(&mut self, rows: &[(u32, WipedRow)]) {
        let mut later: BTreeMap<SpaceId, usize> = BTreeMap::new();
        for (number, row) in rows.iter().rev() {
            let Some(done_ms) = row.done_ms else { continue };
            let later = later.entry(row.space).or_default();
            *later += 1;
            if *later > REMEMBERED || self.chance.now_ms.saturating_sub(done_ms) > REMEMBERED_MS {
                self.batch.insert(key::wiped(*number), None);
            }
        }
    }
}
