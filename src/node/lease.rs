//! Whether a store is still the one that this folder's device wrote last, and not a copy or an older state of it.
//!
//! | file beside the store | what it says |
//! |---|---|
//! | `store.lease` | which replica id, and which file, by inode; and a word, which the store remembers with the inode of this file |
//! | `store.closed` | only while nobody has the store open: its length and time of last change when it was closed |
//!
//! A store that was copied, moved to another disk, replaced or put back does not agree with all of this: inodes are not
//! copied, and what is put back in place is not what was closed last. That owners, permissions or links change is none
//! of its business: containers do that at every start.
//!
//! A store that does not agree begins to write under another replica id, before its first write, so that no dot is ever
//! used twice. What cannot be seen from here (a disk image that was put back below the file system, or a whole folder in
//! place with all of its times) is found out from peers: [`crate::replica::Output::Behind`], and two histories under one
//! id are told apart.
//!
//! **Invariant**: a lease that does not hold costs a new replica id and nothing else; so in doubt it does not hold.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::causal::ReplicaId;
use crate::store::{Ledger, Renewal, StoreError, Work};

/// Under this name the store remembers its lease.
const REMEMBERED: &str = "lease";

/// The files beside one store.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    store: PathBuf,
    lease: PathBuf,
    closed: PathBuf,
}

/// What tells a file from all others, and from itself at another time. Empty where the platform does not say.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (String, String) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino().to_string(), format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (String, String) {
    (String::new(), String::new())
}

impl Lease {
    pub(super) fn of(store: &Path) -> Self {
        Self {
            store: store.to_owned(),
            lease: store.with_file_name("store.lease"),
            closed: store.with_file_name("store.closed"),
        }
    }

    /// What `store.closed` says if the store is closed now.
    fn as_closed(&self) -> io::Result<String> {
        let metadata = fs::metadata(&self.store)?;
        Ok(format!("{} {}\n", metadata.len(), identity(&metadata).1))
    }

    fn as_leased(&self, replica: ReplicaId, word: &str) -> io::Result<String> {
        Ok(format!("{replica} {} {word}\n", identity(&fs::metadata(&self.store)?).0))
    }

    /// What the store remembers of its lease: the inode of that file, and its word.
    fn as_remembered(&self, word: &str) -> io::Result<String> {
        Ok(format!("{} {word}", identity(&fs::metadata(&self.lease)?).0))
    }

    /// Looks at how the store was left, before it is opened and so changed. Returns whether that is how it is now.
    pub(super) fn opening(&self) -> bool {
        let said = fs::read_to_string(&self.closed);
        match &said {
            // Nobody closed it: whoever had it open was killed.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(said) => self.as_closed().is_ok_and(|now| now == *said),
        }
    }

    /// Takes the lease over, or begins a new incarnation if it does not hold. `is_as_left` is what
    /// [`Lease::opening`] said; `nonce` is drawn at random. With `run`, a new lease is made in any case, so that an older
    /// state of the store is known by the lease that it remembers.
    pub(super) fn take(
        &self,
        ledger: &Ledger,
        is_as_left: bool,
        run: bool,
        now_ms: u64,
        nonce: u64,
    ) -> Result<(), StoreError> {
        let remembered = ledger.setting(REMEMBERED)?;
        // One that never had a lease was just made, empty or from a backup, and its replica id with it.
        let is_new = remembered.is_none();
        let leased = fs::read_to_string(&self.lease).ok();
        let word = leased.as_ref().and_then(|said| said.split_whitespace().nth(2)).unwrap_or_default().to_owned();
        let holds = is_as_left
            && leased.is_some_and(|said| self.as_leased(ledger.replica(), &word).is_ok_and(|now| now == said))
            && remembered.is_some_and(|said| self.as_remembered(&word).is_ok_and(|now| now == said));
        if !holds && !is_new {
            ledger.commit(&[Work::Renew { before: ledger.replica(), reason: Renewal::Lease }], now_ms, nonce)?;
        }
        if !holds || run {
            self.make(ledger, now_ms, nonce)?;
        }
        // Only now: whoever is killed before this leaves what says that the store is not as it was left.
        match fs::remove_file(&self.closed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io(format!("{}: {error}", self.closed.display())))
            }
            _ => Ok(()),
        }
    }

    /// Makes a new lease: for another replica id, or so that an older state of the store is known.
    pub(super) fn make(&self, ledger: &Ledger, now_ms: u64, nonce: u64) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::Io(format!("{}: {error}", self.lease.display()));
        // It need not be a secret, only another one for every lease.
        let word = format!("{:016x}", nonce.rotate_left(32));
        let text = self.as_leased(ledger.replica(), &word).map_err(failed)?;
        let beside = self.lease.with_extension("new");
        let written = (|| {
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.lease)?;
            self.as_remembered(&word)
        })();
        let value = written.map_err(failed)?;
        ledger.commit(&[Work::Setting { name: REMEMBERED.to_owned(), value }], now_ms, nonce)?;
        Ok(())
    }

    /// Notes how the store is left, once it is closed.
    pub(super) fn closed(&self) {
        // Should this fail, the next one to open it finds a store that nobody closed, which is no worse.
        let _ = self.as_closed().and_then(|text| fs::write(&self.closed, text));
    }
}
