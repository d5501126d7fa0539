//! JSON as the relay takes it: text that means one thing.
//!
//! Parsers disagree about what an object with two members of one name says, and about numbers that they cannot hold; whoever
//! checks with one and stores with another is lied to. So both are refused, as is what is nested without end, with the
//! place where it stands as a JSON pointer (RFC 6901).
//!
//! What it does not do: say whether names, keys and values are such as can be stored. Those who store them do.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Path, Segment};

use crate::model::{NESTING_MAX, inexact_number};
use crate::relay::{Problem, ProblemCode};

/// How deeply a body may be nested: as deeply as values in fields, in rows, in a list, in a body.
const BODY_NESTING_MAX: usize = NESTING_MAX + 8;

/// Reads a body. The problem says where it goes wrong.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let help = "correct the body and send it again";
    let text = std::str::from_utf8(text).map_err(|error| {
        let detail = format!("the body is not text in UTF-8, from byte {} on", error.valid_up_to());
        Problem::new(ProblemCode::Malformed, detail, help)
    })?;
    check(text)?;
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(ByName(&mut json)).map_err(|error| {
        let path = pointer(error.path());
        let what = in_words(error.inner());
        Problem::new(ProblemCode::Invalid, format!("{}: {what}", place(&path)), help).with("path", path)
    })
}

/// What is wrong with a value. The path says better than line and column where that is, and what a type is called here helps
/// nobody.
fn in_words(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or(&what);
    let is_of_object = what.split_once("expected struct ");
    is_of_object.map_or_else(|| what.to_owned(), |(what, _)| format!("{what}expected an object"))
}

/// Reads one of the values of a body that was read as such, in the same way. Otherwise the place within it that is wrong, and
/// what is.
pub(in crate::relay) fn read_as<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(ByName(value)).map_err(|error| (pointer(error.path()), in_words(error.inner())))
}

/// Takes what has named members from an object only: serde would take an array, too, with its elements in the order in
/// which this program happens to declare them.
struct ByName<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByName<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    // Nothing else is ever asked for of a whole body, or of a row in one.
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct enum identifier ignored_any
    }
}

/// A place in a body, as a JSON pointer.
fn pointer(path: &Path) -> String {
    path.iter().fold(String::new(), |path, segment| match segment {
        Segment::Seq { index } => format!("{path}/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("{path}/{}", escaped(key)),
        Segment::Unknown => path,
    })
}

/// Whether text is JSON and means one thing.
fn check(text: &str) -> Result<(), Problem> {
    let help = "correct the body and send it again";
    let mut walk = Walk::default();
    let mut json = serde_json::Deserializer::from_str(text);
    if let Err(error) = Walker(&mut walk).deserialize(&mut json).and_then(|()| json.end()) {
        let path = walk.path.iter().fold(String::new(), |path, step| format!("{path}/{}", escaped(step)));
        let detail = match &walk.fault {
            Some(fault) => format!("{}: {fault}", place(&path)),
            None => format!("the body is not JSON: {error}"),
        };
        return Err(Problem::new(ProblemCode::Malformed, detail, help).with("path", path));
    }
    if let Some(literal) = inexact_number(text) {
        let before = &text[..literal.start];
        let (line, column) =
            (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
        let literal: String = text[literal].chars().take(40).collect();
        let detail = format!("line {line}, column {column}: the number {literal} would not come back as it is");
        let help = "send integers within 64 bits, and other numbers as 64-bit floats; or send it as a text";
        let problem = Problem::new(ProblemCode::Invalid, detail, help);
        return Err(problem.with("line", line).with("column", column));
    }
    Ok(())
}

fn place(path: &str) -> Cow<'_, str> {
    if path.is_empty() { Cow::Borrowed("the body") } else { Cow::Borrowed(path) }
}

fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// Where a walk through a text is, and what it found. After a fault the path stays where that was found.
#[derive(Debug, Default)]
struct Walk {
    path: Vec<String>,
    fault: Option<String>,
}

/// Looks at one value and keeps nothing of it.
struct Walker<'a>(&'a mut Walk);

