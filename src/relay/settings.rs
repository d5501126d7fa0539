//! What is set per table: its schema, how long deletions are told, and when rows expire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value as Json, json};

use super::policy::{Policy, PolicyScope};
use super::problem::{Problem, ProblemCode};
use super::{Access, Database, Relay};
use crate::model::CollectionName;

/// How long deletions are told if nothing else is set, in days.
pub const RETENTION_DAYS: u32 = 180;
/// No longer than this can be set, in days.
pub(super) const DAYS_MAX: u32 = 36_500;

/// The settings of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// What the rows look like, as a number or a name: once it changes, every client begins anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// How long it is told that a row was deleted, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Rows that nobody changed for so long are deleted, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_days: Option<u32>,
}

/// What the rows of a table look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Schema {
    /// As a number.
    Number(u32),
    /// As a name.
    Name(String),
}

// Not derived: that would say of anything else only that it is none of the variants here.
impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = Schema;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a name or a whole number from 0 to {}", u32::MAX)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Schema, E> {
                let refused = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(Schema::Number).map_err(refused)
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Schema, E> {
                Ok(Schema::Name(name.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrName)
    }
}

impl TableSettings {
    fn check(&self) -> Result<(), Problem> {
        let invalid = |member: &str, detail: String| {
            let problem = Problem::new(ProblemCode::Invalid, detail, "correct it and send it again");
            Err(problem.with("path", format!("/{member}")))
        };
        if let Some(Schema::Name(name)) = &self.schema
            && !(1..=64).contains(&name.len())
        {
            return invalid("schema", "the name of a schema has 1 to 64 bytes".to_owned());
        }
        for (name, days) in [("retention_days", self.retention_days), ("expire_days", self.expire_days)] {
            if days.is_some_and(|days| days > DAYS_MAX) || (name == "expire_days" && days == Some(0)) {
                return invalid(name, format!("{name} is at most {DAYS_MAX}, and not 0 where rows expire"));
            }
        }
        Ok(())
    }
}

/// How long what is in a table is kept, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days {
    /// How long deletions are told.
    pub(super) retention: u32,
    /// When rows that nobody changes are deleted.
    pub(super) expiry: Option<u32>,
}

/// The settings of the tables of a database, by table.
#[derive(Clone, Debug, Default)]
pub struct DatabaseSettings(BTreeMap<String, TableSettings>);

impl DatabaseSettings {
    /// Of one table.
    pub fn of(&self, table: &CollectionName) -> TableSettings {
        self.0.get(table.as_str()).cloned().unwrap_or_default()
    }

    /// A number that changes whenever the schema of one of them does.
    fn schemas(&self) -> u64 {
        number_of(&self.0.iter().filter_map(|(name, set)| Some((name.as_str(), set.schema.as_ref()?))).collect())
    }
}

/// A number that changes whenever one of these schemas does, by table.
pub(super) fn number_of(schemas: &BTreeMap<&str, &Schema>) -> u64 {
    if schemas.is_empty() {
        return 0;
    }
    let text = serde_json::to_vec(schemas).unwrap_or_default();
    let mut number = [0; 8];
    number.copy_from_slice(&blake3::hash(&text).as_bytes()[..8]);
    u64::from_le_bytes(number)
}

impl Relay {
    /// The settings of a database's tables.
    pub fn settings(&self, database: &Database) -> Result<DatabaseSettings, Problem> {
        let read = |(name, record): (String, Json)| Some((name, serde_json::from_value(record).ok()?));
        Ok(DatabaseSettings(self.tenants.tables(database)?.into_iter().filter_map(read).collect()))
    }

    /// The settings of one table; none if nothing was ever set of it.
    pub(super) fn settings_of(
        &self,
        database: &Database,
        table: &CollectionName,
    ) -> Result<Option<TableSettings>, Problem> {
        let record = self.tenants.table(database, table)?;
        Ok(record.map(|record| serde_json::from_value(record).unwrap_or_default()))
    }

    /// A number that changes whenever the schema of one of these tables does; of all of them if none are named.
    pub(super) fn schemas(&self, database: &Database, only: Option<&BTreeSet<CollectionName>>) -> Result<u64, Problem> {
        let Some(tables) = only else { return Ok(self.settings(database)?.schemas()) };
        let mut settings = BTreeMap::new();
        for table in tables {
            settings.extend(self.settings_of(database, table)?.map(|set| (table.to_string(), set)));
        }
        Ok(DatabaseSettings(settings).schemas())
    }

    /// How long deletions and rows of a table are kept: as is set of it, or else as the policies say.
    pub(super) fn days(
        &self,
        database: &Database,
        settings: &TableSettings,
        table: &CollectionName,
    ) -> Result<Days, Problem> {
        let policies = self.tenants.policies(&PolicyScope::of(database, Some(table)))?;
        let retention = settings.retention_days.or_else(|| policies.days(Policy::RetentionDays));
        let expiry = settings.expire_days.or_else(|| policies.days(Policy::ExpireDays));
        Ok(Days { retention: retention.unwrap_or(RETENTION_DAYS), expiry })
    }

    /// Sets what is set of a table, and leaves nothing of what was.
    pub async fn set_table(
        &self,
        access: &Access,
        table: &CollectionName,
        settings: &TableSettings,
    ) -> Result<Json, Problem> {
        settings.check()?;
        let fields = serde_json::to_value(settings).unwrap_or_default();
        let _turn = self.admit_table(access, table).await?;
        self.tenants.set_table(&access.database, table, fields, access.principal.name()).await?;
        let kept = self.days(&access.database, settings, table)?;
        Ok(json!({
            "table": table.to_string(),
            "schema": settings.schema,
            "retention_days": kept.retention,
            "expire_days": kept.expiry,
        }))
    }
}
