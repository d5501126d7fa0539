//! A crash at every operation of small stories, with every kind of tear, and a second one in the recovery from it.
//!
//! What must hold: the store opens, and holds exactly what it held when something was last acknowledged, or what it was
//! going to hold after what was just being done. Before the first creation was acknowledged there may be no store,
//! and then one can be made. A second crash, at any operation of the opening, changes nothing of that; one after it
//! changes nothing of what was seen. And the store that was opened takes another commit. (The second crash at every
//! operation, and the commit, are tried after some of the first crashes, in turn over operations and tears.)
//!
//! A crash at a read leaves what a crash at the next change leaves; only changes, syncs and renames are counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thence::store::{Batch, Store, StoreError};

use super::stories::{Entry, Rows, STORIES, Story, Teller, first_batch, rows};
use crate::world::{Chance, Change, Medium, Step, Tear};

/// What was tried, and what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many stories were told.
    pub stories: usize,
    /// How many operations there were in them at which a process was made to die.
    pub operations: u64,
    /// How many crashes that was: each operation with each tear.
    pub points: u64,
    /// How many crashes there were during the recoveries from these.
    pub recovery_points: u64,
    /// What is wrong, in words.
    pub failures: Vec<String>,
}

/// Tries every `every`-th operation of every story. `seed` decides what tears leave to chance.
pub fn crash_points(seed: u64, every: usize) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(story) = STORIES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = crashes_of(story, seed, every.max(1));
                    let mut all = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    all.stories += 1;
                    all.operations += report.operations;
                    all.points += report.points;
                    all.recovery_points += report.recovery_points;
                    all.failures.extend(report.failures);
                }
            });
        }
    });
    let mut report = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort();
    report
}

/// A file as some steps have made it.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    changes: Vec<Change>,
    is_named: bool,
    /// Whether it has its name for certain.
    is_kept: bool,
}

impl File {
    fn of(bytes: Vec<u8>) -> Self {
        Self { durable: bytes, changes: Vec::new(), is_named: true, is_kept: true }
    }

    /// A step was begun: it may be done, in part or whole.
    fn begin(&mut self, step: &Step) {
        match step {
            Step::Change(change) => self.changes.push(change.clone()),
            Step::Rename => self.is_named = true,
            Step::Sync | Step::SyncFolder => {}
        }
    }

    /// It was done.
    fn end(&mut self, step: &Step) {
        match step {
            Step::Sync => self.changes.drain(..).for_each(|change| change.apply(&mut self.durable)),
            Step::SyncFolder => self.is_kept = true,
            Step::Change(_) | Step::Rename => {}
        }
    }

    fn torn(&self, tear: Tear) -> Vec<u8> {
        tear.apply(&self.durable, &self.changes)
    }
}

/// What a store may hold after a crash.
struct Allowed {
    /// What was acknowledged last; nothing before there was a store.
    before: Option<Arc<Rows>>,
    /// What was just being made of it.
    after: Arc<Rows>,
}

impl Allowed {
    fn check(&self, found: &Rows) -> Result<(), String> {
        if *self.after == *found || self.before.as_ref().is_some_and(|before| **before == *found) {
            return Ok(());
        }
        let (before, after, found) = (self.before.as_ref().map(|rows| rows.len()), self.after.len(), found.len());
        Err(format!("{found} rows, which are neither the {before:?} before nor the {after} after"))
    }
}

fn crashes_of(story: &Story, seed: u64, every: usize) -> Report {
    let mut report = Report::default();
    let name = story.0;
    let entries = match Teller::tell(story) {
        Ok(entries) => entries,
        Err(error) => {
            report.failures.push(format!("{name}: without a crash: {error}"));
            return report;
        }
    };
    let mut file = File::default();
    let mut before = None;
    let mut rest = entries.as_slice();
    // What is made of the store by what comes next.
    let after = |rest: &[Entry]| {
        rest.iter().find_map(|entry| match entry {
            Entry::Done(rows) => Some(Arc::clone(rows)),
            Entry::Step(_) => None,
        })
    };
    while let Some((entry, others)) = rest.split_first() {
        match entry {
            Entry::Done(rows) => before = Some(Arc::clone(rows)),
            Entry::Step(step) => {
                file.begin(step);
                report.operations += 1;
                let number = report.operations;
                if (number + seed).is_multiple_of(every as u64)
                    && let Some(after) = after(rest)
                {
                    let allowed = Allowed { before: before.clone(), after };
                    for (kind, tear) in Tear::all(Chance::new(seed).draw(name, number, 0)).into_iter().enumerate() {
                        report.points += 1;
                        match crash(&file, tear, &allowed, number.wrapping_add(kind as u64)) {
                            Ok(more) => report.recovery_points += more,
                            Err(wrong) => {
                                let what = format!("{name}: a crash at operation {number}, {tear:?} left: {wrong}");
                                report.failures.push(what);
                            }
                        }
                    }
                }
                file.end(step);
            }
        }
        rest = others;
    }
    report
}