impl Walker<'_> {
    fn fault<E: Error>(&mut self, fault: String) -> E {
        self.0.fault = Some(fault);
        E::custom("see the fault")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        if self.0.path.len() < BODY_NESTING_MAX {
            return Ok(());
        }
        Err(self.fault(format!("nested more than {BODY_NESTING_MAX} levels deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Walker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walker<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter()?;
        for index in 0_usize.. {
            self.0.path.push(index.to_string());
            if items.next_element_seed(Walker(self.0))?.is_none() {
                break;
            }
            self.0.path.pop();
        }
        self.0.path.pop();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.enter()?;
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.path.push(name.clone());
            if !seen.insert(name) {
                return Err(self.fault("it stands there twice".to_owned()));
            }
            members.next_value_seed(Walker(self.0))?;
            self.0.path.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value as Json;

    use super::*;

    fn refused<T: DeserializeOwned>(text: &str) -> (ProblemCode, String) {
        match parse::<T>(text.as_bytes()) {
            Ok(_) => panic!("{text} should be refused"),
            Err(problem) => {
                let path = problem.members.get("path").and_then(Json::as_str).unwrap_or_default().to_owned();
                (problem.code, path)
            }
        }
    }

    #[test]
    fn what_means_two_things_is_refused_with_its_place() {
        let malformed = |path: &str| (ProblemCode::Malformed, path.to_owned());
        assert_eq!(refused::<Json>(r#"{"a":1,"b":2,"a":1}"#), malformed("/a"));
        assert_eq!(refused::<Json>(r#"{"rows":[{},{"k/~":{"x":1,"\u0078":2}}]}"#), malformed("/rows/1/k~1~0/x"));
        assert_eq!(refused::<Json>(r#"{"a":1} {}"#), malformed(""));
        for text in ["", "{", "[1,]", "NaN", "{a:1}", "\"\u{1}\"", "[1e999]", "nul"] {
            assert_eq!(refused::<Json>(text).0, ProblemCode::Malformed, "{text}");
        }
        for text in ["[18446744073709551617]", "{\"a\":0.1000000000000000055}", "9223372036854775809"] {
            assert_eq!(refused::<Json>(text).0, ProblemCode::Invalid, "{text}");
        }
        assert_eq!(parse::<Json>(b"[\"\xff\"]").expect_err("not UTF-8").code, ProblemCode::Malformed);
        let same_name_elsewhere = br#"{"a":{"a":[{"a":1},{"a":1}]},"b":{"a":1}}"#;
        assert!(parse::<Json>(same_name_elsewhere).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse::<Json>(nested(BODY_NESTING_MAX).as_bytes()).is_ok());
        assert_eq!(refused::<Json>(&nested(BODY_NESTING_MAX + 1)).0, ProblemCode::Malformed);
        assert_eq!(refused::<Json>(&nested(1_000_000)).0, ProblemCode::Malformed);
        assert_eq!(refused::<Json>(&"{\"a\":".repeat(1_000_000)).0, ProblemCode::Malformed);
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Row {
            #[serde(rename = "key")]
            _key: String,
        }
        #[derive(Debug, Deserialize)]
        struct Rows {
            #[serde(rename = "rows")]
            _rows: Vec<Row>,
        }
        let invalid = |path: &str| (ProblemCode::Invalid, path.to_owned());
        assert_eq!(refused::<Row>(r#"["k"]"#), invalid(""), "members have names");
        let problem = parse::<Rows>(b"[[]]").expect_err("an array");
        assert!(problem.detail.ends_with("expected an object"), "{}", problem.detail);
        assert_eq!(refused::<Rows>(r#"{"rows":[{"key":"a"},{"key":7}]}"#), invalid("/rows/1/key"));
        assert_eq!(refused::<Rows>(r#"{"rows":{}}"#), invalid("/rows"));
        assert_eq!(refused::<Rows>(r#"[]"#), invalid(""));
        let unknown = parse::<Rows>(br#"{"rows":[{"key":"a","id":1}]}"#).expect_err("an unknown member");
        assert!(unknown.detail.starts_with("/rows/0/id: unknown field `id`"), "{unknown}");
    }
}
