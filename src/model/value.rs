//! What a field can hold, and how it looks as JSON.
//!
//! Integers are 64-bit, all other numbers are 64-bit floats; a number that fits neither exactly is refused, since a
//! value that comes back different from what was written is a lost update. Bytes are `{"$bytes": "base64"}`.

use std::fmt;
use std::ops::Range;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json};

/// How deeply values may be nested: an object's fields are at depth 1.
pub const NESTING_MAX: usize = 32;

/// A value that a register or an element of a set holds. Maps are not among them: they are spread out over paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// JSON's `null`, a value like any other.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A finite float.
    Float(Float),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// An array in canonical form.
    Array(Array),
    /// Says "there is a map here", for maps without members.
    EmptyMap,
}

/// A finite 64-bit float. Equal when the bits are equal, ordered by IEEE 754 `totalOrder`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Float(f64);

impl TryFrom<f64> for Float {
    type Error = &'static str;

    fn try_from(float: f64) -> Result<Self, Self::Error> {
        if float.is_finite() { Ok(Self(float)) } else { Err("a float that is not finite") }
    }
}

impl From<Float> for f64 {
    fn from(float: Float) -> Self {
        float.0
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// An array as canonical JSON text (no spaces, members of objects sorted, numbers in shortest form): one value has one
/// form, nothing recursive travels, and an unchecked depth is never decoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Array(String);

impl TryFrom<String> for Array {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        // serde_json itself stops at depth 128, so the recursion is bounded before our own limit is checked.
        let json: Json = serde_json::from_str(&text).map_err(|_| InvalidValue::NotCanonical)?;
        check_json(&json, 1)?;
        if !json.is_array() || canonical(&json) != text {
            return Err(InvalidValue::NotCanonical);
        }
        Ok(Self(text))
    }
}

impl From<Array> for String {
    fn from(array: Array) -> Self {
        array.0
    }
}

/// Why JSON cannot be stored. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// Not JSON at all.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// A number that neither a 64-bit integer nor a 64-bit float holds exactly.
    #[error("the number {0} fits neither a 64-bit integer nor a 64-bit float exactly; write it as a text instead")]
    Number(String),
    /// Too deep.
    #[error("nested more than {NESTING_MAX} levels deep")]
    TooDeep,
    /// `$bytes` with something else than base64.
    #[error("{{\"$bytes\": …}} must hold one base64 text and no other member")]
    Bytes,
    /// Not what this node would have written.
    #[error("an array that is not in canonical form")]
    NotCanonical,
}

impl Value {
    /// The value of JSON that is not a map; maps (other than `$bytes` and empty ones) are spread out by the caller.
    pub fn from_json(json: &Json) -> Result<Self, InvalidValue> {
        check_json(json, 1)?;
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => Self::from_number(number)?,
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(_) => Self::Array(Array(canonical(json))),
            Json::Object(members) => match bytes_of(members)? {
                Some(bytes) => Self::Bytes(bytes),
                None => Self::EmptyMap,
            },
        })
    }

    fn from_number(number: &Number) -> Result<Self, InvalidValue> {
        if let Some(integer) = number.as_i64() {
            return Ok(Self::Integer(integer));
        }
        let refused = || InvalidValue::Number(number.to_string());
        let float = number.as_f64().ok_or_else(refused)?;
        // Above i64 an unsigned integer may still be a float exactly, such as 2^63.
        if let Some(unsigned) = number.as_u64()
            && float as u128 != u128::from(unsigned)
        {
            return Err(refused());
        }
        Float::try_from(float).map(Self::Float).map_err(|_| refused())
    }

    /// How the value looks as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Integer(integer) => Json::from(*integer),
            Self::Float(float) => Json::from(float.0),
            Self::Text(text) => Json::String(text.clone()),
            Self::Bytes(bytes) => {
                Json::Object(Map::from_iter([("$bytes".to_owned(), Json::String(BASE64.encode(bytes)))]))
            }
            // The text was checked when the value was made; a value that cannot be read shows as the text itself.
            Self::Array(array) => serde_json::from_str(&array.0).unwrap_or_else(|_| Json::String(array.0.clone())),
            Self::EmptyMap => Json::Object(Map::new()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

/// Whether `json` is a map that is spread out over paths: any but `$bytes`.
pub(crate) fn is_map(json: &Json) -> bool {
    matches!(json, Json::Object(members) if !members.contains_key("$bytes"))
}

fn bytes_of(members: &Map<String, Json>) -> Result<Option<Vec<u8>>, InvalidValue> {
    match (members.get("$bytes"), members.len()) {
        (None, _) => Ok(None),
        (Some(Json::String(text)), 1) => BASE64.decode(text.as_bytes()).map(Some).map_err(|_| InvalidValue::Bytes),
        _ => Err(InvalidValue::Bytes),
    }
}

/// JSON text without spaces and with the members of objects sorted.
///
/// Sorted here and not left to `serde_json`: another crate of the same build may switch on its `preserve_order`, and
/// then nodes would refuse one another's arrays.
fn canonical(json: &Json) -> String {
    fn write(json: &Json, text: &mut String) {
        match json {
            Json::Array(items) => {
                text.push('[');
                for (at, item) in items.iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { "," });
                    write(item, text);
                }
                text.push(']');
            }
            Json::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by_key(|(name, _)| *name);
                text.push('{');
                for (at, (name, member)) in sorted.into_iter().enumerate() {
                    text.push_str(if at == 0 { "" } else { "," });
                    text.push_str(&Json::from(name.as_str()).to_string());
                    text.push(':');
                    write(member, text);
                }
                text.push('}');
            }
            leaf => text.push_str(&leaf.to_string()),
        }
    }
    let mut text = String::new();
    write(json, &mut text);
    text
}

