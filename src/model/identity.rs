//! Who wrote something: devices and their keys.
//!
//! A device *is* its Ed25519 key pair; the public key is its name everywhere, and also its QUIC identity.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The public key of a device: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId([u8; 32]);

/// A text that is not the name of a device, space or replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {digits} hexadecimal digits")]
pub struct IdSyntaxError {
    pub(crate) what: &'static str,
    pub(crate) digits: usize,
}

impl DeviceId {
    /// The name with these 32 bytes. Bytes that are no valid public key verify no signature.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this device's signature of `message`.
    ///
    /// Strict verification: keys of small order and signatures that could be altered without the key are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", &self.to_string()[..8])
    }
}

impl FromStr for DeviceId {
    type Err = IdSyntaxError;

    fn from_str(text: &str) -> Result<Self, IdSyntaxError> {
        parse_hex(text, "a device id").map(Self)
    }
}

/// Parses exactly `N` bytes of hexadecimal digits; `what` names them in the error.
pub(crate) fn parse_hex<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], IdSyntaxError> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(IdSyntaxError { what, digits: 2 * N })
}

/// The key pair of a device. It never prints its secret.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key pair that these 32 secret bytes define. The caller draws them from a cryptographic source.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, for the file that keeps them and for TLS.
    pub fn secret(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey of {:?}", self.device())
    }
}
