//! Changes to a file that wait until somebody allows them.
//!
//! Opening a damaged file makes the storage engine write to it before it notices the damage. So an open runs over
//! [`Held`]: it sees its own changes, and the file sees nothing of them until the open has succeeded.
//!
//! **Invariant**: letting the changes through one by one, in order and with every sync in its place, is exactly what
//! the engine would have done by itself. A crash in the middle of it is a crash that the engine is made for.
//!
//! It knows nothing of the engine, and is not made for many changes: an open makes a handful.

use std::io;

/// One thing that was done to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// These bytes were written at this offset.
    Write(u64, Vec<u8>),
    /// The file was cut or extended (with zeros) to this many bytes.
    SetLen(u64),
    /// Everything before this was made durable.
    Sync,
}

/// A file as it would be with some changes that it has not seen.
#[derive(Debug)]
pub(super) struct Held {
    /// The length that the file would have, in bytes.
    len: u64,
    /// So many leading bytes of the file below still show through where nothing was written.
    below_bytes: u64,
    changes: Vec<Change>,
}

impl Held {
    /// Over a file of `len` bytes, with no change so far.
    pub(super) fn over(len: u64) -> Self {
        Self { len, below_bytes: len, changes: Vec::new() }
    }

    /// Over any file, which the first change empties.
    pub(super) fn emptied() -> Self {
        Self { len: 0, below_bytes: 0, changes: vec![Change::SetLen(0)] }
    }

    /// The length with the changes, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Cuts or extends.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.below_bytes = self.below_bytes.min(len);
        self.changes.push(Change::SetLen(len));
    }

    /// Writes, extending the file where the bytes end beyond it.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset.saturating_add(bytes.len() as u64));
        self.changes.push(Change::Write(offset, bytes.to_vec()));
    }

    /// Notes that what was done so far is to be durable before what follows.
    pub(super) fn sync(&mut self) {
        self.changes.push(Change::Sync);
    }

    /// Reads with the changes applied; `below` reads the file itself.
    pub(super) fn read(
        &self,
        offset: u64,
        out: &mut [u8],
        below: impl FnOnce(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let kept = self.below_bytes.clamp(offset, end) - offset;
        let (from_below, rest) = out.split_at_mut(kept as usize);
        if !from_below.is_empty() {
            below(offset, from_below)?;
        }
        rest.fill(0);
        for change in &self.changes {
            match change {
                Change::Write(at, bytes) => {
                    let first = offset.max(*at);
                    let last = end.min(at + bytes.len() as u64);
                    if first < last {
                        out[(first - offset) as usize..(last - offset) as usize]
                            .copy_from_slice(&bytes[(first - at) as usize..(last - at) as usize]);
                    }
                }
                Change::SetLen(len) => out[((*len).clamp(offset, end) - offset) as usize..].fill(0),
                Change::Sync => {}
            }
        }
        Ok(())
    }

    /// The changes, oldest first.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The changes done to real bytes: what [`Held`] must look like.
    fn apply(file: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*at as usize..end].copy_from_slice(bytes);
            }
            Change::SetLen(len) => file.resize(*len as usize, 0),
            Change::Sync => {}
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0u64..40, prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Write(at, bytes)),
            (0u64..50).prop_map(Change::SetLen),
            Just(Change::Sync),
        ]
    }

    proptest! {
        #[test]
        fn reads_see_exactly_what_the_changes_would_make(
            base in prop::collection::vec(any::<u8>(), 0..40),
            emptied: bool,
            changes in prop::collection::vec(change(), 0..12),
            offset in 0usize..60,
            bytes in 0usize..60,
        ) {
            let mut held = if emptied { Held::emptied() } else { Held::over(base.len() as u64) };
            for change in &changes {
                match change {
                    Change::Write(at, bytes) => held.write(*at, bytes),
                    Change::SetLen(len) => held.set_len(*len),
                    Change::Sync => held.sync(),
                }
            }
            let below = |at: u64, out: &mut [u8]| {
                out.copy_from_slice(&base[at as usize..at as usize + out.len()]);
                Ok(())
            };
            let mut out = vec![0xaa; bytes];
            let read = held.read(offset as u64, &mut out, below);
            let len = held.len();

            let mut real = base.clone();
            for change in &held.into_changes() {
                apply(&mut real, change);
            }
            prop_assert_eq!(len, real.len() as u64);
            match real.get(offset..offset + bytes) {
                Some(expected) => {
                    prop_assert!(read.is_ok());
                    prop_assert_eq!(&out[..], expected);
                }
                None => prop_assert!(read.is_err()),
            }
        }
    }
}
