//! What the words of the command line mean: arguments in, a checked [`Command`] out.
//!
//! Everything that can be found wrong without a store is found here, so it is said in the same way whether a node runs
//! or not, and before anything is opened.

use std::io::Read as _;

use serde_json::{Map, Value as Json};

use super::arguments::{
    Action, CustomerAction, ElementArguments, FieldsArguments, JobAction, LostAction, ObjectArguments, PeerAction,
    PolicyAction, PolicyArguments, ScopeArguments, SpaceAction, TokenAction,
};
use super::command::Command;
use super::failure::{Code, Failure};
use crate::model::{CollectionName, ObjectKey, Operation, Path, Request, SignedTicket, parse_json};
use crate::relay::PolicyScope;

/// The longest JSON that is read from stdin, in bytes: white space and escapes may make an object longer than it is.
const STDIN_BYTES_MAX: u64 = 8 << 20;

/// The command that an action means; none for those that are more than one command.
pub fn command(action: &Action, progress: bool) -> Result<Option<Command>, Failure> {
    Ok(Some(match action {
        Action::Init | Action::Id | Action::Import(_) | Action::Watch { .. } => return Ok(None),
        Action::Node(_)
        | Action::Relay(_)
        | Action::Completions { .. }
        | Action::Manual { .. }
        | Action::Backup { .. }
        | Action::Restore { .. }
        | Action::Repair => return Ok(None),
        Action::Peer { action } => match action {
            PeerAction::Add { peer } => Command::AddPeer { peer: peer.clone() },
            PeerAction::Remove { device } => Command::RemovePeer { device: *device },
            PeerAction::List => Command::ListPeers,
        },
        Action::Space { action } => match action {
            SpaceAction::Create { name } => Command::CreateSpace { name: name.clone() },
            SpaceAction::List => Command::ListSpaces,
            SpaceAction::Wipe { space, yes, revision } => {
                Command::Wipe { space: space.clone(), yes: *yes, revision: *revision }
            }
        },
        Action::Invite(invite) => Command::Invite {
            space: invite.space.clone(),
            role: invite.role,
            uses: invite.uses,
            expires_s: invite.expires.as_secs(),
        },
        Action::Token { action } => match action {
            TokenAction::Create { customer, database, role, expires } => Command::CreateToken {
                customer: customer.clone(),
                database: database.clone(),
                role: *role,
                expires_s: expires.map(|expires| expires.as_secs()),
            },
            TokenAction::List => Command::ListTokens,
            TokenAction::Revoke { id } => Command::RevokeToken { id: id.clone() },
        },
        Action::Policy { action } => match action {
            PolicyAction::Show { scope, policy } => {
                Command::ShowPolicies { scope: policy_scope(scope), policy: *policy }
            }
            PolicyAction::Set { scope, policy, value } => {
                let scope = policy_scope(scope);
                let usage = |message: String| Failure::usage(message, "`thence policy show` lists the policies");
                policy.check_scope(&scope).map_err(usage)?;
                let setting = policy.parse_setting(value).map_err(usage)?;
                Command::SetPolicy { scope, policy: *policy, setting }
            }
        },
        Action::Customer { action } => match action {
            CustomerAction::List => Command::ListCustomers,
            CustomerAction::Show { customer } => Command::ShowCustomer { customer: customer.clone() },
            CustomerAction::Audit { customer, limit, after } => {
                Command::Audit { customer: customer.clone(), limit: *limit, after: after.clone() }
            }
        },
        Action::Job { action } => match action {
            JobAction::List => Command::ListJobs,
            JobAction::Show { id } => Command::ShowJob { id: id.clone() },
        },
        Action::Join { ticket } => Command::Join { ticket: ticket.parse::<SignedTicket>()?, progress },
        Action::Put(FieldsArguments { object, fields }) => write(object, Operation::Put(members(fields)?))?,
        Action::Patch(FieldsArguments { object, fields }) => write(object, Operation::Patch(members(fields)?))?,
        Action::Unset { object, fields } => {
            let paths: Result<Vec<Path>, _> = fields.iter().map(|field| field.parse()).collect();
            write(object, Operation::Unset(paths?))?
        }
        Action::Increment { object, field, by } => write(object, Operation::Increment(field.parse()?, *by))?,
        Action::Add(element) => write_value(element, Operation::Add)?,
        Action::Remove(element) => write_value(element, Operation::Remove)?,
        Action::Resolve(element) => write_value(element, Operation::Resolve)?,
        Action::Get { object: ObjectArguments { space, collection, key } } => {
            Command::Get { space: space.clone(), collection: CollectionName::user(collection)?, key: key.parse()? }
        }
        Action::Delete { space, collection, keys } => {
            let collection = CollectionName::user(collection)?;
            let mut requests: Vec<Request> = Vec::new();
            for key in keys {
                let key: ObjectKey = key.parse()?;
                // One that was named twice is deleted once; the second time it would not be there.
                if !requests.iter().any(|request| request.key == key) {
                    requests.push(Request { collection: collection.clone(), key, operation: Operation::Delete });
                }
            }
            Command::Write { space: space.clone(), requests }
        }
        Action::List(ScopeArguments { space, collection }) => {
            Command::List { space: space.clone(), collection: scope(collection.as_deref())? }
        }
        Action::Export(ScopeArguments { space, collection }) => {
            Command::Export { space: space.clone(), collection: scope(collection.as_deref())? }
        }
        Action::Conflicts { space } => Command::Conflicts { space: space.clone() },
        Action::Lost { action: Some(LostAction::Restore { object }), .. } => write(object, Operation::Restore)?,
        Action::Lost { action: Some(LostAction::Discard { object }), .. } => write(object, Operation::Discard)?,
        Action::Lost { space, action: None } => Command::Lost { space: space.clone().unwrap_or_default() },
        Action::Status { check } => Command::Status { check: *check },
        Action::Sync { timeout } => {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
            Command::Sync { timeout_ms, progress }
        }
    }))
}

