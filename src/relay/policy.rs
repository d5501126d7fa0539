//! What clients may use: named figures, each set for everybody, a customer, a database or a table.
//!
//! **Invariant**: of what is set for a policy the narrowest scope holds; what holds is what is published, and what is
//! enforced. It is read anew for every request, so what is set counts from the next one on.
//!
//! **Absent here**: the enforcing. [`quota`](super::quota) counts, the rest is enforced where it is about.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::http::Limits;
use super::keeping::ID_DAYS;
use super::settings::{DAYS_MAX, RETENTION_DAYS};
use super::tenant::{Database, TenantName};
use super::upload::BATCH_ROWS_MAX;
use crate::model::{CollectionName, KEY_BYTES_MAX, NESTING_MAX, OBJECT_BYTES_MAX};

/// So many bytes a batch has at most, whatever is set: no body is longer.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;
/// So many requests a second at most, whatever is set: the server takes no more of one token.
const REQUESTS_PER_SECOND_MAX: u64 = 1000;
/// Quotas that nobody meets, and that integers of JSON still hold.
const QUOTA_MAX: u64 = 1 << 53;

/// What can be limited. The names are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Rows in one request.
    BatchRows,
    /// Bytes in the body of one request.
    BatchBytes,
    /// Bytes of a row as JSON.
    RowBytes,
    /// Rows of a database.
    Rows,
    /// Rows of a table.
    TableRows,
    /// Bytes of a database.
    Bytes,
    /// Tables of a database.
    Tables,
    /// Databases of a customer.
    Databases,
    /// Full nodes that take part in a database.
    Devices,
    /// Requests of one token to one database.
    RequestsPerSecond,
    /// How long deletions are told.
    RetentionDays,
    /// When rows that nobody changes are deleted.
    ExpireDays,
}

/// How narrow a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everybody.
    Relay,
    /// A customer.
    Customer,
    /// A database.
    Database,
    /// A table.
    Table,
}

/// What can be set of a policy.
struct Rule {
    name: &'static str,
    /// What holds where nothing is set; none is no limit.
    usual: Option<u64>,
    least: u64,
    most: u64,
    /// Whether there can be no limit.
    is_optional: bool,
    /// No narrower than this it is counted, and so set.
    narrowest: Level,
    about: &'static str,
}

