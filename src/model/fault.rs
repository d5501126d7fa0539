//! Where in JSON that is to be written something stands which no object can hold, whatever it holds already.
//!
//! A [`Draft`](super::Draft) refuses the same and says what is wrong with it. This says where, too, for those who sent
//! much at once, and before anything is read.
//!
//! **Invariant**: it judges by the checks that drafts judge by, so a draft refuses nothing for its values and names in
//! which this finds no fault. What it does not do: look at size, or at the object that is written to.

use serde_json::{Map, Value as Json};

use super::value::{check_json, is_map};
use super::{InvalidEdit, NESTING_MAX, Operation, Path};

/// Something that no object can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The members and elements that lead to it, from the outermost.
    pub steps: Vec<String>,
    /// What is wrong with it.
    pub what: InvalidEdit,
}

impl Fault {
    /// Where it is, as a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
    }
}

impl Operation {
    /// The first fault in the fields that it writes, or in the element of a set that it is about.
    pub fn fault(&self) -> Option<Fault> {
        let mut steps = Vec::new();
        let found = match self {
            Self::Put(fields) | Self::Patch(fields) | Self::Update(fields) => check_members(fields, &mut steps),
            Self::Add(_, element) | Self::Remove(_, element) => match is_map(element) {
                true => Err(InvalidEdit::MapInSet),
                false => check_value(element, 1, &mut steps),
            },
            Self::Resolve(..) | Self::Unset(_) | Self::Increment(..) | Self::Delete | Self::Restore | Self::Discard => {
                Ok(())
            }
        };
        found.err().map(|what| Fault { steps, what })
    }
}

/// Checks the members of a map that lies at `steps`; these lead to the fault afterwards, if there is one.
fn check_members(members: &Map<String, Json>, steps: &mut Vec<String>) -> Result<(), InvalidEdit> {
    for (name, json) in members {
        let is_name = Path::check_member(steps.len(), name);
        steps.push(name.clone());
        is_name?;
        match json {
            Json::Object(members) if is_map(json) => check_members(members, steps)?,
            json => check_value(json, steps.len(), steps)?,
        }
        steps.pop();
    }
    Ok(())
}

/// Checks what lies at `steps` and is no map.
fn check_value(json: &Json, depth: usize, steps: &mut Vec<String>) -> Result<(), InvalidEdit> {
    let Err(error) = check_json(json, depth) else { return Ok(()) };
    // The innermost part that is refused for the same reason is the one that is at fault. What is too deep is so from
    // where the limit is passed.
    let (mut within, mut depth) = (json, depth);
    while depth <= NESTING_MAX
        && let Some((step, part)) = parts(within).find(|(_, part)| check_json(part, depth + 1).as_ref() == Err(&error))
    {
        steps.push(step);
        (within, depth) = (part, depth + 1);
    }
    Err(error.into())
}

/// What an array or an object consists of.
fn parts(json: &Json) -> impl Iterator<Item = (String, &Json)> {
    let items = json.as_array().into_iter().flatten().enumerate().map(|(index, item)| (index.to_string(), item));
    let members = json.as_object().into_iter().flatten().map(|(name, member)| (name.clone(), member));
    items.chain(members)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::causal::{Dot, ReplicaId};
    use crate::model::{CollectionName, Draft, InvalidName, InvalidValue, Object};

    /// Puts a value into a map or an array.
    type Wrapper = fn(Json) -> Json;

    /// `leaf` in so many maps or arrays.
    fn nested(levels: usize, leaf: Json, around: Wrapper) -> Json {
        (0..levels).fold(leaf, |inner, _| around(inner))
    }

    #[test]
    fn a_fault_is_found_where_it_stands_and_a_draft_refuses_it_for_the_same_reason() {
        let (map, array): (Wrapper, Wrapper) = (|inner| json!({"m": inner}), |inner| json!([inner]));
        let put = |fields: Json| Operation::Put(fields.as_object().cloned().expect("fields"));
        let add = |element: Json| Operation::Add("s".parse().expect("a path"), element);
        let (bytes, deep) = (|| InvalidValue::Bytes.into(), || InvalidEdit::from(InvalidValue::TooDeep));
        let many = |step: &str, times: usize| format!("/{step}").repeat(times);
        let cases: Vec<(Operation, Option<(String, InvalidEdit)>)> = vec![
            (put(json!({"a": {"b": [1, {"$bytes": "AAEC"}]}, "": {"": {}}})), None),
            (put(nested(NESTING_MAX, json!(1), map)), None),
            (put(nested(NESTING_MAX, json!({}), map)), None),
            (put(json!({"a": nested(NESTING_MAX, json!(1), array)})), None),
            (put(json!({"good": 1, "a~/": {"b": [0, {"$bytes": 1}]}})), Some(("/a~0~1/b/1".to_owned(), bytes()))),
            (put(json!({"a": {"$bytes": "AA==", "more": 1}})), Some(("/a".to_owned(), bytes()))),
            (
                put(json!({"a": {"b": {"$bytes": "AA==", "c": nested(40, json!(1), array)}}})),
                Some(("/a/b".to_owned(), bytes())),
            ),
            (put(json!({"$bytes": "AA=="})), Some(("/$bytes".to_owned(), InvalidName::Bytes.into()))),
            (
                put(json!({"a": {"x".repeat(1025): 1}})),
                Some((format!("/a/{}", "x".repeat(1025)), InvalidName::FieldTooLong(1025).into())),
            ),
            (
                put(nested(NESTING_MAX + 1, json!(1), map)),
                Some((many("m", NESTING_MAX + 1), InvalidName::TooDeep.into())),
            ),
            (
                put(json!({"a": nested(NESTING_MAX + 7, json!(1), array)})),
                Some((format!("/a{}", many("0", NESTING_MAX)), deep())),
            ),
            (add(json!([[1], "x", {"$bytes": "AA=="}])), None),
            (add(json!({"a": 1})), Some((String::new(), InvalidEdit::MapInSet))),
            (add(json!([1, [{"$bytes": "*"}]])), Some(("/1/0".to_owned(), bytes()))),
        ];
        for (operation, expected) in cases {
            let found = operation.fault().map(|fault| (fault.pointer(), fault.what));
            assert_eq!(found, expected, "{operation:?}");
            let (collection, key) = (CollectionName::user("c").expect("a name"), "k".parse().expect("a key"));
            let dot = Dot::new(ReplicaId::from_bytes([1; 16]), 1);
            let mut draft = Draft::new(collection, key, Object::new(), dot, 1);
            if let Operation::Add(..) = operation {
                draft.put(&Map::new()).expect("an object");
            }
            let refused = operation.apply(&mut draft).err().map(|error| error.to_string());
            assert_eq!(refused, expected.map(|(_, what)| what.to_string()), "{operation:?}");
        }
    }
}
