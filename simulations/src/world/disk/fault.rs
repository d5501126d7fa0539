//! What can go wrong with the disk under a store, and how a scenario says it.

use std::fmt;
use std::str::FromStr;

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing of it is there afterwards.
    Lost,
    /// All of it is there afterwards, although the disk said that it failed.
    Landed,
}

/// What goes wrong with a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediumFault {
    /// The process dies at the change of the file that comes after so many others, and again at the next numbers, counted
    /// from each death: in a commit, in a recovery, in a creation. What was not synced is torn.
    CrashAt(Vec<u64>),
    /// After so many operations, so many fail.
    Fails {
        /// How many succeed first.
        after: u64,
        /// How many fail.
        times: u64,
    },
    /// There is no more room, or there is again.
    Full(bool),
    /// A bit flips in something that was synced. The number decides which.
    Rot(u64),
    /// A write lands somewhere else. The number decides where.
    Misdirects {
        /// How many writes land where they belong first.
        after: u64,
        /// Where that one lands.
        to: u64,
    },
    /// It says that it has synced, and has not; or it is honest again.
    Lies(bool),
}

impl fmt::Display for MediumFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashAt(changes) => {
                f.write_str("crash-at")?;
                changes.iter().try_for_each(|change| write!(f, " {change}"))
            }
            Self::Fails { after, times } => write!(f, "fails after {after} times {times}"),
            Self::Full(true) => f.write_str("full"),
            Self::Full(false) => f.write_str("room"),
            Self::Rot(which) => write!(f, "rots {which}"),
            Self::Misdirects { after, to } => write!(f, "misdirects after {after} to {to}"),
            Self::Lies(true) => f.write_str("lies"),
            Self::Lies(false) => f.write_str("honest"),
        }
    }
}

impl MediumFault {
    /// What it is, for people.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::CrashAt(changes) => {
                format!("the process dies at a change of its file: {changes:?}, counted from here and from each death")
            }
            Self::Fails { after, times } => format!("after {after} operations on the disk, {times} fail"),
            Self::Full(true) => "the disk is full".to_owned(),
            Self::Full(false) => "there is room on the disk again".to_owned(),
            Self::Rot(_) => "a bit flips in what was synced".to_owned(),
            Self::Misdirects { after, .. } => format!("after {after} writes, one lands somewhere else"),
            Self::Lies(true) => "the disk says that it has synced, and has not".to_owned(),
            Self::Lies(false) => "the disk is honest again".to_owned(),
        }
    }
}

impl FromStr for MediumFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| format!("{word:?} is no number"));
        Ok(match words.as_slice() {
            ["crash-at", changes @ ..] if !changes.is_empty() => {
                Self::CrashAt(changes.iter().map(|change| number(change)).collect::<Result<_, _>>()?)
            }
            ["fails", "after", after, "times", times] => Self::Fails { after: number(after)?, times: number(times)? },
            ["full"] => Self::Full(true),
            ["room"] => Self::Full(false),
            ["rots", which] => Self::Rot(number(which)?),
            ["misdirects", "after", after, "to", to] => Self::Misdirects { after: number(after)?, to: number(to)? },
            ["lies"] => Self::Lies(true),
            ["honest"] => Self::Lies(false),
            _ => return Err(format!("{:?} is nothing that a medium does", text.trim())),
        })
    }
}