/// One crash, the recovery from it, and crashes during that. Returns how many these were.
fn crash(file: &File, tear: Tear, allowed: &Allowed, number: u64) -> Result<u64, String> {
    let chance = Chance::new(number);
    let bytes = file.torn(tear);
    let is_there = file.is_kept || (file.is_named && number.is_multiple_of(2));
    let said = |error: StoreError| error.to_string();
    if !is_there {
        if allowed.before.is_some() {
            return Err("it is not there any more".to_owned());
        }
        // What a crash left beside its place is replaced.
        let medium = Medium::left_beside(chance, bytes);
        let made = rows(&*medium.store(&first_batch()).map_err(said)?).map_err(said)?;
        return allowed.check(&made).map(|()| 0);
    }
    let medium = Medium::recorded(chance, Some(bytes.clone()));
    let (store, found) = open(&medium)?;
    allowed.check(&found)?;
    let steps = medium.take_steps();
    if number.is_multiple_of(8) {
        commit_one_more(&*store, &found)?;
    }
    medium.cut();
    drop(store);

    let mut recovering = File::of(bytes);
    let mut recovery_points = 0;
    for (at, step) in steps.iter().enumerate() {
        recovering.begin(step);
        if !number.is_multiple_of(4) {
            recovering.end(step);
            continue;
        }
        let tears = Tear::all(chance.draw("second crash", at as u64, 0));
        let tear = tears[usize::try_from(number.wrapping_add(at as u64) % 8).unwrap_or(0)];
        let (_, again) = reopen(chance, recovering.torn(tear))?;
        allowed.check(&again).map_err(|wrong| format!("{wrong}, after a second crash, {tear:?} left"))?;
        recovery_points += 1;
        recovering.end(step);
    }
    // Somebody saw it: now it stays, though nothing more was synced.
    let (_, again) = reopen(chance, recovering.torn(Tear::Moment(0)))?;
    if again != found {
        return Err(format!("{} rows were seen, and {} after a second crash", found.len(), again.len()));
    }
    Ok(recovery_points + 1)
}

fn reopen(chance: Chance, bytes: Vec<u8>) -> Result<(Arc<dyn Store>, Rows), String> {
    open(&Medium::recorded(chance, Some(bytes)))
}

fn open(medium: &Medium) -> Result<(Arc<dyn Store>, Rows), String> {
    let store = medium.store(&Batch::new()).map_err(|error| format!("it does not open: {error}"))?;
    let found = rows(&*store).map_err(|error| format!("it cannot be read: {error}"))?;
    match store.damage() {
        Some(damage) => Err(damage),
        None => Ok((store, found)),
    }
}

/// A store that was opened works.
fn commit_one_more(store: &dyn Store, found: &Rows) -> Result<(), String> {
    let said = |error: StoreError| format!("it does not work: {error}");
    let (key, value) = (b"m one more".to_vec(), b"value".to_vec());
    store.commit(&mut |_| Ok(Batch::from([(key.clone(), Some(value.clone()))]))).map_err(said)?;
    let mut expected = found.clone();
    expected.insert(key, value);
    if rows(store).map_err(said)? == expected { Ok(()) } else { Err("a commit after it is not there".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_before_nor_after_is_noticed() {
        let one = |value: u8| Arc::new(Rows::from([(vec![1], vec![value])]));
        let allowed = Allowed { before: Some(one(1)), after: one(2) };
        assert!(allowed.check(&one(1)).is_ok() && allowed.check(&one(2)).is_ok());
        assert!(allowed.check(&one(3)).is_err() && allowed.check(&Rows::new()).is_err());
    }
}
