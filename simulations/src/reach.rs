//! How often which fault struck in which phase of the protocol.
//!
//! Blind spots of a simulator are in its generators: a fault that never comes while a ticket is being redeemed shows
//! nothing about redeeming, however many seeds pass. So it is counted, and what is zero is said.
//!
//! What it does not do: judge. Some pairs cannot be; a person says which.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// What a node, or a node with one peer, is about when a fault strikes. Several at once are usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It was started and has met nobody yet.
    Restarting,
    /// A session is being made.
    Connecting,
    /// It showed a ticket and has no answer.
    Redeeming,
    /// It waits to hear what its peer knows.
    Opening,
    /// It lacks what its peer has.
    CatchingUp,
    /// Both know the same.
    Live,
    /// Something that it sent is not acknowledged.
    AwaitingAck,
    /// So much of that that nothing more may be sent.
    WindowFull,
    /// A commit is on its way to the disk, or back.
    CommitInFlight,
    /// A read of the log is on its way.
    ReadInFlight,
    /// A history that was written twice under one name is known here.
    Splitting,
    /// Its peer refuses a space.
    Refused,
}

impl Phase {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Restarting,
        Self::Connecting,
        Self::Redeeming,
        Self::Opening,
        Self::CatchingUp,
        Self::Live,
        Self::AwaitingAck,
        Self::WindowFull,
        Self::CommitInFlight,
        Self::ReadInFlight,
        Self::Splitting,
        Self::Refused,
    ];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restarting => "restarting",
            Self::Connecting => "connecting",
            Self::Redeeming => "redeeming",
            Self::Opening => "opening",
            Self::CatchingUp => "catching up",
            Self::Live => "live",
            Self::AwaitingAck => "awaiting ack",
            Self::WindowFull => "window full",
            Self::CommitInFlight => "commit in flight",
            Self::ReadInFlight => "read in flight",
            Self::Splitting => "splitting",
            Self::Refused => "refused",
        }
    }
}

/// How often which fault struck in which phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    counts: BTreeMap<(&'static str, Phase), u64>,
}

impl Reach {
    /// A fault struck in a phase.
    pub fn strike(&mut self, fault: &'static str, phase: Phase) {
        *self.counts.entry((fault, phase)).or_default() += 1;
    }

    /// How often it did.
    pub fn count(&self, fault: &str, phase: Phase) -> u64 {
        let found = self.counts.iter().find(|((of, in_phase), _)| *of == fault && *in_phase == phase);
        found.map_or(0, |(_, count)| *count)
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.counts {
            *self.counts.entry(*pair).or_default() += count;
        }
    }

    /// Faults down, phases across; what never happened is said once more below.
    pub fn table<'a>(&'a self, faults: &'a [&'static str]) -> Table<'a> {
        Table { reach: self, faults }
    }
}

/// What was counted, for people.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    reach: &'a Reach,
    faults: &'a [&'static str],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.faults.iter().map(|fault| fault.len()).max().unwrap_or(0).max(5);
        let width = |phase: &Phase| phase.name().split(' ').map(str::len).max().unwrap_or(0).max(7);
        // Names of two or three words stand on two lines.
        for line in 0..2 {
            write!(f, "{:first$}", "")?;
            for phase in Phase::ALL {
                let name = phase.name();
                let (above, below) = name.rsplit_once(' ').unwrap_or(("", name));
                write!(f, "  {:>1$}", if line == 0 { above } else { below }, width(phase).max(above.len()))?;
            }
            writeln!(f)?;
        }
        let mut never = String::new();
        for fault in self.faults {
            write!(f, "{fault:first$}")?;
            let mut missing = Vec::new();
            for phase in Phase::ALL {
                let above = phase.name().rsplit_once(' ').map_or(0, |(above, _)| above.len());
                let width = width(phase).max(above);
                match self.reach.count(fault, *phase) {
                    0 => {
                        write!(f, "  {:>width$}", "NEVER")?;
                        missing.push(phase.name());
                    }
                    count => write!(f, "  {count:>width$}")?,
                }
            }
            writeln!(f)?;
            if !missing.is_empty() {
                writeln!(never, "never: {fault} while {}", missing.join(", "))?;
            }
        }
        f.write_str(&never)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_stands_out() {
        let mut reach = Reach::default();
        Phase::ALL.iter().for_each(|phase| reach.strike("crash", *phase));
        let mut more = Reach::default();
        more.strike("crash", Phase::Live);
        more.strike("cut", Phase::Live);
        reach.add(&more);
        assert_eq!((reach.count("crash", Phase::Live), reach.count("cut", Phase::Opening)), (2, 0));
        let table = reach.table(&["crash", "cut"]).to_string();
        let never: Vec<&str> = table.lines().filter(|line| line.starts_with("never")).collect();
        assert_eq!(never.len(), 1);
        assert!(never[0].starts_with("never: cut while restarting, connecting"), "{table}");
    }
}
