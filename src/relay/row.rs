//! Rows as clients write and read them.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::problem::{Problem, ProblemCode};
use crate::model::{
    ClientId, CollectionName, Context, Fault, InvalidEdit, ObjectKey, Operation, Path, Remark, Request,
};
use crate::store::{Row, Upload, Uploaded, WriteError};

/// What a client asks to be done to one row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowChange {
    /// The table, where one request can name several.
    pub table: Option<String>,
    /// The row's key.
    pub key: String,
    /// What to do.
    #[serde(default)]
    pub op: RowOperation,
    /// Of put and patch.
    pub fields: Option<Map<String, Json>>,
    /// Of unset.
    pub names: Option<Vec<String>>,
    /// Of increment, add and remove.
    pub field: Option<String>,
    /// Of increment.
    pub by: Option<i64>,
    /// Of add and remove.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Json>,
    /// What the client had seen of the row.
    pub context: Option<String>,
    /// Under which it takes effect once.
    pub id: Option<String>,
    /// The client's own version of the row.
    pub source_version: Option<i64>,
}

/// `null` is a value like any other.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// What can be done to a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOperation {
    /// Replace it.
    #[default]
    Put,
    /// Write some fields.
    Patch,
    /// Delete it.
    Delete,
    /// Remove fields.
    Unset,
    /// Add to a counter.
    Increment,
    /// Add to a set.
    Add,
    /// Remove from a set.
    Remove,
    /// Have it show what is left of edits that lost to a delete.
    Restore,
    /// Give up edits that lost to a delete.
    Discard,
}

fn invalid(detail: impl std::fmt::Display, help: &str) -> Problem {
    Problem::new(ProblemCode::Invalid, detail.to_string(), help)
}

/// The same with the place of the fault in what was sent, as a JSON pointer.
fn invalid_at(path: &str, detail: impl std::fmt::Display, help: &str) -> Problem {
    invalid(detail, help).with("path", path)
}

/// The table of this name.
pub fn table(name: &str) -> Result<CollectionName, Problem> {
    if name == "." || name == ".." {
        let detail = format!("{name:?} cannot name a table: clients and proxies take it for a step in the path");
        return Err(invalid(detail, "choose another name"));
    }
    CollectionName::user(name).map_err(|error| invalid(error, "name the table so"))
}

/// The row key of this text.
pub fn row_key(text: &str) -> Result<ObjectKey, Problem> {
    text.parse().map_err(|error| invalid(error, "shorten the key"))
}

/// The context of this text.
pub fn context(text: &str) -> Result<Context, Problem> {
    text.parse().map_err(|error| invalid(error, "read the row again"))
}

/// Refuses what no row can hold, with its place. `within` is where that which an operation writes lies in what was sent.
pub fn check(operation: &Operation, within: &str) -> Result<(), Problem> {
    let refused =
        |fault: Fault| invalid_at(&format!("{within}{}", fault.pointer()), fault.what, "correct it and send it again");
    operation.fault().map_or(Ok(()), |fault| Err(refused(fault)))
}

/// The same of what a row of a batch says.
pub fn check_in_batch(operation: &Operation) -> Result<(), Problem> {
    let is_of_fields = matches!(operation, Operation::Put(_) | Operation::Patch(_));
    check(operation, if is_of_fields { "/fields" } else { "/value" })
}

