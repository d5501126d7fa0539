//! TLS for the relay's clients: a certificate and its key from two files, in PEM.
//!
//! Nothing of it is shared with the TLS between nodes, where the device key is the certificate. Clients show no
//! certificate; they show a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::HttpError;

/// The protocols in the handshake, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reads the two files: a certificate with those that lead to its root, and its key.
pub fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, HttpError> {
    let unreadable = |path: &Path, what: &str, error: PemError| {
        let what = match error {
            PemError::Io(error) => error.to_string(),
            PemError::NoItemsFound => format!("there is no {what} in it"),
            error => format!("it is not in PEM: {error}"),
        };
        HttpError::Pem { path: path.to_owned(), what }
    };
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unreadable(certificate, "certificate", error))?;
    if chain.is_empty() {
        return Err(unreadable(certificate, "certificate", PemError::NoItemsFound));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "private key", error))?;
    let refused = |error: rustls::Error| HttpError::Tls {
        certificate: PathBuf::from(certificate),
        key: PathBuf::from(key),
        what: match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            error => error.to_string(),
        },
    };
    let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(refused)?;
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(tls))
}
