//! What is replicated: values, objects and their join, events and segments, and who may write them.
//!
//! **Invariant**: pure. Keys and random bytes are handed in; nothing here does I/O, reads a clock, or depends on hash
//! order. What comes from outside is parsed into these types once, and is valid from then on.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod access;
mod context;
mod draft;
mod event;
mod fault;
mod identity;
mod lineage;
mod mutation;
mod object;
mod path;
mod revision;
mod segment;
#[cfg(test)]
mod tests;
mod transaction;
mod value;

pub use access::{
    Access, CREDENTIALS_MAX, Genesis, Grant, InvalidTicket, NotGranted, Role, SignedTicket, SpaceId, Ticket, TicketId,
    about,
};
pub use context::{CONTEXT_BYTES_MAX, Context, InvalidContext};
pub(crate) use draft::shown_bytes;
pub use draft::{Draft, InvalidEdit, OBJECT_BYTES_MAX};
pub(crate) use event::PackedEvent;
pub use event::{
    ClientId, ClientName, EVENT_BYTES_MAX, Event, InvalidClientId, InvalidClientName, InvalidEvent, Remark,
};
pub use fault::Fault;
pub use identity::{DeviceId, DeviceKey, IdSyntaxError};
pub(crate) use lineage::{EndedRun, Lineage, Renaming};
pub(crate) use mutation::PackedObject;
pub use mutation::{Edit, Malformed, Mutation, Roster};
pub use object::{Conflict, Content, Entry, FieldKind, Object, Precedence, Seen, Slot};
pub use path::{COLLECTION_BYTES_MAX, CollectionName, FIELD_BYTES_MAX, InvalidName, KEY_BYTES_MAX, ObjectKey, Path};
pub use revision::{ForgedRevision, Revision, VOUCHERS_MAX, Voucher, WIPES_MAX};
pub use segment::{Incarnation, InvalidSegment, SEGMENT_BYTES_MAX, Segment};
pub use transaction::{Operation, Request};
pub(crate) use value::inexact_number;
pub use value::{Array, Float, InvalidValue, NESTING_MAX, Value, parse_json};
