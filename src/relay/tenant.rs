//! Customers and their databases: which space of this node each is, and who may come in.
//!
//! All of it lies in one space of the node's own, the *system* space: an ordinary space, so that it is backed up and
//! read like any other. Its collections are `databases` (key `CUSTOMER/DATABASE`), `tables` (`CUSTOMER/DATABASE/TABLE`:
//! what is set of it), `tickets` (`CUSTOMER/DATABASE/TICKET`, see [`invite`](super::invite)), `tokens` (the token's id),
//! `policies` (the scope; `/` for all), `audit` and `relays` (see [`audit`](super::audit)).
//!
//! **Invariant**: a token is stored as the hash of its secret part only. Of what is set here at once nothing is lost: each
//! thing that is set by itself has a record of its own or a field of one, and a record is made only where there is none.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use tokio::sync::Mutex;

use super::audit::{Deed, OPERATOR};
use super::policy::{Policies, Policy, PolicyScope, Setting};
use super::problem::{Problem, ProblemCode};
use super::quota::used_up;
use super::row;
use crate::model::{ClientName, CollectionName, Context, ObjectKey, Role, SpaceId};
use crate::node::{InvalidRequest, Node, NodeError, Transaction};
use crate::store::{PageLimits, SYSTEM_SPACE, StoreError, Upload, View, WriteError};

/// What the system space is called.
pub const SYSTEM_NAME: &str = "system";

/// The name of a customer or a database: 1 to 64 of `A-Z a-z 0-9 _ . -`, and not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

/// A text that names no customer and no database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a customer or a database: use 1 to 64 of the characters A-Z a-z 0-9 _ . -, and not only one or two dots"
)]
pub struct InvalidTenantName(String);

impl TenantName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, InvalidTenantName> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        // Clients and proxies take those two for steps in a path, and ask for something else.
        let is_step = text == "." || text == "..";
        if (1..=64).contains(&text.len()) && text.bytes().all(is_valid) && !is_step {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTenantName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for TenantName {
    type Error = InvalidTenantName;

    fn try_from(text: String) -> Result<Self, InvalidTenantName> {
        text.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who sees a database without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// Everybody, who may read it.
    PublicRead,
}

/// A database of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Whose it is.
    pub customer: TenantName,
    /// What it is called.
    pub name: TenantName,
    /// The space that it is.
    pub space: SpaceId,
    /// Who sees it without a token.
    pub visibility: Visibility,
}

/// How far a token reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The only customer; none for an administrator, who reaches everything.
    pub customer: Option<TenantName>,
    /// The only database; none for all of the customer's.
    pub database: Option<TenantName>,
    /// What it may do there.
    #[serde(with = "role_name")]
    pub role: Role,
}

/// Roles by their names, as people write them.
mod role_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::Role;

    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(role.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A token as it is kept: everything but its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public part.
    pub id: String,
    /// How far it reaches.
    #[serde(flatten)]
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it ends; never if there is none.
    pub expires_ms: Option<u64>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The bearer of a token.
    Token(TokenRecord),
    /// Somebody without one.
    Anybody,
}

impl Principal {
    /// A name that tells it from others.
    pub fn name(&self) -> &str {
        match self {
            Self::Token(token) => &token.id,
            Self::Anybody => "",
        }
    }

    /// The same as it is written to the rows that it changes.
    pub(super) fn client_name(&self) -> Option<ClientName> {
        self.name().to_owned().try_into().ok()
    }

    /// What it may do in a database of that customer; none if it may not even know whether there is one.
    pub fn role(&self, customer: &TenantName, database: &TenantName) -> Option<Role> {
        let Self::Token(TokenRecord { scope, .. }) = self else { return None };
        let reaches = |bound: &Option<TenantName>, name| bound.as_ref().is_none_or(|bound| bound == name);
        (reaches(&scope.customer, customer) && reaches(&scope.database, database)).then_some(scope.role)
    }
}

/// The tenants of a relay.
#[derive(Clone, Debug)]
pub struct Tenants {
    node: Node,
    system: SpaceId,
    registering: Arc<Mutex<()>>,
}

pub(super) fn collection(name: &str) -> Result<CollectionName, Problem> {
    CollectionName::user(name).map_err(|error| internal(&error))
}

pub(super) fn internal(error: &dyn fmt::Display) -> Problem {
    tracing::error!(%error, "a request failed");
    Problem::new(ProblemCode::Internal, "the relay could not do that", "tell whoever runs it; its log says more")
}