impl Policy {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::BatchRows,
        Self::BatchBytes,
        Self::RowBytes,
        Self::Rows,
        Self::TableRows,
        Self::Bytes,
        Self::Tables,
        Self::Databases,
        Self::Devices,
        Self::RequestsPerSecond,
        Self::RetentionDays,
        Self::ExpireDays,
    ];

    const fn rule(self) -> Rule {
        const fn limit(name: &'static str, most: u64, narrowest: Level, about: &'static str) -> Rule {
            Rule { name, usual: Some(most), least: 1, most, is_optional: false, narrowest, about }
        }
        const fn quota(name: &'static str, usual: Option<u64>, narrowest: Level, about: &'static str) -> Rule {
            Rule { name, usual, least: 0, most: QUOTA_MAX, is_optional: true, narrowest, about }
        }
        match self {
            Self::BatchRows => limit("batch_rows", BATCH_ROWS_MAX as u64, Level::Table, "rows in one request"),
            Self::BatchBytes => limit("batch_bytes", BATCH_BYTES_MAX, Level::Table, "bytes in one request"),
            Self::RowBytes => limit("row_bytes", OBJECT_BYTES_MAX as u64, Level::Table, "bytes of a row, as JSON"),
            Self::Rows => quota("rows", None, Level::Database, "rows of a database"),
            Self::TableRows => quota("table_rows", None, Level::Table, "rows of a table"),
            Self::Bytes => quota("bytes", None, Level::Database, "bytes of a database's rows, as they are kept"),
            Self::Tables => quota("tables", Some(10_000), Level::Database, "tables of a database"),
            Self::Databases => quota("databases", Some(1000), Level::Customer, "databases of a customer"),
            Self::Devices => quota(
                "devices",
                Some(1000),
                Level::Database,
                "full nodes that share a database, or may by open tickets",
            ),
            Self::RequestsPerSecond => limit(
                "requests_per_second",
                REQUESTS_PER_SECOND_MAX,
                Level::Database,
                "requests of a token to a database",
            ),
            Self::RetentionDays => Rule {
                name: "retention_days",
                usual: Some(RETENTION_DAYS as u64),
                least: 0,
                most: DAYS_MAX as u64,
                is_optional: false,
                narrowest: Level::Table,
                about: "how long deletions are told, where a table does not say",
            },
            Self::ExpireDays => Rule {
                name: "expire_days",
                usual: None,
                least: 1,
                most: DAYS_MAX as u64,
                is_optional: true,
                narrowest: Level::Table,
                about: "when rows that nobody changes are deleted, where a table does not say",
            },
        }
    }

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        self.rule().name
    }

    /// What holds where nothing is set; none is no limit.
    pub const fn usual(self) -> Option<u64> {
        self.rule().usual
    }

    /// What it counts.
    pub const fn about(self) -> &'static str {
        self.rule().about
    }

    /// Whether there can be no limit.
    pub const fn is_optional(self) -> bool {
        self.rule().is_optional
    }

    /// Whether it can be set there.
    ///
    /// # Errors
    /// Says where it can.
    pub fn check_scope(self, scope: &PolicyScope) -> Result<(), String> {
        let Rule { name, narrowest, about, .. } = self.rule();
        if scope.level() <= narrowest {
            return Ok(());
        }
        let wider = match narrowest {
            Level::Relay => "for the whole relay",
            Level::Customer => "for a customer or for the whole relay",
            Level::Database | Level::Table => "for a database, a customer or the whole relay",
        };
        Err(format!("{name} ({about}) cannot be set for {scope}: set it {wider}"))
    }

    /// What a text sets it to: a number (of bytes also such as `64KiB`), `none`, or `default`.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse_setting(self, text: &str) -> Result<Setting, String> {
        let Rule { name, least, most, is_optional, .. } = self.rule();
        let expected = || {
            let none = if is_optional { ", `none` for no limit," } else { "" };
            format!("{text:?} is no value of {name}: expected a number from {least} to {most}{none} or `default`")
        };
        match text {
            "default" => return Ok(Setting::Default),
            "none" if is_optional => return Ok(Setting::NoLimit),
            _ => {}
        }
        let counts_bytes = matches!(self, Self::BatchBytes | Self::RowBytes | Self::Bytes);
        let number = if counts_bytes { parse_bytes(text) } else { text.parse().ok() };
        let number = number.filter(|_| text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        number.filter(|number| (least..=most).contains(number)).map(Setting::Value).ok_or_else(expected)
    }

    /// What was set, as it is kept; none if that makes no sense, as if it were not set.
    fn read(self, kept: &Json) -> Option<Option<u64>> {
        let Rule { least, most, is_optional, .. } = self.rule();
        match kept {
            Json::Null => is_optional.then_some(None),
            // A later release may have narrowed what can be set.
            kept => kept.as_u64().map(|value| Some(value.clamp(least, most))),
        }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no policy {text:?}; there are {names}")
        })
    }
}

/// What a policy is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// So much.
    Value(u64),
    /// No limit.
    NoLimit,
    /// Whatever holds for the wider scope.
    Default,
}

/// For whom a policy is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyScope {
    /// Everybody.
    Relay,
    /// A customer.
    Customer(TenantName),
    /// A database.
    Database(TenantName, TenantName),
    /// A table.
    Table(TenantName, TenantName, CollectionName),
}

impl PolicyScope {
    /// A database, or a table of it.
    pub(super) fn of(database: &Database, table: Option<&CollectionName>) -> Self {
        let Database { customer, name, .. } = database;
        match table {
            Some(table) => Self::Table(customer.clone(), name.clone(), table.clone()),
            None => Self::Database(customer.clone(), name.clone()),
        }
    }

    fn level(&self) -> Level {
        match self {
            Self::Relay => Level::Relay,
            Self::Customer(_) => Level::Customer,
            Self::Database(..) => Level::Database,
            Self::Table(..) => Level::Table,
        }
    }

    /// The customer that it is about, unless it is about all.
    pub fn customer(&self) -> Option<&TenantName> {
        match self {
            Self::Relay => None,
            Self::Customer(customer) | Self::Database(customer, _) | Self::Table(customer, ..) => Some(customer),
        }
    }

