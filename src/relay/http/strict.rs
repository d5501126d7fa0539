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

/// What is wrong with a value, for somebody who knows JSON and not this program. The path says better than line and column
/// where that is.
fn in_words(error: &serde_json::Error) -> String {
    let said = error.to_string();
    // Only where it was read from text does it end with a line and a column: what is said there may look like that, too.
    let end = format!(" at line {} column {}", error.line(), error.column());
    let what = if error.line() > 0 { said.strip_suffix(&end).unwrap_or(&said) } else { &said };
    let of_kind = ["invalid type: ", "invalid value: "].into_iter().find_map(|kind| what.strip_prefix(kind));
    match of_kind.and_then(|what| what.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, not {}", expected_in_words(expected), found_in_words(found)),
        // Of a text that has to be one of a few, and is none.
        None if what == "expected value" => "expected a text".to_owned(),
        None => {
            let plain = |(word, plain): &(&str, &str)| Some(format!("{plain}{}", what.strip_prefix(word)?));
            WORDS.iter().find_map(plain).unwrap_or_else(|| what.to_owned())
        }
    }
}

/// With which words serde begins, and what they are called here.
const WORDS: [(&str, &str); 3] =
    [("unknown variant", "unknown value"), ("unknown field", "unknown member"), ("missing field", "missing member")];

/// What serde expects, in words of JSON.
fn expected_in_words(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        _ if expected.starts_with("struct ") => "an object",
        "a sequence" => "an array",
        "a string" | "string or map" => "a text",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number of 64 bits, from 0 on",
        "i64" => "a whole number of 64 bits",
        other => other,
    }
}

/// What serde found, in words of JSON.
fn found_in_words(found: &str) -> Cow<'_, str> {
    match found.split_once(' ') {
        Some(("string", text)) => Cow::Owned(format!("the text {text}")),
        Some(("integer" | "floating", number)) => {
            Cow::Owned(format!("the number {}", number.trim_start_matches("point ").trim_matches('`')))
        }
        Some(("boolean", flag)) => Cow::Borrowed(flag.trim_matches('`')),
        _ => Cow::Borrowed(match found {
            "map" => "an object",
            "sequence" => "an array",
            "unit value" => "null",
            other => other,
        }),
    }
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
        let path = walk.pointer();
        let problem = match &walk.fault {
            Some(fault) => Problem::new(ProblemCode::Malformed, format!("{}: {fault}", place(&path)), help),
            None => Problem::new(ProblemCode::Malformed, format!("the body is not JSON: {error}"), help)
                .with("line", error.line())
                .with("column", error.column()),
        };
        return Err(problem.with("path", path));
    }
    if let Some((before, literal)) = inexact_number(text) {
        let path = path_of_number(text, before);
        let before = &text[..literal.start];
        let (line, column) =
            (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
        let literal: String = text[literal].chars().take(40).collect();
        let detail = format!("line {line}, column {column}: the number {literal} would not come back as it is");
        let help = "send integers within 64 bits, and other numbers as 64-bit floats; or send it as a text";
        let problem = Problem::new(ProblemCode::Invalid, detail, help).with("path", path);
        return Err(problem.with("line", line).with("column", column));
    }
    Ok(())
}

/// Where in valid JSON the number stands before which so many others come.
fn path_of_number(text: &str, before: usize) -> String {
    let mut walk = Walk { numbers_left: Some(before), ..Walk::default() };
    // The walk ends at the number, as at any fault.
    let _ = Walker(&mut walk).deserialize(&mut serde_json::Deserializer::from_str(text));
    walk.pointer()
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
    /// How many numbers to pass by before one is the end of it, if one is.
    numbers_left: Option<usize>,
}

impl Walk {
    /// Where it is, as a JSON pointer.
    fn pointer(&self) -> String {
        self.path.iter().map(|step| format!("/{}", escaped(step))).collect()
    }
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
        let limits =
            format!("a body is nested at most {BODY_NESTING_MAX} levels deep, and a value in it {NESTING_MAX}");
        Err(self.fault(limits))
    }

    fn number<E: Error>(&mut self) -> Result<(), E> {
        match &mut self.0.numbers_left {
            None => Ok(()),
            Some(0) => Err(self.fault("it is this one".to_owned())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
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

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.number()
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.number()
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.number()
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
        for (text, path) in [
            ("[1, -0.0, \"7\", 18446744073709551617]", "/3"),
            ("{\"a~\":[[5],{\"b\":0.1000000000000000055}],\"c\":1}", "/a~0/1/b"),
            ("9223372036854775809", ""),
        ] {
            assert_eq!(refused::<Json>(text), (ProblemCode::Invalid, path.to_owned()), "{text}");
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
        assert!(problem.detail.ends_with("expected an object, not an array"), "{}", problem.detail);
        assert_eq!(refused::<Rows>(r#"{"rows":[{"key":"a"},{"key":7}]}"#), invalid("/rows/1/key"));
        assert_eq!(refused::<Rows>(r#"{"rows":{}}"#), invalid("/rows"));
        assert_eq!(refused::<Rows>(r#"[]"#), invalid(""));
        let unknown = parse::<Rows>(br#"{"rows":[{"key":"a","id":1}]}"#).expect_err("an unknown member");
        assert!(unknown.detail.starts_with("/rows/0/id: unknown member `id`"), "{unknown}");
    }
}
