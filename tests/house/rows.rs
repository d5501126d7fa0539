//! What is written: the rows of `tests/data`, made-up ones, and the numbers that choose among them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of `tests/data`.
pub fn rows(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The rows of a JSON lines file.
pub fn read_rows(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// Writes rows as JSON lines.
pub fn write_rows(file: &Path, rows: &[Value]) {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// `count` small rows with the key field `id`: `PREFIX000000`, `PREFIX000001`, …
pub fn made_up_rows(prefix: &str, count: usize) -> Vec<Value> {
    let row = |n| {
        let text = format!("the row number {n} of {prefix}, of about a hundred bytes as rows often are");
        serde_json::json!({ "id": format!("{prefix}{n:06}"), "number": n, "text": text })
    };
    (0..count).map(row).collect()
}

/// A small generator of numbers: the same seed, the same numbers.
pub struct Dice(u64);

impl Dice {
    /// Starts with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit` (SplitMix64).
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// The bytes of a file. To show that nothing was touched.
pub fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