/// What a request is answered when the node cannot do its part.
pub(super) fn node_problem(error: NodeError) -> Problem {
    match error {
        NodeError::Stopping => {
            let help = "try again: it may be back in a moment";
            Problem::new(ProblemCode::Unavailable, "the relay is stopping", help).retry_after(5)
        }
        NodeError::Store(error) => {
            tracing::error!(%error, "the store failed");
            let detail = "the relay's storage fails at the moment; nothing was acknowledged";
            Problem::new(ProblemCode::Unavailable, detail, "try again later, with the same ids").retry_after(5)
        }
        NodeError::Write(error) => row::write_problem(&error),
        error => internal(&error),
    }
}

/// The key of something in a database. No name has a slash in it.
pub(super) fn key_within(Database { customer, name, .. }: &Database, thing: &str) -> String {
    format!("{customer}/{name}/{thing}")
}

fn hash(secret: &str) -> String {
    HEXLOWER.encode(blake3::hash(secret.as_bytes()).as_bytes())
}

impl Tenants {
    /// Those of `node`, whose system space is made if there is none yet.
    pub async fn open(node: &Node) -> Result<Self, NodeError> {
        if let Some(tenants) = Self::of(node)? {
            // Should it not be readable now, another one would have all customers forgotten.
            node.view(tenants.system)?;
            return Ok(tenants);
        }
        let system = node.create_space(SYSTEM_NAME).await?;
        node.remember_setting(SYSTEM_SPACE, system.to_string()).await?;
        Ok(Self::new(node, system))
    }

    /// Those of `node`, if it ever was a relay.
    pub fn of(node: &Node) -> Result<Option<Self>, NodeError> {
        let damaged = |error| StoreError::Damaged(format!("which space is the system's: {error}"));
        let system = node.setting(SYSTEM_SPACE)?.map(|id| id.parse::<SpaceId>().map_err(damaged)).transpose()?;
        Ok(system.map(|system| Self::new(node, system)))
    }

    fn new(node: &Node, system: SpaceId) -> Self {
        Self { node: node.clone(), system, registering: Arc::default() }
    }

    /// The node that they are of.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Whether a space is the one in which all of this lies.
    pub fn is_system(&self, space: SpaceId) -> bool {
        self.system == space
    }

    /// Where all of this lies.
    pub(super) fn system(&self) -> SpaceId {
        self.system
    }

    pub(super) fn view(&self) -> Result<View, Problem> {
        self.node.view(self.system).map_err(node_problem)
    }

    pub(super) fn record(&self, table: &str, key: &str) -> Result<Option<Json>, Problem> {
        let (table, Ok(key)) = (collection(table)?, key.parse::<ObjectKey>()) else { return Ok(None) };
        let found = self.view()?.get(&table, &key).map_err(|error| node_problem(error.into()))?;
        Ok(found.map(|found| Json::Object(found.fields)))
    }

    /// The records whose keys begin so.
    pub(super) fn records(&self, table: &str, beginning: &str) -> Result<Vec<(String, Json)>, Problem> {
        let mut records = Vec::new();
        let visited = self.view()?.visit_under(&collection(table)?, beginning, &mut |key, object| {
            let fields = object.shown().unwrap_or_default();
            records.push((key.as_str().to_owned(), Json::Object(fields)));
            std::ops::ControlFlow::Continue(())
        });
        visited.map_err(|error| node_problem(error.into()))?;
        Ok(records)
    }

    /// The database, if it is registered.
    pub fn database(&self, customer: &TenantName, name: &TenantName) -> Result<Option<Database>, Problem> {
        let Some(record) = self.record("databases", &format!("{customer}/{name}"))? else { return Ok(None) };
        database(customer, name, &record).map(Some)
    }

    /// The record of a database, as it is kept.
    pub(super) fn kept_of(&self, Database { customer, name, .. }: &Database) -> Result<Json, Problem> {
        let kept = self.record("databases", &format!("{customer}/{name}"))?;
        kept.ok_or_else(|| internal(&"a database came and went"))
    }

    /// What is set of the tables of a database, by table.
    pub(super) fn tables(&self, database: &Database) -> Result<Vec<(String, Json)>, Problem> {
        let beginning = key_within(database, "");
        let records = self.records("tables", &beginning)?.into_iter();
        Ok(records.filter_map(|(key, record)| Some((key.strip_prefix(&beginning)?.to_owned(), record))).collect())
    }

