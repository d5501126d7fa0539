//! G4 and G5: two devices that know each other meet again. See [`changed`] and [`quiet`].

use crate::Outcome;
use crate::device::{Companion, Source, Written};
use crate::table::Table;
use crate::{changed, quiet};

/// Measures the goals that are wanted, at all sizes. Time and bytes of the largest are compared with the smallest.
pub async fn measure(table: &mut Table, rounds: u32, sizes: &[u64], few: bool, none: bool) -> Outcome<()> {
    let mut smallest: Option<(Option<changed::Found>, Option<quiet::Found>)> = None;
    for &count in sizes {
        let source = Source::with_rows(count, Written::Imported).await?;
        let companion = Companion::of(&source).await?;
        let quiet = if none { Some(quiet::of_size(table, rounds, &source, &companion).await?) } else { None };
        let changed = if few { Some(changed::of_size(table, rounds, &source, &companion).await?) } else { None };
        match &smallest {
            None => smallest = Some((changed, quiet)),
            Some((changed_before, quiet_before)) => {
                if let (Some(before), Some(found)) = (changed_before, &changed) {
                    changed::compare(table, count, found, before);
                }
                if let (Some(before), Some(found)) = (quiet_before, &quiet) {
                    quiet::compare(table, count, found, before);
                }
            }
        }
        source.close().await;
    }
    Ok(())
}