/// The narrowest thing that is named; that wider ones are named too is seen to where arguments are read.
fn policy_scope(arguments: &PolicyArguments) -> PolicyScope {
    let PolicyArguments { customer, database, table } = arguments;
    match (customer.clone(), database.clone(), table.clone()) {
        (Some(customer), Some(database), Some(table)) => PolicyScope::Table(customer, database, table),
        (Some(customer), Some(database), None) => PolicyScope::Database(customer, database),
        (Some(customer), ..) => PolicyScope::Customer(customer),
        (None, ..) => PolicyScope::Relay,
    }
}

fn scope(collection: Option<&str>) -> Result<Option<CollectionName>, Failure> {
    Ok(collection.map(CollectionName::user).transpose()?)
}

fn write(object: &ObjectArguments, operation: Operation) -> Result<Command, Failure> {
    let ObjectArguments { space, collection, key } = object;
    let request = Request { collection: CollectionName::user(collection)?, key: key.parse()?, operation };
    Ok(Command::Write { space: space.clone(), requests: vec![request] })
}

fn write_value(element: &ElementArguments, operation: fn(Path, Json) -> Operation) -> Result<Command, Failure> {
    let ElementArguments { object, field, value } = element;
    write(object, operation(field.parse()?, self::value(value)?))
}

/// A value. Texts without quotes are the usual mistake, so the help shows how to quote this one.
fn value(text: &str) -> Result<Json, Failure> {
    parse_json(text).map_err(|error| {
        let mut failure = Failure::from(error);
        if !text.contains('\'') && text.chars().count() <= 64 {
            let quoted = Json::from(text);
            failure.help = format!("VALUE is JSON; a text is quoted twice, for the shell and for JSON: '{quoted}'");
        }
        failure
    })
}

