//! How many requests a second may come under one token.
//!
//! The generic cell rate algorithm: per key one instant, the one until which its requests so far are paid for. A request
//! moves it by its share of a second, and is refused when it lies a second or more ahead. A key whose instant has
//! passed is as good as one that was never seen, and is forgotten when room is needed.
//!
//! **Invariant**: at most `keys_max` keys are remembered. Requests that are let in pay for a thousandth of a second each
//! (or whatever the rate is), so keys that cannot be forgotten yet are few however many are made up.
//!
//! Written here rather than taken from a crate: it is two dozen lines, and those of the crates that bound the number of keys
//! want a clock and a sharded map of their own.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One second.
const SECOND: u64 = 1_000_000_000;

/// The requests of each key, as far as they matter.
#[derive(Debug)]
pub struct Rate {
    cost_ns: u64,
    keys_max: usize,
    /// Keys are remembered by a hash that nobody outside can foresee, so that no token lies in memory for this.
    hasher: RandomState,
    paid_until_ns: Mutex<HashMap<u64, u64>>,
}

impl Rate {
    /// At most `per_second` requests for each of at most `keys_max` keys.
    pub fn new(per_second: u32, keys_max: usize) -> Self {
        let cost_ns = SECOND / u64::from(per_second.max(1));
        Self { cost_ns, keys_max, hasher: RandomState::new(), paid_until_ns: Mutex::default() }
    }

    /// Lets a request in, or says when to come again. `now` is since any fixed instant.
    pub fn admit(&self, key: &[u8], now: Duration) -> Result<(), Duration> {
        self.pay(key, now, self.cost_ns)
    }

    /// The same where so many a second are let in of that key.
    pub fn admit_at(&self, key: &[u8], now: Duration, per_second: u32) -> Result<(), Duration> {
        self.pay(key, now, SECOND / u64::from(per_second.max(1)))
    }

    fn pay(&self, key: &[u8], now: Duration, cost_ns: u64) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let key = self.hasher.hash_one(key);
        let mut paid = self.paid_until_ns.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= self.keys_max && !paid.contains_key(&key) {
            paid.retain(|_, until| *until > now);
            if paid.len() >= self.keys_max {
                return Err(Duration::from_nanos(SECOND));
            }
        }
        let until = paid.entry(key).or_insert(now);
        let after = now.max(*until).saturating_add(cost_ns);
        if after > now.saturating_add(SECOND) {
            return Err(Duration::from_nanos(after - now - SECOND));
        }
        *until = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_second_worth_may_come_at_once_and_then_one_at_a_time() {
        let rate = Rate::new(10, 100);
        for _ in 0..10 {
            assert_eq!(rate.admit(b"a", at(5000)), Ok(()));
        }
        assert_eq!(rate.admit(b"a", at(5000)), Err(at(100)));
        assert_eq!(rate.admit(b"b", at(5000)), Ok(()), "each has its own");
        assert_eq!(rate.admit(b"a", at(5099)), Err(at(1)));
        assert_eq!(rate.admit(b"a", at(5100)), Ok(()));
        assert!(rate.admit(b"a", at(5100)).is_err());
        for _ in 0..10 {
            assert_eq!(rate.admit(b"a", at(7000)), Ok(()), "what was not used is not saved up beyond a second");
        }
        assert!(rate.admit(b"a", at(7000)).is_err());
    }

    #[test]
    fn made_up_keys_cost_bounded_memory_and_keep_nobody_out_for_long() {
        let rate = Rate::new(10, 100);
        for number in 0..10_000_u32 {
            let _ = rate.admit(&number.to_le_bytes(), at(1000));
        }
        assert_eq!(rate.paid_until_ns.lock().expect("no panic").len(), 100);
        assert!(rate.admit(b"honest", at(1000)).is_err());
        assert_eq!(rate.admit(b"honest", at(1100)), Ok(()), "one request of each is paid for");
        assert_eq!(rate.paid_until_ns.lock().expect("no panic").len(), 1);
    }
}
