//! Things that occur again and again: each is kept once, and known by its number.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::ops::Index;

/// Things by number, and numbers by what tells one thing from another.
#[derive(Debug)]
pub(super) struct Pool<K, T> {
    numbers: BTreeMap<K, u32>,
    things: Vec<T>,
}

impl<K: Ord, T> Pool<K, T> {
    pub(super) fn new() -> Self {
        Self { numbers: BTreeMap::new(), things: Vec::new() }
    }

    pub(super) fn find(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// The number of the thing that `key` tells of, which is `thing` if there was none.
    pub(super) fn add(&mut self, key: K, thing: T) -> u32 {
        let Self { numbers, things } = self;
        *numbers.entry(key).or_insert_with(|| {
            things.push(thing);
            u32::try_from(things.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}

impl<K, T> Index<u32> for Pool<K, T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.things[number as usize]
    }
}

/// What tells one thing from another.
pub(super) type Digest = [u8; 16];

/// The digest of how things are written out.
pub(super) fn digest(of: &dyn Debug) -> Digest {
    struct Writer(blake3::Hasher);
    impl fmt::Write for Writer {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut writer = Writer(blake3::Hasher::new());
    if write!(writer, "{of:?}").is_err() {
        unreachable!("a hasher takes everything");
    }
    shorten(&writer.0)
}

/// The digest of bytes.
pub(super) fn digest_bytes<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    shorten(&hasher)
}

fn shorten(hasher: &blake3::Hasher) -> Digest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}
