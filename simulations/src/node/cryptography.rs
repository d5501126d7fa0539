//! TLS whose random choices a seed makes: ring's cryptography, with its randomness and its key exchange replaced.
//!
//! ring lets nobody choose the secret of a key exchange, so that one is done by the library that also signs events.
//! **Not for anything real**: whoever knows the seed can read everything.

use std::cell::Cell;
use std::sync::Arc;

use curve25519_dalek::MontgomeryPoint;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, ring,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};

use crate::world::Chance;

thread_local! {
    /// The world that runs on this thread, and how often it was asked: rustls wants its sources of randomness to live as
    /// long as the program.
    static WORLD: Cell<(Chance, u64)> = Cell::new((Chance::new(0), 0));
}

/// From now on everything on this thread is drawn from `chance`.
pub(super) fn begin(chance: Chance) {
    WORLD.set((chance, 0));
}

/// The cryptography of all nodes of the world that was begun last on the thread that uses it.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let groups: Vec<&'static dyn SupportedKxGroup> = vec![&Seeded];
    Arc::new(CryptoProvider { secure_random: &Seeded, kx_groups: groups, ..ring::default_provider() })
}

fn draw() -> [u8; 32] {
    let (chance, drawn) = WORLD.get();
    WORLD.set((chance, drawn + 1));
    chance.bytes("cryptography", drawn)
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        for chunk in bytes.chunks_mut(32) {
            chunk.copy_from_slice(&draw()[..chunk.len()]);
        }
        Ok(())
    }
}

impl SupportedKxGroup for Seeded {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = draw();
        Ok(Box::new(Begun { secret, public: MontgomeryPoint::mul_base_clamped(secret).to_bytes() }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Begun {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| Error::from(PeerMisbehaved::InvalidKeyShare))?;
        let shared = MontgomeryPoint(peer).mul_clamped(self.secret);
        Ok(SharedSecret::from(shared.to_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