impl RowChange {
    /// What it asks of the store. `in_table` is the table that the request is about, if it is about one.
    pub fn parse(self, in_table: Option<&CollectionName>) -> Result<Upload, Problem> {
        let missing = |what: &str| invalid_at("", format!("`{what}` is missing"), "say it in this row");
        let at = |path: &'static str| move |problem: Problem| problem.with("path", path);
        let collection = match (in_table, &self.table) {
            (Some(table), None) => table.clone(),
            (None, Some(name)) => table(name).map_err(at("/table"))?,
            (None, None) => return Err(missing("table")),
            (Some(_), Some(_)) => {
                return Err(invalid_at("/table", "the path names the table already", "leave `table` out"));
            }
        };
        let field = |field: Option<String>| -> Result<Path, Problem> {
            let name = field.ok_or_else(|| missing("field"))?;
            name.parse().map_err(|error| invalid_at("/field", error, "name the field so"))
        };
        let operation = match self.op {
            RowOperation::Put => Operation::Put(self.fields.ok_or_else(|| missing("fields"))?),
            RowOperation::Patch => Operation::Patch(self.fields.ok_or_else(|| missing("fields"))?),
            RowOperation::Delete => Operation::Delete,
            RowOperation::Unset => {
                let names = self.names.ok_or_else(|| missing("names"))?.into_iter().enumerate();
                let parse = |(at, name): (usize, String)| {
                    name.parse::<Path>()
                        .map_err(|error| invalid_at(&format!("/names/{at}"), error, "name the fields so"))
                };
                Operation::Unset(names.map(parse).collect::<Result<_, _>>()?)
            }
            RowOperation::Increment => Operation::Increment(field(self.field)?, self.by.ok_or_else(|| missing("by"))?),
            RowOperation::Add => Operation::Add(field(self.field)?, self.value.ok_or_else(|| missing("value"))?),
            RowOperation::Restore => Operation::Restore,
            RowOperation::Discard => Operation::Discard,
            RowOperation::Remove => Operation::Remove(field(self.field)?, self.value.ok_or_else(|| missing("value"))?),
        };
        let id = self.id.map(ClientId::try_from).transpose();
        Ok(Upload {
            seen: self.context.as_deref().map(context).transpose().map_err(at("/context"))?,
            remark: Remark {
                id: id.map_err(|error| invalid_at("/id", error, "shorten the id, or leave it out"))?,
                source_version: self.source_version,
                by: None,
            },
            ..Upload::new(Request { collection, key: row_key(&self.key).map_err(at("/key"))?, operation })
        })
    }
}

/// The field that cannot be written so, as a JSON pointer into the fields.
pub fn field_at_fault(error: &WriteError) -> Option<String> {
    let WriteError::Edit { error: InvalidEdit::WrongKind { field, .. }, .. } = error else { return None };
    Some(if field.starts_with('/') { field.clone() } else { format!("/{}", field.replace('~', "~0")) })
}

/// Where a row says what cannot be written, as a JSON pointer into it: to all of it, if it is no single part.
pub fn fault(operation: &Operation, error: &WriteError) -> String {
    use InvalidEdit::{Overflow, WrongKind};
    let WriteError::Edit { error: edit, .. } = error else { return String::new() };
    match (operation, edit) {
        (Operation::Put(_) | Operation::Patch(_), _) => {
            field_at_fault(error).map_or_else(String::new, |field| format!("/fields{field}"))
        }
        (Operation::Increment(..) | Operation::Add(..) | Operation::Remove(..), WrongKind { .. }) => {
            "/field".to_owned()
        }
        (Operation::Increment(..), Overflow { .. }) => "/by".to_owned(),
        _ => String::new(),
    }
}

