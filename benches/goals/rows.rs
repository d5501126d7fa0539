//! The rows: a key of 12 bytes and a value of 100, text as people write it.

use serde_json::{Value as Json, json};
use thence::node::{Space, Transaction};

use crate::Outcome;
use crate::house::Dice;

/// The bytes of key and value.
pub const ROW_BYTES: u64 = 112;
/// The collection that holds them.
pub const COLLECTION: &str = "notes";
/// The field of a row that is its value.
pub const FIELD: &str = "text";
/// How many rows `thence import` puts into one transaction, and so into one event.
pub const ROWS_PER_IMPORT: u64 = 256;

const WORDS: [&str; 24] = [
    "the", "a", "of", "and", "to", "with", "milk", "bread", "tomorrow", "train", "garden", "letter", "paid", "open",
    "call", "Anna", "house", "before", "morning", "list", "nine", "ticket", "again", "river",
];

/// The key of row `at`.
pub fn key(at: u64) -> String {
    format!("note{at:08}")
}

/// The value of row `at` after `revision` changes.
pub fn value(at: u64, revision: u64) -> String {
    let mut dice = Dice::new(at.wrapping_mul(1009).wrapping_add(revision));
    let mut text = format!("{revision} ");
    while text.len() < 100 {
        text.push_str(WORDS[usize::try_from(dice.below(WORDS.len() as u64)).unwrap_or(0)]);
        text.push(' ');
    }
    text.truncate(100);
    text
}

/// The fields of row `at`.
pub fn fields(at: u64, revision: u64) -> Json {
    json!({ FIELD: value(at, revision) })
}

/// One transaction that puts these rows.
pub fn put(rows: impl IntoIterator<Item = u64>, revision: u64) -> Outcome<Transaction> {
    let mut transaction = Transaction::new();
    for at in rows {
        transaction = transaction.put(COLLECTION, &key(at), fields(at, revision))?;
    }
    Ok(transaction)
}

/// Fails unless the space shows exactly rows `0..count`, of the revision that `revision` says.
pub fn verify(space: &Space, count: u64, revision: impl Fn(u64) -> u64) -> Outcome<()> {
    let (mut next, mut wrong) = (0, None);
    space.view()?.visit(None, &mut |_, found, object| {
        let fields = object.shown().unwrap_or_default();
        let expected = value(next, revision(next));
        let right = found.as_str() == key(next)
            && fields.len() == 1
            && fields.get(FIELD).and_then(Json::as_str) == Some(&expected);
        if !right {
            wrong = Some(format!("row {next} should be {expected:?} and is {found} {fields:?}"));
            return std::ops::ControlFlow::Break(());
        }
        next += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    match wrong {
        Some(wrong) => Err(wrong.into()),
        None if next != count => Err(format!("{next} rows arrived of {count}").into()),
        None => Ok(()),
    }
}