/// Checks depth and numbers of JSON whose outermost level is at `depth`.
pub(crate) fn check_json(json: &Json, depth: usize) -> Result<(), InvalidValue> {
    match json {
        Json::Array(_) | Json::Object(_) if depth > NESTING_MAX => Err(InvalidValue::TooDeep),
        Json::Array(items) => items.iter().try_for_each(|item| check_json(item, depth + 1)),
        Json::Object(members) => {
            bytes_of(members)?;
            members.values().try_for_each(|member| check_json(member, depth + 1))
        }
        Json::Number(number) => Value::from_number(number).map(drop),
        Json::Null | Json::Bool(_) | Json::String(_) => Ok(()),
    }
}

/// Parses JSON text, refusing every number that would come back different.
///
/// serde_json rounds silently, so each number literal is compared with the float that is nearest to it, which is the
/// one that serde_json makes of it (with its feature `float_roundtrip`; without, it can be a neighbour).
pub fn parse_json(text: &str) -> Result<Json, InvalidValue> {
    let json: Json = serde_json::from_str(text).map_err(|error| InvalidValue::Syntax(error.to_string()))?;
    if let Some((_, literal)) = inexact_number(text) {
        return Err(InvalidValue::Number(text[literal].to_owned()));
    }
    check_json(&json, 1)?;
    Ok(json)
}

