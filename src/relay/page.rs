//! A page for a client, read from one snapshot, and whether a client can still go on from where it is.
//!
//! It needs a view of a database and no relay, so that it can be called wherever there is one.
//!
//! **Invariant (no misses)**: see `changes`, which says the same to clients in words of HTTP.
//!
//! What it does not do: keep from a client that a row was deleted during the initial phase which it was never given. Up to
//! where it had come at each moment of that phase would have to stand in its sync point.

use std::collections::BTreeSet;

use super::sync_point::{Phase, SyncPoint};
use crate::causal::ReplicaId;
use crate::model::CollectionName;
use crate::store::{PageLimits, Row, StoreError, View};

/// Why a client can no longer go on from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The database was wiped since.
    Revision,
    /// Positions are numbered anew.
    Epoch,
    /// It goes on with other tables.
    Filter,
    /// A table's schema has changed.
    Schema,
    /// Deletions that it was not told of are not told any more.
    Retention,
}

/// What follows on a sync point.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Rows, each as it stands now.
    pub rows: Vec<Row>,
    /// Where the client is once it has them.
    pub phase: Phase,
    /// Whether there is more to be asked for at once.
    pub more: bool,
    /// While it is given all rows: how many it was given by then, and about how many bytes these are.
    pub done: Option<(u64, u64)>,
}

/// Which numbering of positions holds where a store writes as `replica`.
pub fn epoch_of(replica: ReplicaId) -> u64 {
    let mut epoch = [0; 8];
    epoch.copy_from_slice(&replica.as_bytes()[..8]);
    u64::from_be_bytes(epoch)
}

/// Where a client begins that has nothing.
pub fn beginning(view: &View) -> Result<Phase, StoreError> {
    Ok(Phase::Initial { after: None, position: view.position()?, rows_done: 0, bytes_done: 0 })
}

impl SyncPoint {
    /// Why a client that follows these tables, or all if none are named, cannot go on from here to where `beginning`
    /// begins, if it cannot.
    pub fn gone(
        &self,
        view: &View,
        only: Option<&BTreeSet<CollectionName>>,
        beginning: &Self,
    ) -> Result<Option<Gone>, StoreError> {
        let (horizon, top) = (view.horizon_of(only)?, view.position()?);
        let (Phase::Initial { position, .. } | Phase::Live { position, .. } | Phase::Deletions { position, .. }) =
            self.phase;
        let is_later = self.revision > beginning.revision;
        Ok(if self.revision < beginning.revision {
            Some(Gone::Revision)
        } else if (self.epoch != beginning.epoch || self.phase.reaches() > top || is_later)
            && !planted!("old-token-goes-on")
        {
            // Who is further than the feed was here before all of this was put back to an older state.
            Some(Gone::Epoch)
        } else if self.filter != beginning.filter {
            Some(Gone::Filter)
        } else if self.schema != beginning.schema {
            Some(Gone::Schema)
        } else if position < horizon && !planted!("too-old-goes-on") {
            Some(Gone::Retention)
        } else {
            None
        })
    }
}

impl Page {
    /// The page that follows on `phase`, with rows of these tables only if any are named; none where no page does.
    pub fn read(
        view: &View,
        phase: Phase,
        only: Option<&BTreeSet<CollectionName>>,
        limits: PageLimits,
    ) -> Result<Option<Self>, StoreError> {
        let top = view.position()?;
        Ok(match phase {
            Phase::Initial { after, position, rows_done, bytes_done } => {
                let page = view.rows_after(after.as_ref(), only, limits)?;
                let bytes: usize = page.rows.iter().map(weight).sum();
                let (rows_done, bytes_done) = (rows_done + page.rows.len() as u64, bytes_done + bytes as u64);
                let (phase, more) = if page.is_last {
                    let position = if planted!("changes-meanwhile-missed") { top } else { position };
                    (Phase::Live { position, high: position }, position < top)
                } else {
                    (Phase::Initial { after: page.at, position, rows_done, bytes_done }, true)
                };
                Some(Self { rows: page.rows, phase, more, done: Some((rows_done, bytes_done)) })
            }
            Phase::Deletions { .. } => None,
            Phase::Live { position, high } => {
                // A new round begins where the last one has ended.
                let high = if position >= high { top } else { high };
                let page = view.rows_changed(position, high, only, limits)?;
                // Also what changed since the round began is still to come: whoever stops at `more: false` has it all.
                let more = !page.is_last || high < top && !planted!("next-round-untold");
                Some(Self { rows: page.rows, phase: Phase::Live { position: page.at, high }, more, done: None })
            }
        })
    }
}

/// About how many bytes a row takes as it is sent.
fn weight(row: &Row) -> usize {
    row.fields.as_ref().map_or(0, |fields| serde_json::to_string(fields).map_or(0, |text| text.len()))
}