    /// The next wider one.
    fn wider(&self) -> Option<Self> {
        match self {
            Self::Relay => None,
            Self::Customer(_) => Some(Self::Relay),
            Self::Database(customer, _) => Some(Self::Customer(customer.clone())),
            Self::Table(customer, database, _) => Some(Self::Database(customer.clone(), database.clone())),
        }
    }

    /// It and all wider ones, the narrowest first.
    pub(super) fn and_wider(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::wider)
    }

    /// Under which key it is kept. No name has a slash in it.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Relay => "/".to_owned(),
            scope => scope.to_string(),
        }
    }
}

impl fmt::Display for PolicyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay => f.write_str("relay"),
            Self::Customer(customer) => write!(f, "{customer}"),
            Self::Database(customer, database) => write!(f, "{customer}/{database}"),
            Self::Table(customer, database, table) => write!(f, "{customer}/{database}/{table}"),
        }
    }
}

/// What holds of a policy, and where that was set: nowhere, if it is as usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The figure; none is no limit.
    pub value: Option<u64>,
    /// Where it was set.
    pub set: Option<PolicyScope>,
}

/// What holds in a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(BTreeMap<Policy, InForce>);

impl Policies {
    /// Of what is kept for a scope and all wider ones, the narrowest first.
    pub(super) fn of(kept: impl IntoIterator<Item = (PolicyScope, Map<String, Json>)>) -> Self {
        let mut policies = BTreeMap::new();
        for (scope, kept) in kept {
            let read = |policy: Policy| Some((policy, policy.read(kept.get(policy.as_str())?)?));
            for (policy, value) in Policy::ALL.into_iter().filter_map(read) {
                policies.entry(policy).or_insert_with(|| InForce { value, set: Some(scope.clone()) });
            }
        }
        Self(policies)
    }

    /// What holds.
    pub fn in_force(&self, policy: Policy) -> InForce {
        self.0.get(&policy).cloned().unwrap_or(InForce { value: policy.usual(), set: None })
    }

    /// The quota; none is no limit.
    pub fn quota(&self, policy: Policy) -> Option<u64> {
        self.0.get(&policy).map_or(policy.usual(), |in_force| in_force.value)
    }

    /// The limit.
    pub fn limit(&self, policy: Policy) -> u64 {
        self.quota(policy).unwrap_or(u64::MAX)
    }

    /// The same as days.
    pub(super) fn days(&self, policy: Policy) -> Option<u32> {
        self.quota(policy).map(|days| u32::try_from(days).unwrap_or(u32::MAX))
    }

    /// What is set for that very scope, as it is published.
    pub(super) fn set_in(&self, scope: &PolicyScope) -> Map<String, Json> {
        let set = self.0.iter().filter(|(_, in_force)| in_force.set.as_ref() == Some(scope));
        set.map(|(policy, in_force)| (policy.as_str().to_owned(), in_force.value.into())).collect()
    }