/// What a client is told of a write that cannot be done.
pub fn write_problem(error: &WriteError) -> Problem {
    let detail = error.to_string();
    match error {
        WriteError::Edit { error: InvalidEdit::NotLost { .. }, .. } => {
            Problem::new(ProblemCode::NotFound, detail, "read `/lost` again: somebody may have decided already")
        }
        WriteError::Edit { error: InvalidEdit::NotFound { .. }, .. } => {
            let help =
                "put the row, or send the context that you had seen: then what you write is kept beside its delete";
            Problem::new(ProblemCode::NotFound, detail, help)
        }
        WriteError::Edit { error: InvalidEdit::TooLarge(_) | InvalidEdit::NamesTooLong(_), .. }
        | WriteError::RowTooLarge { .. }
        | WriteError::TooLarge { .. } => {
            Problem::new(ProblemCode::TooLarge, detail, "spread it over several rows or requests")
        }
        WriteError::Edit { error: InvalidEdit::WrongKind { field, is, .. }, .. } => {
            let help = "use increment, add or remove for it, or unset it first";
            Problem::new(ProblemCode::Invalid, format!("the field {field} is {is}"), help)
        }
        WriteError::Edit { .. } => Problem::new(ProblemCode::Invalid, detail, "correct it and send it again"),
        WriteError::Changed { .. } => {
            Problem::new(ProblemCode::Changed, detail, "read the row again, and send what is still to be written")
        }
        WriteError::Wiped { .. } => {
            let help =
                "the database was wiped since: read it again, and send what is still to be written, without context";
            Problem::new(ProblemCode::Changed, detail, help)
        }
        WriteError::Waiting | WriteError::Backlog | WriteError::Unvouched => {
            Problem::new(ProblemCode::Unavailable, detail, "try again later").retry_after(5)
        }
        WriteError::NotGranted { .. } => {
            Problem::new(ProblemCode::Forbidden, "this relay may not write in this database", "ask whoever owns it")
        }
        WriteError::UnknownSpace(_) => Problem::new(ProblemCode::NotFound, "there is no such database", "register it"),
    }
}

/// What became of a row, in a batch.
pub fn result(table: Option<&str>, key: &str, id: Option<&str>, outcome: &Result<Uploaded, Problem>) -> Json {
    let mut result = Map::new();
    if let Some(table) = table {
        result.insert("table".to_owned(), table.into());
    }
    result.insert("key".to_owned(), key.into());
    if let Some(id) = id {
        result.insert("id".to_owned(), id.into());
    }
    match outcome {
        Ok(Uploaded { duplicate, version, seen, visible }) => {
            result.insert("status".to_owned(), if *duplicate { "duplicate" } else { "accepted" }.into());
            result.insert("version".to_owned(), (*version).into());
            result.insert("context".to_owned(), seen.to_string().into());
            if let Some(visible) = visible {
                result.insert("visible".to_owned(), (*visible).into());
            }
        }
        Err(problem) => {
            // What is full now may have room again: whoever waits loses nothing.
            let again = matches!(problem.code, ProblemCode::Unavailable | ProblemCode::QuotaExceeded);
            result.insert("status".to_owned(), if again { "retry" } else { "rejected" }.into());
            result.insert("problem".to_owned(), problem.body());
        }
    }
    result.into()
}

/// A row as it is shown.
pub fn shown(row: &Row) -> Map<String, Json> {
    let Row { key, version, modified_ms, by, client, context, fields, conflicts, source_version, .. } = row;
    let mut shown = Map::new();
    shown.insert("key".to_owned(), key.as_str().into());
    shown.insert("version".to_owned(), (*version).into());
    if let Some(source_version) = source_version {
        shown.insert("source_version".to_owned(), (*source_version).into());
    }
    shown.insert("modified_ms".to_owned(), (*modified_ms).into());
    let by = client.as_ref().map_or_else(|| by.to_string(), |client| client.as_str().to_owned());
    shown.insert("modified_by".to_owned(), by.into());
    shown.insert("context".to_owned(), context.to_string().into());
    if let Some(fields) = fields {
        shown.insert("fields".to_owned(), fields.clone().into());
    }
    if !conflicts.is_empty() {
        let values = conflicts.iter().map(|conflict| (conflict.path.to_string(), json!(conflict.values)));
        shown.insert("conflicts".to_owned(), values.collect::<Map<_, _>>().into());
    }
    shown
}

/// A row in a list of changes: it, or that it is gone.
pub fn changed(row: &Row) -> Json {
    let mut changed = shown(row);
    changed.insert("table".to_owned(), row.collection.to_string().into());
    changed.insert("op".to_owned(), if row.fields.is_some() { "put" } else { "delete" }.into());
    changed.into()
}
