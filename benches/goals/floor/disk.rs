//! Plain redb: one table of rows, committed as thence commits.

use std::path::Path;

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::Outcome;
use crate::rows;

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
/// What a node of thence gets too.
const CACHE_BYTES: usize = 64 << 20;

/// A row as the floors have it.
pub type Row = (Vec<u8>, Vec<u8>);

/// These rows of one revision.
pub fn rows_of(rows: impl IntoIterator<Item = u64>, revision: u64) -> Vec<Row> {
    rows.into_iter().map(|at| (rows::key(at).into_bytes(), rows::value(at, revision).into_bytes())).collect()
}

/// One file.
pub struct Disk {
    database: Database,
}

impl Disk {
    /// A new file.
    pub fn create(path: &Path) -> Outcome<Self> {
        Ok(Self { database: Builder::new().set_cache_size(CACHE_BYTES).create(path)? })
    }

    /// A new store on any medium.
    pub fn on(medium: impl StorageBackend) -> Outcome<Self> {
        Ok(Self { database: Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(medium)? })
    }

    /// A file that is there.
    pub fn open(path: &Path) -> Outcome<Self> {
        Ok(Self { database: Builder::new().set_cache_size(CACHE_BYTES).open(path)? })
    }

    /// One durable commit.
    pub fn commit(&self, rows: &[Row]) -> Outcome<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Rows `0..count`, some thousands to a commit.
    pub fn fill(&self, count: u64) -> Outcome<()> {
        for first in (0..count).step_by(10_000) {
            self.commit(&rows_of(first..(first + 10_000).min(count), 0))?;
        }
        Ok(())
    }

    /// The value of one row.
    pub fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    /// Every row in key order.
    pub fn scan(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Outcome<()>) -> Outcome<()> {
        for row in self.database.begin_read()?.open_table(TABLE)?.iter()? {
            let (key, value) = row?;
            visit(key.value(), value.value())?;
        }
        Ok(())
    }
}