    /// What is set of a table, if anything is.
    pub(super) fn table(&self, database: &Database, table: &CollectionName) -> Result<Option<Json>, Problem> {
        self.record("tables", &key_within(database, table.as_str()))
    }

    /// Sets what is set of a table, and leaves nothing of what was.
    pub(super) async fn set_table(
        &self,
        database: &Database,
        table: &CollectionName,
        fields: Json,
        by: &str,
    ) -> Result<(), Problem> {
        let deed = Deed::Settings { database: database.name.clone(), table: table.clone(), settings: fields.clone() };
        let done = Transaction::new().put("tables", &key_within(database, table.as_str()), fields);
        self.write(done.and_then(|done| self.noted(done, Some(&database.customer), by, &deed))).await
    }

    /// What holds in a scope.
    pub fn policies(&self, scope: &PolicyScope) -> Result<Policies, Problem> {
        let (view, table) = (self.view()?, collection("policies")?);
        if !view.has_collection(&table) {
            return Ok(Policies::default());
        }
        let kept = |scope: PolicyScope| {
            let key: ObjectKey = scope.key().parse().map_err(|error| internal(&error))?;
            let found = view.get(&table, &key).map_err(|error| node_problem(error.into()))?;
            Ok((scope, found.map(|found| found.fields).unwrap_or_default()))
        };
        let kept: Vec<_> = scope.and_wider().map(kept).collect::<Result<_, Problem>>()?;
        Ok(Policies::of(kept))
    }

    /// What is set for a customer, its databases and their tables, by scope.
    pub(super) fn policies_set_for(&self, customer: &TenantName) -> Result<Vec<(String, Json)>, Problem> {
        let mut set = self.records("policies", customer.as_str())?;
        // Names of other customers may begin with this one.
        set.retain(|(scope, _)| scope.split('/').next() == Some(customer.as_str()));
        Ok(set)
    }

    /// Sets a policy.
    pub async fn set_policy(&self, scope: &PolicyScope, policy: Policy, setting: Setting) -> Result<(), Problem> {
        let invalid = |detail: String| Problem::new(ProblemCode::Invalid, detail, "correct it and set it again");
        policy.check_scope(scope).map_err(invalid)?;
        let (key, name) = (scope.key(), policy.as_str());
        loop {
            let known = self.record("policies", &key)?;
            let is_set = known.as_ref().is_some_and(|known| known.get(name).is_some());
            let value = match setting {
                Setting::Value(value) => Json::from(value),
                Setting::NoLimit => Json::Null,
                Setting::Default if !is_set => return Ok(()),
                Setting::Default => "default".into(),
            };
            let deed = Deed::Policy { scope: scope.to_string(), policy, value: value.clone() };
            let noted = |done| self.noted(done, scope.customer(), OPERATOR, &deed);
            let transaction = Transaction::new();
            if known.is_some() {
                // Each policy is a field by itself, so others may be set at the same time.
                let done = match setting {
                    Setting::Default => transaction.unset("policies", &key, name),
                    _ => transaction.patch("policies", &key, json!({name: value})),
                };
                return self.write(done.and_then(noted)).await;
            }
            let done = transaction.put("policies", &key, json!({name: value}));
            if self.write_first(done.and_then(noted)).await? {
                return Ok(());
            }
            // Somebody set another one meanwhile. What is there now is not taken away again, so this ends.
        }
    }

