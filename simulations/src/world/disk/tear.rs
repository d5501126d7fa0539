//! What a crash leaves of what was written and never synced.
//!
//! **Invariant**: every sector comes back as it was at some moment between the last sync and the crash, and so does the
//! length of the file; for each of them that moment is another. So writes are lost, torn and reordered, and nothing is
//! made up.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::world::Chance;

/// What a disk writes at once.
pub(crate) const SECTOR: u64 = 512;

/// One thing that was done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These bytes were written at this offset.
    Write(u64, Vec<u8>),
    /// The file was cut or extended (with zeros) to this many bytes.
    SetLen(u64),
}

impl Change {
    /// Does it to a file.
    pub(crate) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                let range = range(*at, *at + bytes.len() as u64);
                if file.len() < range.end {
                    file.resize(range.end, 0);
                }
                file[range].copy_from_slice(bytes);
            }
            Self::SetLen(len) => file.resize(range(0, *len).end, 0),
        }
    }

    /// Does what it does to the bytes `from..to` of a file, which is long enough.
    fn apply_within(&self, from: u64, to: u64, file: &mut [u8]) {
        match self {
            Self::Write(at, bytes) => {
                let (first, last) = (from.max(*at), to.min(*at + bytes.len() as u64));
                if first < last {
                    file[range(first, last)].copy_from_slice(&bytes[range(first - at, last - at)]);
                }
            }
            Self::SetLen(len) => file[range((*len).clamp(from, to), to)].fill(0),
        }
    }
}

/// Offsets as positions in memory; a simulated file fits into it.
fn range(from: u64, to: u64) -> Range<usize> {
    usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX)
}

/// Which of the changes since the last sync survive a crash. Moments are numbers of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tear {
    /// Those up to this moment: all in order.
    Moment(usize),
    /// All but the last.
    AllButLast,
    /// All.
    Everything,
    /// None but the last.
    Last,
    /// All but every other sector of the last.
    Torn,
    /// Some of them, each whole.
    Writes(u64),
    /// Of each sector some version.
    Sectors(u64),
}

impl Tear {
    /// One of each kind.
    pub(crate) fn all(seed: u64) -> [Self; 8] {
        [
            Self::Moment(0),
            Self::AllButLast,
            Self::Everything,
            Self::Last,
            Self::Torn,
            Self::Writes(seed),
            Self::Sectors(seed),
            Self::Sectors(!seed),
        ]
    }

    /// Up to which moment the changes of a sector survive that was changed at these moments, of `last` in all.
    fn moment(self, last: usize, sector: u64, changed: &[usize]) -> usize {
        let of_last = changed.last() == Some(&last);
        match self {
            Self::Moment(moment) => moment,
            Self::AllButLast => last.saturating_sub(1),
            Self::Everything => last,
            Self::Last if of_last => last,
            Self::Last => 0,
            Self::Torn => last - usize::from(of_last && sector % 2 == 1),
            Self::Writes(seed) => {
                let survives = |moment: &&usize| Chance::new(seed).draw("write", **moment as u64, 0).is_multiple_of(2);
                changed.iter().rev().find(survives).copied().unwrap_or(0)
            }
            Self::Sectors(seed) => {
                let versions = changed.len() as u64 + 1;
                let version = usize::try_from(Chance::new(seed).draw("sector", sector, 0) % versions).unwrap_or(0);
                version.checked_sub(1).map_or(0, |at| changed[at])
            }
        }
    }

    /// What is left of a file that was synced as `durable`, and then changed.
    pub(crate) fn apply(self, durable: &[u8], changes: &[Change]) -> Vec<u8> {
        let last = changes.len();
        let mut lens = vec![durable.len() as u64];
        let mut resized: Vec<usize> = Vec::new();
        let mut changed: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (moment, change) in (1..).zip(changes) {
            let before = lens[moment - 1];
            let (from, to, len) = match change {
                Change::Write(at, bytes) => (*at, *at + bytes.len() as u64, before.max(*at + bytes.len() as u64)),
                Change::SetLen(len) => (before.min(*len), before, *len),
            };
            for sector in from / SECTOR..to.div_ceil(SECTOR) {
                changed.entry(sector).or_default().push(moment);
            }
            if len != before {
                resized.push(moment);
            }
            lens.push(len);
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut file = durable.to_vec();
        file.resize(range(0, longest).end, 0);
        for (sector, moments) in &changed {
            let until = self.moment(last, *sector, moments);
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(longest));
            for moment in moments.iter().take_while(|moment| **moment <= until) {
                changes[moment - 1].apply_within(from, to, &mut file);
            }
        }
        let len = lens[self.moment(last, u64::MAX, &resized).min(last)];
        file.truncate(range(0, len).end);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, Vec<Change>) {
        let durable = vec![1; 2048];
        let changes = vec![
            Change::Write(100, vec![2; 1000]),
            Change::SetLen(600),
            Change::SetLen(1536),
            Change::Write(512, vec![3; 1024]),
        ];
        (durable, changes)
    }

    #[test]
    fn everything_is_what_the_changes_make_and_a_moment_what_they_made_up_to_it() {
        let (durable, changes) = file();
        for moment in 0..=changes.len() {
            let mut expected = durable.clone();
            changes[..moment].iter().for_each(|change| change.apply(&mut expected));
            assert_eq!(Tear::Moment(moment).apply(&durable, &changes), expected, "up to {moment}");
            if moment == changes.len() {
                assert_eq!(Tear::Everything.apply(&durable, &changes), expected);
            } else if moment + 1 == changes.len() {
                assert_eq!(Tear::AllButLast.apply(&durable, &changes), expected);
            }
        }
    }

    #[test]
    fn each_sector_comes_back_as_it_was_at_some_moment() {
        let (durable, changes) = file();
        let moments: Vec<Vec<u8>> =
            (0..=changes.len()).map(|moment| Tear::Moment(moment).apply(&durable, &changes)).collect();
        let mut mixed = 0;
        for seed in 0..200 {
            for tear in Tear::all(seed) {
                let left = tear.apply(&durable, &changes);
                assert!(moments.iter().any(|moment| moment.len() == left.len()), "{tear:?}");
                mixed += usize::from(!moments.contains(&left));
                for (number, sector) in left.chunks(512).enumerate() {
                    let was = |moment: &Vec<u8>| {
                        let mut long = moment.clone();
                        long.resize(2048, 0);
                        long[number * 512..].starts_with(sector)
                    };
                    assert!(moments.iter().any(was), "{tear:?}, sector {number}");
                }
            }
        }
        assert!(mixed > 0, "no tear tears anything");
    }
}