/// The members of a JSON object.
fn members(text: &str) -> Result<Map<String, Json>, Failure> {
    let read;
    let text = if text == "-" {
        read = stdin()?;
        &read
    } else {
        text
    };
    match parse_json(text)? {
        Json::Object(fields) => Ok(fields),
        other => {
            let what = match other {
                Json::Array(_) => "an array",
                Json::String(_) => "a text",
                Json::Number(_) => "a number",
                Json::Bool(_) => "a truth value",
                _ => "null",
            };
            let help = "write the fields as members of a JSON object, quoted for the shell: '{\"done\":true}'";
            Err(Failure::usage(format!("an object's fields cannot be {what}"), help))
        }
    }
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let wrong = |error: std::io::Error| {
        Failure::new(Code::File, format!("stdin: {error}"), "pipe one JSON object in UTF-8 into the command")
    };
    std::io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.len() as u64 > STDIN_BYTES_MAX {
        let message = format!("stdin has more than {STDIN_BYTES_MAX} bytes");
        return Err(Failure::usage(message, "write several objects; an object has at most a MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::arguments::Arguments;

    fn meant(words: &[&str]) -> Result<Command, Failure> {
        let arguments = Arguments::try_parse_from([&["thence"], words].concat()).expect("usage");
        command(&arguments.action, false).map(|command| command.expect("one command"))
    }

    fn request(command: Command) -> Request {
        match command {
            Command::Write { requests, .. } => requests.into_iter().next().expect("one request"),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn writes_become_requests() {
        let operation = |words: &[&str]| request(meant(words).expect("meaning")).operation;
        let path = |text: &str| text.parse::<Path>().expect("a path");
        let put = operation(&["put", "s", "c", "k", r#"{"b":1,"a":{}}"#]);
        assert!(matches!(put, Operation::Put(fields) if json!(fields) == json!({"a": {}, "b": 1})));
        assert_eq!(operation(&["unset", "s", "c", "k", "a", "/b/c"]), Operation::Unset(vec![path("a"), path("/b/c")]));
        assert_eq!(operation(&["increment", "s", "c", "k", "n", "-3"]), Operation::Increment(path("n"), -3));
        assert_eq!(operation(&["add", "s", "c", "k", "t", "[1]"]), Operation::Add(path("t"), json!([1])));
        assert_eq!(operation(&["resolve", "s", "c", "k", "f", "null"]), Operation::Resolve(path("f"), json!(null)));
        assert_eq!(operation(&["lost", "discard", "s", "c", "k"]), Operation::Discard);
        assert_eq!(meant(&["lost", "s"]), Ok(Command::Lost { space: "s".to_owned() }));
    }

    #[test]
    fn a_key_named_twice_is_deleted_once() {
        let Ok(Command::Write { requests, .. }) = meant(&["delete", "s", "c", "a", "b", "a"]) else {
            unreachable!("a write")
        };
        assert_eq!(requests.iter().map(|request| request.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for words in [
            &["put", "s", "c", "k", "[]"][..],
            &["put", "s", "c", "k", "{"],
            &["put", "s", "c", "k", r#"{"a":1e400}"#],
            &["put", "s", "$grants", "k", "{}"],
            &["put", "s", "c", "", "{}"],
            &["list", "s", "a/b"],
            &["get", "s", "c", &"k".repeat(513)],
        ] {
            assert_eq!(meant(words).expect_err("no sense").code, Code::Usage, "{words:?}");
        }
        assert_eq!(meant(&["join", "not-a-ticket"]).expect_err("no ticket").code.exit_code(), 1);
    }

    #[test]
    fn a_text_without_quotes_is_shown_with_them() {
        let failure = meant(&["add", "s", "c", "k", "tags", "dairy"]).expect_err("no JSON");
        assert!(failure.help.contains(r#"'"dairy"'"#), "{}", failure.help);
    }
}
