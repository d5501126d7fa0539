//! Randomness without a stream: every draw is a hash of the seed and of what it is for.
//!
//! So an item that is taken out of a scenario leaves all other draws as they were, which is what makes shrinking work.

/// The source of everything random in one world.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    seed: u64,
}

/// The finaliser of SplitMix64: every input bit moves every output bit.
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Chance {
    /// The source that `seed` is.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number that depends on the seed and on these three alone.
    pub fn draw(&self, purpose: &str, entity: u64, counter: u64) -> u64 {
        let purpose = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mix(mix(mix(mix(self.seed) ^ purpose) ^ entity) ^ counter)
    }

    /// Draws for one purpose and entity, counted from 0.
    pub fn draws(&self, purpose: &'static str, entity: u64) -> Draws {
        Draws { chance: *self, purpose, entity, counter: 0 }
    }

    /// 32 bytes, for keys and names.
    pub fn bytes(&self, purpose: &str, entity: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (counter, chunk) in (0..).zip(bytes.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&self.draw(purpose, entity, counter).to_le_bytes());
        }
        bytes
    }
}

/// Numbered draws for one purpose and one entity.
#[derive(Clone, Debug)]
pub struct Draws {
    chance: Chance,
    purpose: &'static str,
    entity: u64,
    counter: u64,
}

impl Draws {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        self.chance.draw(self.purpose, self.entity, self.counter)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder does not matter for ends this small.
        self.next_u64() % end.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, (low, high): (u64, u64)) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Yes in `per_mille` of a thousand cases.
    pub fn yes(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(of.len() as u64)).unwrap_or_default();
        &of[at]
    }
}