    /// All that holds, as it is published, with what nobody can set.
    pub(super) fn limits(&self) -> Json {
        let mut limits = json!({
            "row_key_bytes": KEY_BYTES_MAX,
            "nesting": NESTING_MAX,
            "id_bytes": 128,
            "id_days": ID_DAYS,
            "page_rows": super::changes::ROWS_USUAL,
            "page_rows_max": super::changes::ROWS_MAX,
            "body_seconds": Limits::default().body_time_max.as_secs(),
        });
        for policy in Policy::ALL {
            limits[policy.as_str()] = self.quota(policy).into();
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> PolicyScope {
        let name = |text: &str| text.parse::<TenantName>().expect("a name");
        match text.split('/').collect::<Vec<_>>()[..] {
            [customer] => PolicyScope::Customer(name(customer)),
            [customer, database] => PolicyScope::Database(name(customer), name(database)),
            [customer, database, table] => {
                let table = CollectionName::user(table).expect("a name");
                PolicyScope::Table(name(customer), name(database), table)
            }
            _ => unreachable!("{text}"),
        }
    }

    #[test]
    fn the_narrowest_scope_holds_and_no_limit_is_a_setting_like_others() {
        let kept = |json: Json| members(json);
        fn members(json: Json) -> Map<String, Json> {
            if let Json::Object(members) = json { members } else { Map::new() }
        }
        let table = scope("acme/notes/todo");
        let all: Vec<String> = table.and_wider().map(|scope| scope.key()).collect();
        assert_eq!(all, ["acme/notes/todo", "acme/notes", "acme", "/"]);
        let mut sets = [
            kept(json!({"table_rows": 5})),
            kept(json!({"rows": null, "batch_rows": 7})),
            kept(json!({"rows": 10, "bytes": "nonsense", "row_bytes": null})),
            kept(json!({"rows": 20, "table_rows": 50, "batch_rows": 1_000_000, "of a later release": 1})),
        ]
        .into_iter();
        let policies = Policies::of(table.and_wider().map(|scope| (scope, sets.next().expect("four"))));
        let holds = |policy| (policies.quota(policy), policies.in_force(policy).set.map(|set| set.to_string()));
        assert_eq!(holds(Policy::TableRows), (Some(5), Some("acme/notes/todo".to_owned())));
        assert_eq!(holds(Policy::Rows), (None, Some("acme/notes".to_owned())));
        assert_eq!(holds(Policy::BatchRows), (Some(7), Some("acme/notes".to_owned())));
        assert_eq!(holds(Policy::Bytes), (None, None), "what makes no sense is not set");
        assert_eq!(holds(Policy::RowBytes), (Some(OBJECT_BYTES_MAX as u64), None), "that cannot be without a limit");
        assert_eq!(policies.set_in(&table), kept(json!({"table_rows": 5})));
        let wide = Policies::of([(PolicyScope::Relay, kept(json!({"batch_rows": 1_000_000})))]);
        assert_eq!(wide.limit(Policy::BatchRows), BATCH_ROWS_MAX as u64, "no more than can be");
    }

    #[test]
    fn values_are_numbers_in_their_range_or_words() {
        let parse = |policy: Policy, text: &str| policy.parse_setting(text).ok();
        assert_eq!(parse(Policy::Rows, "0"), Some(Setting::Value(0)));
        assert_eq!(parse(Policy::Rows, "none"), Some(Setting::NoLimit));
        assert_eq!(parse(Policy::BatchRows, "none"), None);
        assert_eq!(parse(Policy::BatchRows, "default"), Some(Setting::Default));
        assert_eq!(parse(Policy::Bytes, "64KiB"), Some(Setting::Value(64 << 10)));
        assert_eq!(parse(Policy::Bytes, "2TiB"), Some(Setting::Value(2 << 40)));
        for (policy, text) in [
            (Policy::BatchRows, "0"),
            (Policy::BatchRows, "1001"),
            (Policy::BatchBytes, "9MiB"),
            (Policy::Bytes, "99999999999TiB"),
            (Policy::Bytes, "KiB"),
            (Policy::Rows, "1KiB"),
            (Policy::Rows, "-1"),
            (Policy::Rows, "+1"),
            (Policy::Rows, "1.5"),
            (Policy::Rows, ""),
            (Policy::RetentionDays, "36501"),
            (Policy::ExpireDays, "0"),
        ] {
            let error = policy.parse_setting(text).expect_err("no value");
            assert!(error.contains(policy.as_str()), "{error}");
        }
        for policy in Policy::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
            assert_eq!(serde_json::to_value(policy).expect("a name"), policy.as_str());
        }
        assert!("row".parse::<Policy>().expect_err("none").contains("table_rows"));
    }

    #[test]
    fn what_is_counted_for_many_is_not_set_for_one() {
        for (policy, fits, is_too_narrow) in [
            (Policy::Databases, "acme", "acme/notes"),
            (Policy::Rows, "acme/notes", "acme/notes/todo"),
            (Policy::RequestsPerSecond, "acme/notes", "acme/notes/todo"),
        ] {
            policy.check_scope(&PolicyScope::Relay).expect("always");
            policy.check_scope(&scope(fits)).expect("it fits");
            let error = policy.check_scope(&scope(is_too_narrow)).expect_err("too narrow");
            assert!(error.contains(policy.as_str()) && error.contains("set it for"), "{error}");
        }
        assert!(Policy::TableRows.check_scope(&scope("acme/notes/todo")).is_ok());
    }
}
