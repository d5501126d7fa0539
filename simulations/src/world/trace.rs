//! One hash over everything that happened.

use super::Millis;

/// Takes in every delivered byte, every commit and every time. Two runs with equal traces were the same run.
#[derive(Debug, Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    told: bool,
}

impl Trace {
    /// A trace that tells on stderr what it takes in, if `told`.
    pub fn new(told: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), told }
    }

    /// Something happened at `now` to `node`: what it was, and its bytes.
    pub fn note(&mut self, now: Millis, node: usize, what: &str, bytes: &[u8]) {
        for number in [now, node as u64, what.len() as u64, bytes.len() as u64] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(what.as_bytes());
        self.hasher.update(bytes);
    }

    /// Says something for people only; it is not part of the hash.
    pub fn tell(&self, now: Millis, line: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{now:>7}  {}", line());
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}
