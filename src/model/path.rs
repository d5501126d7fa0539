//! Where something lies: collections, object keys, and paths to fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::NESTING_MAX;

/// The longest object key: 512 bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest name of a collection: 64 bytes.
pub const COLLECTION_BYTES_MAX: usize = 64;
/// The longest name of one field, without its parents: 1,024 bytes.
pub const FIELD_BYTES_MAX: usize = 1024;

/// A name that cannot be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Not the name of a collection.
    #[error("{0:?} cannot name a collection: use 1 to 64 of the characters A-Z a-z 0-9 _ . -")]
    Collection(String),
    /// Not an object key.
    #[error("an object key has 1 to {KEY_BYTES_MAX} bytes, not {0}")]
    Key(usize),
    /// Not a path to a field.
    #[error("{0:?} is no field: write a name, or a JSON pointer such as /name/common")]
    Field(String),
    /// A field that would read as bytes.
    #[error("no field is called $bytes: {{\"$bytes\": …}} is how bytes are written")]
    Bytes,
    /// A field in too many maps.
    #[error("nested more than {NESTING_MAX} levels deep")]
    TooDeep,
    /// A field name that is too long.
    #[error("a field name has at most {FIELD_BYTES_MAX} bytes, not {0}")]
    FieldTooLong(usize),
}

/// As much of what was to be a name as an error tells again.
fn beginning_of(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The name of a collection: 1 to 64 of `A-Z a-z 0-9 _ . -`; the node's own collections begin with `$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(String);

impl CollectionName {
    /// Where a space keeps who may do what.
    pub fn grants() -> Self {
        Self("$grants".to_owned())
    }

    /// Where a space keeps what it is called.
    pub fn about() -> Self {
        Self("$space".to_owned())
    }

    /// A collection that users name; the node's own ones are refused.
    pub fn user(name: &str) -> Result<Self, InvalidName> {
        Self::try_from(name.to_owned())
            .ok()
            .filter(|name| !name.is_reserved())
            .ok_or_else(|| InvalidName::Collection(beginning_of(name)))
    }

    /// Whether it is one of the node's own collections.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CollectionName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        let plain = name.strip_prefix('$').unwrap_or(&name);
        let valid = !plain.is_empty()
            && name.len() <= COLLECTION_BYTES_MAX
            && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if valid { Ok(Self(name)) } else { Err(InvalidName::Collection(beginning_of(&name))) }
    }
}

impl From<CollectionName> for String {
    fn from(name: CollectionName) -> Self {
        name.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an object in its collection: 1 to 512 bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = InvalidName;

    fn try_from(key: String) -> Result<Self, InvalidName> {
        if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidName::Key(key.len())) }
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidName;

    fn from_str(key: &str) -> Result<Self, InvalidName> {
        Self::try_from(key.to_owned())
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path to a field: its name, after the names of the maps that it is nested in. Never empty.
///
/// As text it is the name alone, or, if nested or beginning with `/`, a JSON pointer (RFC 6901): `/name/common`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Path(Vec<String>);

impl Path {
    /// The names from the outermost to the field's own.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The field that this one is a member of, unless it is the object itself.
    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        (!parents.is_empty()).then(|| Self(parents.to_vec()))
    }

    /// The maps that this field is nested in, the outermost first.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        (1..self.0.len()).map(|length| Self(self.0[..length].to_vec()))
    }

    /// The field `name` of the map `parent`, or of the object itself.
    pub(crate) fn member(parent: Option<&Self>, name: &str) -> Result<Self, InvalidName> {
        let mut names = parent.map(|parent| parent.0.clone()).unwrap_or_default();
        names.push(name.to_owned());
        Self::try_from(names)
    }

    /// Whether a map in so many others may have a member of this name.
    pub(crate) fn check_member(parents: usize, name: &str) -> Result<(), InvalidName> {
        match name {
            _ if name.len() > FIELD_BYTES_MAX => Err(InvalidName::FieldTooLong(name.len())),
            _ if parents >= NESTING_MAX => Err(InvalidName::TooDeep),
            // A map with this member would read as bytes.
            "$bytes" => Err(InvalidName::Bytes),
            _ => Ok(()),
        }
    }

    /// Whether this is `ancestor` or lies within it.
    pub fn is_within(&self, ancestor: &[String]) -> bool {
        self.0.starts_with(ancestor)
    }
}

impl TryFrom<Vec<String>> for Path {
    type Error = InvalidName;

    fn try_from(names: Vec<String>) -> Result<Self, InvalidName> {
        if names.is_empty() {
            return Err(InvalidName::Field(String::new()));
        }
        names.iter().enumerate().try_for_each(|(parents, name)| Self::check_member(parents, name))?;
        Ok(Self(names))
    }
}

impl From<Path> for Vec<String> {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl FromStr for Path {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some(pointer) = text.strip_prefix('/') else {
            return Self::try_from(vec![text.to_owned()]);
        };
        let unescape = |name: &str| {
            let valid = name.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
            valid.then(|| name.replace("~1", "/").replace("~0", "~"))
        };
        let names: Option<Vec<_>> = pointer.split('/').map(unescape).collect();
        Self::try_from(names.ok_or_else(|| InvalidName::Field(beginning_of(text)))?)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [name] if !name.starts_with('/') => f.write_str(name),
            names => names.iter().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_they_print() {
        for text in ["title", "", "a.b", "/name/common", "/a~1b/~0", "/~1starts with a slash"] {
            assert_eq!(text.parse::<Path>().expect("a path").to_string(), text);
        }
        assert_eq!("/name/common".parse::<Path>().expect("a path").names(), ["name", "common"]);
        for text in
            ["$bytes", "/a/$bytes", "/a~2", "/~", &"/a".repeat(NESTING_MAX + 1), &"x".repeat(FIELD_BYTES_MAX + 1)]
        {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert!(CollectionName::user("notes_2.old-x").is_ok());
        for name in ["", "$grants", "a/b", "é", &"x".repeat(65)] {
            assert!(CollectionName::user(name).is_err(), "{name}");
        }
        assert!(CollectionName::try_from("$grants".to_owned()).is_ok());
        assert!("".parse::<ObjectKey>().is_err());
        assert!("é".repeat(256).parse::<ObjectKey>().is_ok());
        assert!("é".repeat(257).parse::<ObjectKey>().is_err());
    }
}