    /// Whether there is anything of a customer.
    pub(super) fn has_customer(&self, customer: &TenantName) -> Result<bool, Problem> {
        let (view, prefix) = (self.view()?, format!("{customer}/"));
        let from: ObjectKey = prefix.parse().map_err(|error| internal(&error))?;
        for table in ["databases", "audit"].map(collection) {
            let table = table?;
            let (only, one) =
                (BTreeSet::from([table.clone()]), PageLimits { rows: 1, bytes: 1, looked_at: usize::MAX });
            let page = view.rows_after(Some(&(table, from.clone())), Some(&only), one);
            let rows = page.map_err(|error| node_problem(error.into()))?.rows;
            if rows.iter().any(|row| row.key.as_str().starts_with(&prefix)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All databases, by customer and name.
    pub fn databases(&self) -> Result<Vec<Database>, Problem> {
        self.databases_of(None)
    }

    /// The same of one customer, if any is named.
    fn databases_of(&self, customer: Option<&TenantName>) -> Result<Vec<Database>, Problem> {
        let beginning = customer.map_or_else(String::new, |customer| format!("{customer}/"));
        let read = |(key, record): (String, Json)| {
            let (customer, name) = key.split_once('/').ok_or_else(|| internal(&"a database without a customer"))?;
            let parse = |name: &str| name.parse::<TenantName>().map_err(|error| internal(&error));
            database(&parse(customer)?, &parse(name)?, &record)
        };
        self.records("databases", &beginning)?.into_iter().map(read).collect()
    }

    /// Registers a database. Of two at once one is first, and both get that one.
    pub async fn register(
        &self,
        customer: &TenantName,
        name: &TenantName,
        visibility: Option<Visibility>,
    ) -> Result<(Database, bool), Problem> {
        self.register_by(OPERATOR, customer, name, visibility).await
    }

    /// The same for somebody else than the operator.
    pub(super) async fn register_by(
        &self,
        by: &str,
        customer: &TenantName,
        name: &TenantName,
        visibility: Option<Visibility>,
    ) -> Result<(Database, bool), Problem> {
        if name.as_str() == SYSTEM_NAME {
            let detail = format!("{SYSTEM_NAME} is what a relay calls the space of its own");
            return Err(Problem::new(ProblemCode::Invalid, detail, "choose another name"));
        }
        if let Some(known) = self.registered(by, customer, name, visibility).await? {
            return Ok((known, false));
        }
        // One at a time, so that the quota is met exactly.
        let _turn = self.registering.lock().await;
        // While this one waited, somebody else may have registered it.
        if let Some(known) = self.registered(by, customer, name, visibility).await? {
            return Ok((known, false));
        }
        let quota = self.policies(&PolicyScope::Customer(customer.clone()))?.quota(Policy::Databases);
        let theirs = self.databases_of(Some(customer))?.len() as u64;
        if let Some(quota) = quota.filter(|quota| theirs >= *quota) {
            return Err(used_up(Policy::Databases, theirs, quota));
        }
        let space = self.node.create_space(name.as_str()).await.map_err(node_problem)?;
        let fields = json!({
            "space": space.to_string(),
            "visibility": visibility.unwrap_or_default(),
            "created_ms": self.node.surroundings().wall_ms(),
        });
        let mut done = Transaction::new().put("databases", &format!("{customer}/{name}"), fields);
        if let Some(visibility) = visibility.filter(|visibility| *visibility != Visibility::Private) {
            let deed = Deed::Visibility { database: name.clone(), visibility };
            done = done.and_then(|done| self.noted(done, Some(customer), by, &deed));
        }
        if self.write_first(done).await? {
            let (customer, name, visibility) = (customer.clone(), name.clone(), visibility.unwrap_or_default());
            return Ok((Database { customer, name, space, visibility }, true));
        }
        // Somebody was quicker, not by way of this lock; the space that was made here stays empty.
        let known = self.registered(by, customer, name, visibility).await?;
        Ok((known.ok_or_else(|| internal(&"a database came and went"))?, false))
    }

    /// A database that is registered already, seen by whom it is to be seen now.
    async fn registered(
        &self,
        by: &str,
        customer: &TenantName,
        name: &TenantName,
        visibility: Option<Visibility>,
    ) -> Result<Option<Database>, Problem> {
        let Some(mut known) = self.database(customer, name)? else { return Ok(None) };
        if let Some(visibility) = visibility.filter(|visibility| *visibility != known.visibility) {
            let (key, fields) = (format!("{customer}/{name}"), json!({"visibility": visibility}));
            let deed = Deed::Visibility { database: name.clone(), visibility };
            let done = Transaction::new().patch("databases", &key, fields);
            self.write(done.and_then(|done| self.noted(done, Some(customer), by, &deed))).await?;
            known.visibility = visibility;
        }
        Ok(Some(known))
    }

    /// Writes a transaction if nothing is there yet where it writes first. Returns whether that was so.
    async fn write_first(&self, transaction: Result<Transaction, InvalidRequest>) -> Result<bool, Problem> {
        let requests = Vec::from(transaction.map_err(|error| internal(&error))?);
        let mut uploads: Vec<Upload> = requests.into_iter().map(Upload::new).collect();
        if let Some(first) = uploads.first_mut() {
            first.expected = Some(Context::default());
        }
        match self.node.upload(self.system, [uploads]).await.into_iter().next().transpose().map_err(node_problem)? {
            Some(Ok(_)) => Ok(true),
            Some(Err(WriteError::Changed { .. })) => Ok(false),
            Some(Err(error)) => Err(row::write_problem(&error)),
            None => Err(internal(&"a write without an outcome")),
        }
    }

    pub(super) async fn write(&self, transaction: Result<Transaction, InvalidRequest>) -> Result<(), Problem> {
        let transaction = transaction.map_err(|error| internal(&error))?;
        self.node.write(self.system, transaction.into()).await.map_err(node_problem)?;
        Ok(())
    }

    /// Makes a token. Returns its text, which is not kept, and what is.
    pub async fn create_token(&self, scope: Scope, expires_ms: Option<u64>) -> Result<(String, TokenRecord), Problem> {
        let around = self.node.surroundings();
        let secret = HEXLOWER.encode(&[around.random_id(), around.random_id()].concat());
        let id = HEXLOWER.encode(&around.random().to_be_bytes());
        let record = TokenRecord { id: id.clone(), scope, created_ms: around.wall_ms(), expires_ms };
        let mut fields = match serde_json::to_value(&record) {
            Ok(Json::Object(fields)) => fields,
            _ => Map::new(),
        };
        fields.insert("hash".to_owned(), hash(&secret).into());
        let done = Transaction::new().put("tokens", &id, fields.into());
        let (customer, deed) = (record.scope.customer.as_ref(), Deed::grant(&record));
        self.write(done.and_then(|done| self.noted(done, customer, OPERATOR, &deed))).await?;
        Ok((format!("thence_{id}_{secret}"), record))
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, Problem> {
        let read = |(id, record): (String, Json)| match serde_json::from_value(record) {
            Ok(token) => Some(token),
            Err(error) => {
                // It lets nobody in, and must not hide the others.
                tracing::warn!(%id, %error, "a token cannot be read");
                None
            }
        };
        Ok(self.records("tokens", "")?.into_iter().filter_map(read).collect())
    }

    /// Ends a token. Returns whether there was one.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, Problem> {
        let Some(known) = self.record("tokens", id)? else { return Ok(false) };
        let customer = known.get("customer").and_then(Json::as_str).and_then(|customer| customer.parse().ok());
        let deed = Deed::Revoke { token: id.to_owned() };
        let done = Transaction::new().delete("tokens", id);
        match self.write(done.and_then(|done| self.noted(done, customer.as_ref(), OPERATOR, &deed))).await {
            Ok(()) => Ok(true),
            // Somebody else was quicker.
            Err(problem) => {
                self.record("tokens", id).and_then(|left| if left.is_none() { Ok(true) } else { Err(problem) })
            }
        }
    }

    /// Who brings this text after `Bearer`.
    pub fn authenticate(&self, text: &str) -> Result<Principal, Problem> {
        let unknown = || {
            let help = "send `Authorization: Bearer TOKEN`; `thence token create` makes one";
            Problem::new(ProblemCode::Unauthenticated, "this token is not known, or its time is over", help)
        };
        let (id, secret) = text.strip_prefix("thence_").and_then(|rest| rest.split_once('_')).ok_or_else(unknown)?;
        let record = self.record("tokens", id)?.ok_or_else(unknown)?;
        let expected = record.get("hash").and_then(Json::as_str).unwrap_or_default().to_owned();
        // Of a hash nobody learns anything by how long it takes to compare.
        if expected != hash(secret) {
            return Err(unknown());
        }
        let token: TokenRecord = serde_json::from_value(record).map_err(|error| internal(&error))?;
        let now_ms = self.node.surroundings().wall_ms();
        if token.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(unknown());
        }
        Ok(Principal::Token(token))
    }
}

fn database(customer: &TenantName, name: &TenantName, record: &Json) -> Result<Database, Problem> {
    let space = record.get("space").and_then(Json::as_str).and_then(|space| space.parse().ok());
    let visibility = record.get("visibility").cloned().and_then(|value| serde_json::from_value(value).ok());
    Ok(Database {
        customer: customer.clone(),
        name: name.clone(),
        space: space.ok_or_else(|| internal(&"a database without a space"))?,
        visibility: visibility.unwrap_or_default(),
    })
}
