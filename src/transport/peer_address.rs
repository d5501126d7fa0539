//! Where a device can be dialled, as people write it: `DEVICE_ID@HOST:PORT`.
//!
//! The host is an IPv4 address, an IPv6 address in brackets, or a name, which is looked up at each dialing and never
//! before, since names move. Parsing does no I/O. No answer of a name service is trusted: the device id is what
//! decides who is there.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{DeviceId, IdSyntaxError};

/// A device and one place where it may be found.
///
/// ```
/// use thence::transport::PeerAddress;
///
/// let text = format!("{}@relay.example.org:4460", "ab".repeat(32));
/// let peer: PeerAddress = text.parse().unwrap();
/// assert_eq!(peer.host(), "relay.example.org");
/// assert_eq!(peer.port(), 4460);
/// assert_eq!(peer.to_string(), text);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    device: DeviceId,
    place: Place,
}

/// A text that is no [`PeerAddress`]: the fault of who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddressError {
    /// There is no `@`.
    #[error("expected DEVICE_ID@HOST:PORT, but there is no '@'")]
    NoAt,
    /// What stands before the `@` is no device id.
    #[error("before the '@': {0}")]
    Device(#[from] IdSyntaxError),
    /// There is no port, or it is none from 1 to 65535.
    #[error("after the '@': expected HOST:PORT with a port from 1 to 65535")]
    Port,
    /// An IPv6 address without brackets, whose port cannot be told from it, or brackets around something else.
    #[error("after the '@': write an IPv6 address in brackets, as in [2001:db8::1]:4460")]
    Ipv6,
    /// The host is neither an address nor a possible name.
    #[error("after the '@': {host:?} is neither an IP address nor a host name")]
    Host {
        /// What was written.
        host: String,
    },
}

/// A host name with no address at the moment: try later, or correct the name.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the address of {host}: {source}")]
pub struct ResolveError {
    /// The name that was looked up.
    pub host: String,
    /// What the system says.
    pub source: std::io::Error,
}

impl PeerAddress {
    /// The device at an address that is known already.
    pub fn new(device: DeviceId, address: SocketAddr) -> Self {
        let place = Place::Address(address);
        Self { device, place }
    }

    /// The device that is expected there.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The host as text; an IPv6 address without its brackets.
    pub fn host(&self) -> String {
        match &self.place {
            Place::Address(address) => address.ip().to_string(),
            Place::Name { host, .. } => host.clone(),
        }
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        match &self.place {
            Place::Address(address) => address.port(),
            Place::Name { port, .. } => *port,
        }
    }

    /// The addresses to dial, best first, at least one. An address is returned as it is, without any I/O; a name is
    /// looked up by the system, which needs tokio and takes real time.
    ///
    /// # Errors
    /// [`ResolveError`] when the name has no address now.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let (host, port) = match &self.place {
            Place::Address(address) => return Ok(vec![*address]),
            Place::Name { host, port } => (host, *port),
        };
        let failed = |source| ResolveError { host: host.clone(), source };
        let found: Vec<_> = tokio::net::lookup_host((host.as_str(), port)).await.map_err(failed)?.collect();
        if found.is_empty() {
            return Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")));
        }
        Ok(found)
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let (device, place) = text.split_once('@').ok_or(PeerAddressError::NoAt)?;
        Ok(Self { device: device.parse()?, place: place.parse()? })
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<Self, PeerAddressError> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(peer: PeerAddress) -> Self {
        peer.to_string()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Address(address) => write!(f, "{}@{address}", self.device),
            Place::Name { host, port } => write!(f, "{}@{host}:{port}", self.device),
        }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerAddress({self})")
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Address(SocketAddr),
    /// A checked name, in lower case.
    Name {
        host: String,
        port: u16,
    },
}

impl FromStr for Place {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(PeerAddressError::Port)?;
        if host.starts_with('[') || host.contains(':') {
            let address: SocketAddrV6 = text.parse().map_err(|_| match port.parse::<u16>() {
                Err(_) if host.ends_with(']') => PeerAddressError::Port,
                _ => PeerAddressError::Ipv6,
            })?;
            return match address.port() {
                0 => Err(PeerAddressError::Port),
                _ => Ok(Self::Address(address.into())),
            };
        }
        // `parse` would take "+80".
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = match port.parse() {
            Ok(port) if port > 0 && digits => port,
            _ => return Err(PeerAddressError::Port),
        };
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address((ip, port).into()));
        }
        if !is_host_name(host) {
            return Err(PeerAddressError::Host { host: host.into() });
        }
        let host = host.to_ascii_lowercase();
        Ok(Self::Name { host, port })
    }
}

/// RFC 1123, and underscores, which private name services use. A name whose last part is a number would be a mistyped
/// address.
fn is_host_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    host.len() <= 253 && labels.split('.').all(is_label) && !labels.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn parse(place: &str) -> Result<PeerAddress, PeerAddressError> {
        format!("{ID}@{place}").parse()
    }

    #[test]
    fn what_is_written_is_shown_again() {
        for place in [
            "127.0.0.1:4460",
            "[::1]:4460",
            "[fe80::1%2]:1",
            "relay:65535",
            "a-b.example.org:4460",
            "node_1:7",
            "example.org.:7",
        ] {
            let peer = parse(place).expect(place);
            assert_eq!(peer.to_string(), format!("{ID}@{place}"));
            assert_eq!(peer.device().to_string(), ID);
        }
        let peer = parse("[::1]:4460").expect("an address");
        assert_eq!((peer.host().as_str(), peer.port()), ("::1", 4460));
        assert_eq!(parse("Example.ORG:1"), parse("example.org:1"));
    }

    #[test]
    fn mistakes_are_told_apart() {
        let parsed = |text: &str| text.parse::<PeerAddress>().expect_err(text);
        assert_eq!(parsed("127.0.0.1:4460"), PeerAddressError::NoAt);
        assert!(matches!(parsed("abc@127.0.0.1:4460"), PeerAddressError::Device(_)));
        for place in ["relay", "relay:", "relay:0", "relay:65536", "relay:+80", "1.2.3.4:0", "[::1]:0", "[::1]:x"] {
            assert_eq!(parse(place), Err(PeerAddressError::Port), "{place}");
        }
        for place in ["::1:4460", "[relay]:4460", "[::1:4460", "2001:db8::1"] {
            assert_eq!(parse(place), Err(PeerAddressError::Ipv6), "{place}");
        }
        for place in ["1.2.3:4", "1.2.3.256:4", ":4460", "a..b:1", "-a:1", "a b:1", "x@y:1", "é:1"] {
            assert!(matches!(parse(place), Err(PeerAddressError::Host { .. })), "{place}");
        }
    }

    #[test]
    fn it_is_text_in_files() {
        let peer = parse("relay:1").expect("a name");
        let json = serde_json::to_string(&peer).expect("text");
        assert_eq!(json, format!("\"{ID}@relay:1\""));
        assert_eq!(serde_json::from_str::<PeerAddress>(&json).ok(), Some(peer));
        assert!(serde_json::from_str::<PeerAddress>("\"relay:1\"").is_err());
    }

    #[tokio::test]
    async fn an_address_is_resolved_without_asking_anyone() {
        let peer = parse("[::1]:4460").expect("an address");
        let found = peer.resolve().await.expect("no look-up");
        assert_eq!(found, ["[::1]:4460".parse().expect("an address")]);
        let name = parse("no-such-host.invalid:1").expect("a name");
        let error = name.resolve().await.expect_err("reserved to not exist");
        assert_eq!(error.host, "no-such-host.invalid");
    }
}
