//! What is done with arbitrary bytes: each function takes some and panics if something is wrong.
//!
//! **Invariant**: nothing but the bytes decides what happens, so that every finding stays one.

mod decoders;
mod session;
mod store;
pub mod world;

pub use decoders::{address, backup, config, frame, message, name, segment, ticket, value};
pub use session::session;
pub use store::store;

/// A target by name.
pub fn named(name: &str) -> Option<fn(&[u8])> {
    Some(match name {
        "frame" => frame,
        "message" => message,
        "segment" => segment,
        "value" => value,
        "name" => self::name,
        "ticket" => ticket,
        "address" => address,
        "config" => config,
        "backup" => backup,
        "store" => store,
        "session" => session,
        _ => return None,
    })
}