/// Where in valid JSON the first number stands that would come back different, if there is one, and how many come before.
pub(crate) fn inexact_number(text: &str) -> Option<(usize, Range<usize>)> {
    // Outside of strings a digit or a minus begins a number.
    let bytes = text.as_bytes();
    let (mut at, mut before) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                if !is_exact(&text[start..at]) {
                    return Some((before, start..at));
                }
                before += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// Whether a number literal keeps its value: an integer in i64, or a decimal that the nearest float prints again.
fn is_exact(literal: &str) -> bool {
    if literal.parse::<i64>().is_ok() {
        return true;
    }
    match literal.parse::<f64>() {
        Ok(float) if float.is_finite() => {
            // `{:e}` is the shortest text that reads back as the float; of two equally short and near ones serde_json
            // prints the other, and what this node exports it must take back. `{:.0}` is all of a large integer.
            let value = significand(literal);
            value == significand(&format!("{float:e}"))
                || value == significand(&Json::from(float).to_string())
                || value == significand(&format!("{float:.0}"))
                // Seventeen digits name a float exactly, and are what many programs write for one.
                || (literal.contains(['.', 'e', 'E']) && value == significand(&format!("{float:.16e}")))
        }
        _ => false,
    }
}

/// A decimal as digits without leading and trailing zeros, and the exponent of the last one: equal for equal values.
/// The sign is left out, since a literal and its float always agree on it.
fn significand(literal: &str) -> (String, i64) {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = format!("{whole}{fraction}").trim_start_matches(['-', '0']).to_owned();
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    let dropped = i64::try_from(digits.len() - kept.len()).unwrap_or(i64::MAX);
    let fraction = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX / 4);
    (kept.to_owned(), exponent.saturating_sub(fraction).saturating_add(dropped))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        for json in [
            json!(null),
            json!(true),
            json!(i64::MIN),
            json!(0.1),
            json!(-0.0),
            json!("東京"),
            json!([1, {"b": [], "a": null}]),
            json!({}),
            json!({"$bytes": "AAEC"}),
        ] {
            let value = Value::from_json(&json).expect("storable");
            assert_eq!(value.to_json(), json);
            assert_eq!(crate::codec::decode("value", &crate::codec::encode(&value)), Ok(value));
        }
    }

    #[test]
    fn numbers_are_kept_exactly_or_refused() {
        for literal in [
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "0.1",
            "1.10",
            "1e3",
            "-0",
            "0e5",
            "1E-7",
            "31.95376472",
            "100000000000000000000",
            "2.5e-3",
            "9223372036854775808.0",
            "9.223372036854775808e18",
            // Seventeen digits, as C's %.17g writes them.
            "0.10000000000000001",
            "51.507351100000001",
            "1578923403059875.2",
            "1578923403059875.3",
            "5e-324",
            "-0.0",
        ] {
            assert!(parse_json(literal).is_ok(), "{literal}");
        }
        for literal in [
            "9223372036854775809",
            "18446744073709551616.5",
            "1e400",
            "-1e400",
            "1e-400",
            "12345678901234567890",
            "0.12345678901234567890",
            "0.100000000000000012",
            "3.14159265358979323846",
            "100000000000000000001",
        ] {
            assert!(parse_json(literal).is_err(), "{literal}");
        }
        assert!(matches!(parse_json("NaN"), Err(InvalidValue::Syntax(_))));
        assert!(parse_json(r#"{"not a number": "9223372036854775809 \" 1e400"}"#).is_ok());
    }

    #[test]
    fn a_float_is_not_read_as_its_neighbour() {
        for literal in ["90.42225290942383", "42.215889504792884", "19.243053591130522"] {
            let json = parse_json(literal).expect("a float's shortest text");
            assert_eq!(json.as_f64(), literal.parse().ok());
            // A list that is read differently is not canonical any more: every peer would refuse the event.
            assert!(Array::try_from(format!("[{literal}]")).is_ok(), "{literal}");
        }
    }

    #[test]
    fn members_in_arrays_are_sorted_whatever_the_parser_does() {
        let value = Value::from_json(&json!([{"b": [1, {"d": "\"", "c": {}}], "a": null}, []])).expect("an array");
        assert_eq!(value, Value::Array(Array(r#"[{"a":null,"b":[1,{"c":{},"d":"\""}]},[]]"#.to_owned())));
        assert!(Array::try_from(r#"[{"b":1,"a":1}]"#.to_owned()).is_err());
        assert!(Array::try_from(r#"[{"a":1,"a":1}]"#.to_owned()).is_err());
    }

    #[test]
    fn depth_is_limited_before_it_costs_anything() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse_json(&nested(NESTING_MAX)).is_ok());
        assert_eq!(parse_json(&nested(NESTING_MAX + 1)), Err(InvalidValue::TooDeep));
        assert!(matches!(parse_json(&nested(100_000)), Err(InvalidValue::Syntax(_))));
        assert!(Array::try_from(nested(NESTING_MAX + 1)).is_err());
    }

    #[test]
    fn hostile_values_are_refused() {
        for text in ["[1, 2]", "{}", "[1", "[9223372036854775809]", r#"[{"$bytes":"*"}]"#] {
            assert!(Array::try_from(text.to_owned()).is_err(), "{text}");
        }
        let mut bytes = vec![3];
        bytes.extend_from_slice(&f64::NAN.to_le_bytes());
        assert!(crate::codec::decode::<Value>("value", &bytes).is_err());
        assert_eq!(Value::from_json(&json!({"$bytes": 1})), Err(InvalidValue::Bytes));
    }
}
