//! A write does what was asked: what a user sees of an object right after a transaction follows from what they saw
//! before it and from the requests, by rules that fit into a manual.
//!
//! All other oracles take an event for what its author meant. This one asks whether it says what the user meant, and
//! whether the object shows it; so it is the only one that looks at counters as numbers and at sets as sets.
//!
//! Where a field held several values before, only that much is judged: what was written to is as it was written.

use serde_json::{Map, Value as Json};
use thence::model::{Object, Operation, Path};

use super::{Verdict, broken};

type Fields = Map<String, Json>;

/// Whether an object that stood at `before` stands at `after` as it should, once `operations` were done to it in one
/// transaction that nothing else took part in.
pub(crate) fn check_asked(before: &Object, operations: &[&Operation], after: &Object) -> Verdict {
    let verdict = |what: &dyn std::fmt::Display| {
        let (was, is) = (before.shown(), after.shown());
        broken("a write does what was asked", format!("{what}: {was:?} became {is:?} by {operations:?}"))
    };
    // What was hidden with a lost edit may be several values too.
    let restores = operations.len() > 1 && operations.contains(&&Operation::Restore);
    if before.conflicts().is_empty() && !restores {
        let mut shown = before.shown();
        operations.iter().for_each(|operation| perform(before, &mut shown, operation));
        if !same_fields(shown.as_ref(), after.shown().as_ref()) {
            return verdict(&format_args!("expected {shown:?}"));
        }
    }
    let [operation] = operations else { return Ok(()) };
    let is_shown = |path: &[String], json: &Json| after.shown().is_some_and(|all| same_at(&all, path, Some(json)));
    let is_settled = |path: &[String]| after.conflicts().iter().all(|conflict| !conflict.path.is_within(path));
    match operation {
        Operation::Put(fields) | Operation::Update(fields) if !same_fields(Some(fields), after.shown().as_ref()) => {
            verdict(&"it does not show what was put")
        }
        Operation::Put(_) if !after.conflicts().is_empty() => verdict(&"something is left of what was there before"),
        Operation::Patch(fields) => {
            let mut plain = fields.iter().filter(|(_, json)| !json.is_object());
            match plain.find(|(name, json)| {
                let path = std::slice::from_ref(*name);
                !is_shown(path, json) || !is_settled(path)
            }) {
                Some((name, _)) => verdict(&format_args!("{name} is not what was written")),
                None => Ok(()),
            }
        }
        Operation::Resolve(path, json) if !is_shown(path.names(), json) || !is_settled(path.names()) => {
            verdict(&format_args!("{path} is not resolved"))
        }
        Operation::Discard if !after.is_empty() => verdict(&"something is left"),
        _ => Ok(()),
    }
}

/// What `operation` makes of an object that shows `shown`, and stood at `before` when the transaction began.
fn perform(before: &Object, shown: &mut Option<Fields>, operation: &Operation) {
    match (operation, shown) {
        (Operation::Put(fields) | Operation::Update(fields), shown) => *shown = Some(fields.clone()),
        (Operation::Delete | Operation::Discard, shown) => *shown = None,
        (Operation::Restore, shown) if shown.is_none() => *shown = Some(before.remains()),
        (Operation::Patch(fields), Some(shown)) => merge(shown, fields),
        (Operation::Unset(paths), Some(shown)) => paths.iter().for_each(|path| unset(shown, path)),
        (Operation::Increment(path, by), Some(shown)) => {
            let sum = at(shown, path.names()).and_then(Json::as_i64).unwrap_or(0) + by;
            set(shown, path.names(), Json::from(sum));
        }
        (Operation::Add(path, element), Some(shown)) => {
            let mut elements = elements(shown, path);
            elements.retain(|other| other != element);
            elements.push(element.clone());
            set(shown, path.names(), Json::Array(elements));
        }
        (Operation::Remove(path, element), Some(shown)) if at(shown, path.names()).is_some() => {
            let mut elements = elements(shown, path);
            elements.retain(|other| other != element);
            set(shown, path.names(), Json::Array(elements));
        }
        (Operation::Resolve(path, json), Some(shown)) => set(shown, path.names(), json.clone()),
        _ => {}
    }
}

fn elements(shown: &Fields, path: &Path) -> Vec<Json> {
    at(shown, path.names()).and_then(Json::as_array).cloned().unwrap_or_default()
}

/// What lies at a path.
pub(super) fn at<'a>(shown: &'a Fields, path: &[String]) -> Option<&'a Json> {
    let (name, rest) = path.split_first()?;
    let member = shown.get(name)?;
    if rest.is_empty() { Some(member) } else { at(member.as_object()?, rest) }
}

/// Writes to a path; what is in its way becomes a map.
fn set(shown: &mut Fields, path: &[String], json: Json) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        shown.insert(name.clone(), json);
        return;
    }
    let member = shown.entry(name.clone()).or_insert(Json::Null);
    if !member.is_object() {
        *member = Json::Object(Map::new());
    }
    if let Json::Object(members) = member {
        set(members, rest, json);
    }
}

fn unset(shown: &mut Fields, path: &Path) {
    let (parents, name) = path.names().split_at(path.names().len() - 1);
    let mut members = Some(shown);
    for parent in parents {
        members = members.and_then(|members| members.get_mut(parent)?.as_object_mut());
    }
    if let Some(members) = members {
        members.remove(&name[0]);
    }
}

/// Maps are merged member by member.
fn merge(shown: &mut Fields, fields: &Fields) {
    for (name, json) in fields {
        match (shown.get_mut(name), json) {
            (Some(Json::Object(members)), Json::Object(more)) => merge(members, more),
            _ => _ = shown.insert(name.clone(), json.clone()),
        }
    }
}

fn same_at(shown: &Fields, path: &[String], json: Option<&Json>) -> bool {
    match (at(shown, path), json) {
        (Some(is), Some(json)) => same(is, json),
        (is, json) => is == json,
    }
}

fn same_fields(a: Option<&Fields>, b: Option<&Fields>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b))),
        (a, b) => a == b,
    }
}

/// Whether two values are the same; in which order a set shows its elements is its own affair.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Array(a), Json::Array(b)) => {
            let sorted = |list: &[Json]| {
                let mut texts: Vec<String> = list.iter().map(Json::to_string).collect();
                texts.sort_unstable();
                texts
            };
            sorted(a) == sorted(b)
        }
        (Json::Object(a), Json::Object(b)) => same_fields(Some(a), Some(b)),
        _ => a == b,
    }
}
