//! A web origin whose pages may speak to the relay from a browser.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// A scheme, a host and perhaps a port, as browsers write it in `Origin`: `https://app.example.org`.
///
/// **Invariant**: nothing but lower-case visible ASCII, so that it is compared byte by byte and can stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(String);

impl Origin {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no web origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no web origin: write scheme, host and perhaps port, as in https://app.example.org, and no path")]
pub struct InvalidOrigin(String);

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let wrong = || InvalidOrigin(text.chars().take(200).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_scheme = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        // An address of version 6 is in brackets, and has colons of its own.
        let colon = rest.rfind(':').filter(|colon| rest.rfind(']').is_none_or(|bracket| bracket < *colon));
        let (host, port) = match colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte))
            }
        };
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        let whole = !scheme.is_empty() && scheme.bytes().all(is_scheme) && !host.is_empty() && is_host && is_port;
        if whole { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for text in [
            "https://app.example.org",
            "http://localhost:3000",
            "http://[::1]:8080",
            "http://[::1]",
            "capacitor://localhost",
        ] {
            assert_eq!(text.parse::<Origin>().expect(text).as_str(), text);
        }
        for text in [
            "",
            "*",
            "null",
            "app.example.org",
            "https://",
            "https://app.example.org/",
            "https://App.example.org",
            "https://app.example.org:port",
            "https://app.example.org:70000",
            "https://[::1",
            "https://a b",
            "https://*.example.org",
            "https://user@example.org",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
