//! The shapes of what is sent and answered, as JSON Schema (2020-12, which OpenAPI 3.1 speaks).
//!
//! **Invariant**: a request that fits is understood, and one that does not is refused; what each row of a batch says is
//! judged row by row, so its schema is as lenient as that. An answer has all members that are required here. Members may
//! be added to answers in time, so programs are told to bear with more.

use serde::Deserialize;
use serde::de::value::Error;
use serde_json::{Map, Value as Json, json};

use super::audit::{ENTRIES_MAX, Which};
use super::changes::{ROWS_MAX, ROWS_USUAL};
use super::policy::Policy;
use super::problem::ProblemCode;
use super::row::RowOperation;
use super::settings::DAYS_MAX;
use super::tenant::Visibility;
use super::upload::BATCH_ROWS_MAX;
use crate::model::{KEY_BYTES_MAX, Role};

/// All of them, by name.
pub fn schemas() -> Map<String, Json> {
    [requests(), values(), answers()].into_iter().flatten().collect()
}

/// An object of these members, all of which are there, but perhaps for the `optional` ones.
fn object(properties: Json, optional: &[&str]) -> Json {
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// The same as part of a request, where none of the members has to be there but for `required`, and others are refused.
fn request(properties: Json, required: &[&str]) -> Json {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn schema(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn list(items: Json) -> Json {
    json!({"type": "array", "items": items})
}

fn or_null(schema: Json) -> Json {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn text() -> Json {
    json!({"type": "string"})
}

fn said(description: &str, mut schema: Json) -> Json {
    schema["description"] = description.into();
    schema
}

/// A whole number of 64 bits without a sign.
fn natural() -> Json {
    json!({"type": "integer", "minimum": 0, "maximum": u64::MAX})
}

/// A whole number of 64 bits with a sign.
fn integer() -> Json {
    json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX})
}

fn at_least_one() -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": u64::MAX})
}

fn days(least: u32) -> Json {
    json!({"type": "integer", "minimum": least, "maximum": DAYS_MAX})
}

fn choice(names: &[&str]) -> Json {
    json!({"type": "string", "enum": names})
}

fn members(of: Json) -> Map<String, Json> {
    if let Json::Object(members) = of { members } else { Map::new() }
}

/// What clients send. Members of the schemas whose names end in `Query` are parameters of a query.
fn requests() -> Map<String, Json> {
    let roles = [Role::Reader, Role::Writer, Role::Owner].map(Role::as_str);
    members(json!({
        "Registration": request(json!({
            "visibility": said("`private` if it is not said.", or_null(choice(names_of::<Visibility>()))),
        }), &[]),
        "WipeQuery": request(json!({
            "revision": said("Only if the database is at this revision.", natural()),
        }), &[]),
        "UploadQuery": request(json!({
            "atomic": said("Whether all rows are written, or none.", json!({"type": "boolean"})),
        }), &[]),
        "Rows": request(json!({
            "rows": {"type": "array", "items": schema("RowChange"), "maxItems": BATCH_ROWS_MAX},
        }), &["rows"]),
        "RowChange": request(json!({
            "table": said("Needed where the path names none, and refused where it does.", or_null(text())),
            "key": said(&format!("Of 1 to {KEY_BYTES_MAX} bytes; once in a batch."), text()),
            "op": said("`put` if it is not said.", choice(names_of::<RowOperation>())),
            "fields": said("Of `put` and `patch`.", or_null(schema("Fields"))),
            "names": said("Of `unset`: which fields.", or_null(list(text()))),
            "field": said("Of `increment`, `add` and `remove`: a name, or a JSON pointer.", or_null(text())),
            "by": said("Of `increment`.", or_null(integer())),
            "value": said("Of `add` and `remove`.", schema("Value")),
            "context": said("What was seen of the row; all that the relay has, if it is not said.", or_null(text())),
            "id": said("Of at most 128 bytes: under it the change takes effect once.", or_null(text())),
            "source_version": said("The client's own version of the row.", or_null(integer())),
        }), &["key"]),
        "DeleteQuery": request(json!({
            "after": said("All rows of a higher version. Takes `If-Match`.", natural()),
            "after_source": said("All rows of a higher `source_version`. Takes `If-Match`.", integer()),
            "all": said("All rows. Takes `If-Match`.", json!({"type": "boolean"})),
        }), &[]),
        "Keys": request(json!({
            "keys": {"type": "array", "items": text(), "uniqueItems": true, "maxItems": BATCH_ROWS_MAX},
        }), &["keys"]),
        "TableSettings": request(json!({
            "schema": said("A number or a name; once it changes, every client begins anew.", or_null(json!({
                "anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX}, {"type": "string", "minLength": 1, "maxLength": 64}],
            }))),
            "retention_days": said("How long deletions are told.", or_null(days(0))),
            "expire_days": said("When rows that nobody changes are deleted.", or_null(days(1))),
        }), &[]),
        "ManifestQuery": request(json!({
            "min_version": natural(),
            "max_version": natural(),
            "min_source_version": said(
                "A version, or `next` as it was given. Not together with `min_version` and `max_version`.",
                json!({"anyOf": [integer(), within_source()]}),
            ),
            "max_source_version": said("Not together with `min_version` and `max_version`.", integer()),
            "limit": said(&format!("{ROWS_USUAL} if it is not said; at most {ROWS_MAX} rows are given."), at_least_one()),
            "summary": said("Whether count and digest are enough.", json!({"type": "boolean"})),
        }), &[]),
        "ChangesQuery": request(json!({
            "limit": said(&format!("At most {ROWS_MAX} rows are given."), at_least_one()),
            "tables": said("The only tables that are wanted, with commas between them.", json!({
                "type": "string",
                "pattern": "^[A-Za-z0-9_.-]{1,64}(,[A-Za-z0-9_.-]{1,64})*$",
            })),
        }), &[]),
        "LostQuery": request(json!({
            "limit": said(&format!("{ROWS_USUAL} if it is not said; at most {ROWS_MAX} rows are given."), at_least_one()),
            "after": said("The `next` of the page before.", json!({
                "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}/[\\s\\S]", "maxLength": 64 + 1 + KEY_BYTES_MAX,
            })),
        }), &[]),
        "AuditQuery": request(json!({
            "limit": said(&format!("At most {ENTRIES_MAX} entries are given."), at_least_one()),
            "after": said("The `id` of the last entry that is known.", json!({
                "type": "string", "pattern": "^[0-9a-f]{0,20}$",
            })),
        }), &[]),
        "Sync": request(json!({
            "changes": {"type": "array", "items": schema("RowChange"), "maxItems": BATCH_ROWS_MAX},
            "limit": said(&format!("At most {ROWS_MAX} rows are given."), or_null(at_least_one())),
            "tables": said("The only tables that are wanted.", or_null(json!({
                "type": "array", "items": schema("Name"), "minItems": 1,
            }))),
        }), &[]),
        "Invitation": request(json!({
            "role": choice(&roles),
            "uses": said("How many nodes may join with it; 1 if it is not said.", or_null(json!({
                "type": "integer", "minimum": 0, "maximum": u32::MAX,
            }))),
            "expires": said("For how long it holds; 7d if it is not said.", or_null(json!({
                "type": "string", "pattern": "^[1-9][0-9]{0,2}[smhdw]$",
            }))),
        }), &["role"]),
    }))
}

/// What stands in requests and answers alike.
fn values() -> Map<String, Json> {
    members(json!({
        "Name": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "Key": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
        "JobId": {"type": "string", "pattern": "^[a-z0-9-]+$", "minLength": 1, "maxLength": 100},
        "Fields": {
            "type": "object",
            "description": "The fields of a row. Bytes are `{\"$bytes\": BASE64}`; counters show as numbers, sets as \
                            sorted arrays.",
            "additionalProperties": schema("Value"),
        },
        "Value": {
            "description": "JSON: numbers are integers of 64 bits with a sign, or floats of 64 bits.",
            "type": ["null", "boolean", "number", "string", "array", "object"],
        },
    }))
}

/// What is answered.
fn answers() -> Map<String, Json> {
    let epoch = || said("Within which versions can be compared.", text());
    let digest = || json!({"type": "string", "pattern": "^[0-9a-f]{32}$"});
    let row = json!({
        "key": schema("Key"),
        "version": natural(),
        "source_version": integer(),
        "modified_ms": said("0 if nobody knows that any more.", natural()),
        "modified_by": said("The id of the token, or of the device.", text()),
        "context": said("What whoever sees this has seen: to be sent back with a write.", text()),
        "fields": schema("Fields"),
        "conflicts": said("The values of each field that has several.", json!({
            "type": "object", "additionalProperties": list(schema("Value")),
        })),
    });
    let with = |of: &Json, more: Json| Json::Object(members(of.clone()).into_iter().chain(members(more)).collect());
    let changes = json!({
        "phase": choice(&["initial", "live"]),
        "progress": object(json!({"rows_done": natural(), "rows_total": natural(), "bytes_done": natural()}), &[]),
        "epoch": epoch(),
        "revision": natural(),
        "changes": list(schema("Change")),
        "more": said("Whether to ask again at once.", json!({"type": "boolean"})),
        "token": said("To be sent as `Sync-Token` next time.", text()),
    });
    let mut answers = members(json!({
        "Database": object(json!({
            "customer": schema("Name"),
            "database": schema("Name"),
            "space": text(),
            "visibility": choice(names_of::<Visibility>()),
            "revision": natural(),
            "epoch": epoch(),
            "version": natural(),
            "rows": natural(),
            "bytes": natural(),
            "conflicts": natural(),
            "lost": natural(),
            "horizon": said("The highest `min_retained_version` of its tables.", natural()),
            "tables": {"type": "object", "additionalProperties": object(json!({
                "count": natural(),
                "max_version": natural(),
                "limits": said("What is set for the table itself.", json!({
                    "type": "object", "additionalProperties": or_null(natural()),
                })),
            }), &["limits"])},
            "limits": schema("Limits"),
        }), &[]),
        "Limits": limits(),
        "Wiped": object(json!({"job": schema("JobId"), "revision": natural(), "epoch": epoch()}), &[]),
        "Job": object(json!({
            "job": schema("JobId"),
            "kind": choice(&["wipe"]),
            "customer": schema("Name"),
            "database": schema("Name"),
            "revision": natural(),
            "state": choice(&["running", "done"]),
            "rows_done": natural(),
            "rows_total": natural(),
            "errors": said("How often a step of it failed.", natural()),
            "retries": said("How often it was interrupted and gone on with.", natural()),
            "begun_ms": natural(),
            "done_ms": or_null(natural()),
        }), &[]),
        "Table": object(json!({
            "table": schema("Name"),
            "count": natural(),
            "max_version": natural(),
            "max_source_version": or_null(integer()),
            "max_modified_ms": or_null(natural()),
            "digest": digest(),
            "schema": said("As it was set.", or_null(json!({"type": ["integer", "string"]}))),
            "retention_days": said("How long deletions are told: as it was set, or by policy.", natural()),
            "expire_days": said("After how long without a change rows are deleted, if they are.", or_null(natural())),
            "min_retained_version": said(
                "Deletions in this table up to this version may not be told any more.", natural(),
            ),
            "revision": natural(),
            "epoch": epoch(),
        }), &[]),
        "TableSet": object(json!({
            "table": schema("Name"),
            "schema": or_null(json!({"type": ["integer", "string"]})),
            "retention_days": natural(),
            "expire_days": or_null(natural()),
        }), &[]),
        "Audit": object(json!({
            "entries": list(schema("AuditEntry")),
            "more": said("Whether to ask again at once, with `after`.", json!({"type": "boolean"})),
        }), &[]),
        "AuditEntry": object(json!({
            "id": said("To be sent as `after`, to go on.", text()),
            "at_ms": natural(),
            "by": said("The id of a token; `operator` for who works on the relay's machine, `relay` for itself.", text()),
            "action": choice(&[
                "delete", "wipe", "grant", "revoke", "invite", "restore", "policy", "settings", "visibility",
            ]),
            "database": or_null(schema("Name")),
            "table": schema("Name"),
            "which": choice(names_of::<Which>()),
            "count": natural(),
            "keys": said("Some of the keys of what was deleted.", list(schema("Key"))),
            "revision": natural(),
            "token": said("The id of a token.", text()),
            "ticket": said("The id of a ticket.", text()),
            "role": choice(&[Role::Reader, Role::Writer, Role::Owner].map(Role::as_str)),
            "uses": natural(),
            "expires_ms": or_null(natural()),
            "epoch": epoch(),
            "scope": text(),
            "policy": choice(&Policy::ALL.map(Policy::as_str)),
            "value": said("None is no limit; `default` if it is not set any more.", json!({
                "type": ["integer", "string", "null"],
            })),
            "settings": json!({"type": "object"}),
            "visibility": choice(names_of::<Visibility>()),
        }), &[
            "database", "table", "which", "count", "keys", "revision", "token", "ticket", "role", "uses", "expires_ms",
            "epoch", "scope", "policy", "value", "settings", "visibility",
        ]),
        "Deletions": object(json!({
            "results": list(schema("Result")),
            "deleted": list(schema("Key")),
            "more": said("Whether to ask again at once.", json!({"type": "boolean"})),
            "epoch": epoch(),
            "revision": natural(),
            "token": said("To be sent as `Sync-Token` to this call next time.", text()),
        }), &[]),
        "Clients": object(json!({
            "clients": list(object(json!({
                "client": said("Its `Client-Id`; if it sends none, as `by`.", text()),
                "by": said("The id of the token that it comes with; empty if it comes without one.", text()),
                "last_seen_ms": natural(),
                "phase": choice(&["initial", "live", "deletions"]),
                "position": natural(),
                "rows_behind": said("Rows that it was not told of yet, and changes that came since.", natural()),
                "rows_done": or_null(natural()),
                "more": json!({"type": "boolean"}),
                "requests": natural(),
                "repeats": said("How often it asked again from where it had been led on.", natural()),
                "reason": said("Why it does not get on.", or_null(text())),
            }), &[])),
            "stuck": said("How many of them do not get on.", natural()),
            "version": natural(),
            "epoch": epoch(),
        }), &[]),
        "Manifest": object(json!({
            "count": natural(),
            "digest": digest(),
            "epoch": epoch(),
            "revision": natural(),
            "rows": list(object(json!({
                "key": schema("Key"),
                "version": natural(),
                "source_version": or_null(integer()),
                "digest": digest(),
            }), &[])),
            "next": said(
                &format!(
                    "Where to go on, to be sent as `min_version` or `min_source_version` as it is: a version, or a text \
                     where more than {ROWS_MAX} rows have one `source_version`. Rows of one are told together up to that \
                     many, even beyond `limit`."
                ),
                json!({"anyOf": [integer_of_any(), within_source(), {"type": "null"}]}),
            ),
        }), &["rows", "next"]),
        "Lost": object(json!({
            "lost": list(object(with(&row, json!({"table": schema("Name")})), &["source_version", "conflicts"])),
            "next": said("To be sent as `after`, to go on.", or_null(text())),
            "epoch": epoch(),
            "revision": natural(),
        }), &[]),
        "Results": object(json!({"results": list(schema("Result")), "epoch": epoch()}), &[]),
        "Result": object(json!({
            "table": text(),
            "key": text(),
            "id": text(),
            "status": choice(&["accepted", "duplicate", "rejected", "retry"]),
            "version": natural(),
            "context": text(),
            "visible": said(
                "Whether the row is there now. A write beside a delete that it had not seen is kept and not shown; a delete \
                 leaves what it had not seen.",
                json!({"type": "boolean"}),
            ),
            "problem": schema("Problem"),
        }), &["table", "id", "version", "context", "visible", "problem"]),
        "Deletion": {"oneOf": [
            schema("Results"),
            object(json!({"deleted_rows": natural(), "epoch": epoch()}), &[]),
        ]},
        "Written": object(json!({
            "key": schema("Key"), "version": natural(), "context": text(), "epoch": epoch(),
        }), &[]),
        "Ticket": object(json!({"ticket": text()}), &[]),
        "Health": object(json!({"status": choice(&["live", "ready"])}), &[]),
        "Metrics": text(),
        "Events": text(),
        "Export": text(),
        "OpenApi": {"type": "object"},
    }));
    answers.extend(members(json!({
        "Row": object(with(&row, json!({"epoch": epoch()})), &["source_version", "conflicts"]),
        "Change": object(
            with(&row, json!({"table": schema("Name"), "op": choice(&["put", "delete"])})),
            &["source_version", "conflicts", "fields"],
        ),
        "Changes": object(changes.clone(), &["progress"]),
        "Synchronised": object(with(&changes, json!({"results": list(schema("Result"))})), &["progress"]),
        "Problem": object(json!({
            "type": text(),
            "code": choice(names_of::<ProblemCode>()),
            "title": text(),
            "status": natural(),
            "detail": said("What is wrong.", text()),
            "help": said("What to do.", text()),
            "path": said("Where in the body it is wrong, as a JSON pointer.", text()),
            "line": natural(),
            "column": natural(),
            "row": said("Which row of the batch is at fault, counted from 0.", natural()),
            "rows": said(
                "The rows at fault, of a batch that is atomic: all of which that can be told before anything is written, or \
                 the first one of which it can only be told then.",
                list(object(json!({
                    "row": natural(), "key": or_null(text()), "problem": schema("Problem"),
                }), &[])),
            ),
            "policy": said("Which quota is used up.", text()),
            "etag": said("What the ETag is now.", text()),
            "reason": said("Why a sync token cannot be used any more.", text()),
            "action": said("What to do about that.", text()),
            "token": said("The sync token to go on with.", text()),
            "revision": said("Of a database that is at another one than was asked for: at which.", natural()),
            "job": said("What removes what was before that.", text()),
        }), &[
            "path", "line", "column", "row", "rows", "policy", "etag", "reason", "action", "token", "revision", "job",
        ]),
    })));
    answers
}

/// What is published of what holds.
fn limits() -> Json {
    let fixed = ["row_key_bytes", "nesting", "id_bytes", "id_days", "page_rows", "page_rows_max", "body_seconds"];
    let mut members: Map<String, Json> = fixed.map(|name| (name.to_owned(), natural())).into_iter().collect();
    for policy in Policy::ALL {
        let schema = if policy.is_optional() { or_null(natural()) } else { natural() };
        members.insert(policy.as_str().to_owned(), said(policy.about(), schema));
    }
    object(members.into(), &[])
}

/// A place within the rows of one version of a client.
fn within_source() -> Json {
    json!({"type": "string", "pattern": "^-?[0-9]+\\.[A-Za-z0-9_-]+$"})
}

fn integer_of_any() -> Json {
    json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX})
}

/// The names that serde reads a `T` by: a struct's members, an enum's variants. None if it is neither.
pub(super) fn names_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // It is told the names and given no value, so there is nothing to be had but an error.
    let _ = T::deserialize(Names(&mut names));
    names
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("there is no value"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}
