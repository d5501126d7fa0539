//! What is replicated: values, objects and their join, events and segments. Pure.

mod identity;

pub use identity::{DeviceId, DeviceKey, IdSyntaxError};
