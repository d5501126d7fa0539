//! The keys that seal sync points.
//!
//! They lie in a file of their own beside the store, so that neither the store nor a backup of it holds them: what comes
//! back from a backup does not know how to read what was sealed since.
//!
//! **Invariant**: a key is on the disk before anything is sealed with it. Where a new one cannot be kept, as on a full disk,
//! the last one serves on: what it sealed opens as before, and no client is kept waiting for the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

/// A new key is made when the newest is so old.
const RENEWED_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// A key that is so old opens nothing any more. Longer than any sync point is of use by default.
const FORGOTTEN_AFTER_MS: u64 = 400 * 24 * 3_600_000;
/// After a new key could not be kept it is tried again when so much time has gone by, and not with every request.
const TRIED_AGAIN_AFTER_MS: u64 = 60_000;

/// The secret of a key.
pub(super) type Secret = [u8; 32];

/// The keys, by number. The highest one seals; all of them open.
#[derive(Debug, Default)]
pub struct Keys {
    file: Option<PathBuf>,
    keys: BTreeMap<u32, Key>,
    /// When a new key could not be kept last, if none was since.
    failed_ms: Option<u64>,
}

#[derive(Clone)]
struct Key {
    made_ms: u64,
    secret: Secret,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a key of {}", self.made_ms)
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The operating system refused something.
    #[error("{}: {error}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A line that is no key.
    #[error("line {line} of {} is no key: restore the file, or remove it and let every client begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl Keys {
    /// Keys that are gone when the process is: for relays that nobody goes on with.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The keys in a file; none if there is no such file yet.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|error| KeysError::System { path: path.to_owned(), error })?,
        };
        let mut keys = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let damaged = || KeysError::Damaged { path: path.to_owned(), line };
            let mut words = text.split(' ');
            let mut word = || words.next().ok_or_else(damaged);
            let (number, made_ms, secret) = (word()?, word()?, word()?);
            let secret = HEX.decode(secret.as_bytes()).ok().and_then(|secret| secret.try_into().ok());
            let key = Key { made_ms: made_ms.parse().map_err(|_| damaged())?, secret: secret.ok_or_else(damaged)? };
            keys.insert(number.parse().map_err(|_| damaged())?, key);
        }
        Ok(Self { file: Some(path.to_owned()), keys, failed_ms: None })
    }

    /// The key to seal with at `now_ms`, made of `chance` if the newest one has done its time. Fails only where there is
    /// none at all and none can be kept.
    pub(super) fn newest(&mut self, now_ms: u64, chance: [u8; 32]) -> Result<(u32, Secret), KeysError> {
        let newest = self.keys.last_key_value().map(|(number, key)| (*number, key.clone()));
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        let Some((number, key)) = newest else { return self.renew(1, now_ms, chance) };
        let is_young = since(key.made_ms) < RENEWED_AFTER_MS;
        if is_young || self.failed_ms.is_some_and(|failed_ms| since(failed_ms) < TRIED_AGAIN_AFTER_MS) {
            return Ok((number, key.secret));
        }
        match self.renew(number.wrapping_add(1), now_ms, chance) {
            Ok(renewed) => {
                self.failed_ms = None;
                Ok(renewed)
            }
            Err(error) => {
                // Once, and not every minute for as long as it lasts.
                if self.failed_ms.replace(now_ms).is_none() {
                    tracing::warn!(%error, "a new key for sync tokens cannot be kept; the last one serves on");
                }
                Ok((number, key.secret))
            }
        }
    }

    fn renew(&mut self, number: u32, now_ms: u64, secret: Secret) -> Result<(u32, Secret), KeysError> {
        let mut keys = self.keys.clone();
        keys.retain(|_, key| now_ms.saturating_sub(key.made_ms) < FORGOTTEN_AFTER_MS);
        keys.insert(number, Key { made_ms: now_ms, secret });
        if let Some(path) = &self.file {
            write(path, &keys).map_err(|error| KeysError::System { path: path.clone(), error })?;
        }
        self.keys = keys;
        Ok((number, secret))
    }

    /// The key of this number.
    pub(super) fn numbered(&self, number: u32) -> Option<Secret> {
        self.keys.get(&number).map(|key| key.secret)
    }

    /// Whether there may have been a key of this number that is too old by now: they are numbered from 1 on.
    pub(super) fn is_forgotten(&self, number: u32) -> bool {
        number > 0 && self.keys.first_key_value().is_some_and(|(first, _)| number < *first)
    }
}

fn write(path: &Path, keys: &BTreeMap<u32, Key>) -> io::Result<()> {
    let text: String =
        (keys.iter()).map(|(number, key)| format!("{number} {} {}\n", key.made_ms, HEX.encode(&key.secret))).collect();
    write_secret(path, text.as_bytes())
}

/// Puts a file in its place whole or not at all, readable by its owner only.
pub(super) fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One that a crash left there keeps the permissions that it has.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_serves_its_time_and_opens_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let mut keys = Keys::load(&path).expect("none yet");
        let (first, _) = keys.newest(1, [1; 32]).expect("written");
        assert_eq!(keys.newest(RENEWED_AFTER_MS, [2; 32]).expect("the same"), (first, [1; 32]));
        let (second, _) = keys.newest(RENEWED_AFTER_MS + 1, [2; 32]).expect("written");
        assert_ne!(first, second);
        let mut loaded = Keys::load(&path).expect("both");
        assert_eq!((loaded.numbered(first), loaded.numbered(second)), (Some([1; 32]), Some([2; 32])));
        loaded.newest(FORGOTTEN_AFTER_MS + 1, [3; 32]).expect("written");
        assert_eq!(loaded.numbered(first), None);
        assert_eq!([0, first, second].map(|number| loaded.is_forgotten(number)), [false, true, false]);
        fs::write(&path, "1 2 zz\n").expect("written");
        assert!(matches!(Keys::load(&path), Err(KeysError::Damaged { line: 1, .. })));
    }

    #[test]
    fn a_key_serves_on_where_no_new_one_can_be_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, in_the_way) = (folder.path().join("keys"), folder.path().join("keys.new"));
        let block = || fs::create_dir(&in_the_way).expect("a folder");
        block();
        let mut keys = Keys::load(&path).expect("none yet");
        assert!(keys.newest(1, [1; 32]).is_err(), "there is none to go on with");
        fs::remove_dir(&in_the_way).expect("removed");
        let first = keys.newest(1, [1; 32]).expect("written");
        block();
        let then = 1 + RENEWED_AFTER_MS;
        assert_eq!(keys.newest(then, [2; 32]).expect("the last one"), first);
        assert_eq!(Keys::load(&path).expect("as it was").numbered(first.0), Some(first.1));
        fs::remove_dir(&in_the_way).expect("removed");
        let soon = then + TRIED_AGAIN_AFTER_MS - 1;
        assert_eq!(keys.newest(soon, [2; 32]).expect("the last one"), first, "it is not tried again at once");
        let second = keys.newest(soon + 1, [3; 32]).expect("written");
        assert_ne!(second.0, first.0);
        assert_eq!(Keys::load(&path).expect("both").numbered(second.0), Some([3; 32]));
    }
}
