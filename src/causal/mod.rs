//! Causality and nothing else: which event an observer knew when it wrote another.
//!
//! **Invariant**: nothing here reads a clock, draws randomness, touches a disk or depends on hash order.
//! The order of events is *only* what these types say: there is no comparison of wall time anywhere in the crate
//! that decides an order or a winner.
//!
//! Sources: version vectors after Parker et al., *Detection of Mutual Inconsistency in Distributed Systems*
//! (IEEE TSE 1983); dots after Preguiça et al., *Dotted Version Vectors* (2012), §3; deletion by a covered and
//! absent dot after Gonçalves et al., *DottedDB* (SRDS 2017), §4.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod dot;
mod knowledge;
mod vector;

pub use dot::{Dot, EventHash, HashPrefix, ReplicaId, Witness};
pub use knowledge::{Admission, Branch, Claims, Head, Inadmissible, KeyRange, Knowledge, Known, Proposal};
pub use vector::{Causality, VersionVector};
