//! TLS 1.3 where the device key *is* the certificate (RFC 7250, RFC 8410).
//!
//! Both sides show the 44 bytes of an Ed25519 `SubjectPublicKeyInfo` and sign the handshake with that key. The dialer
//! compares the key with the one it expects before it shows its own, so a wrong device learns nothing of who called.
//! The side that is dialled takes any key: who may do what is not decided here.
//!
//! **Invariant**: a finished handshake means a signature by the peer's key over this very handshake. rustls does not
//! call a verifier when a session is resumed; therefore no tickets are given, none are kept, and the device is read
//! from the connection's own identity ([`device_of`]) each time.
//!
//! **Absent here**: X.509, names (no server name is sent, since it would go in the clear), 0-RTT.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use crate::model::{DeviceId, DeviceKey};

/// The name of the protocol in the TLS handshake (ALPN). Who offers no such is refused.
pub const ALPN: &[u8] = b"thence/1";

/// The cryptography that TLS works with; a simulation hands in one with seeded randomness.
pub type CryptoProvider = rustls::crypto::CryptoProvider;

/// The client's half of a TLS configuration.
pub(super) type ClientTls = ClientConfig;

/// The server's half of a TLS configuration.
pub(super) type ServerTls = ServerConfig;

/// The device as which this node shakes hands.
#[derive(Clone)]
pub(super) struct Identity {
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// The identity with `key`; without a `provider`, ring's.
    pub(super) fn new(key: &DeviceKey, provider: Option<Arc<CryptoProvider>>) -> Self {
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        Self { provider, certified: Arc::new(certified(key)) }
    }

    /// For being dialled: takes every device that proves its key.
    pub(super) fn server(&self) -> Result<ServerTls, Error> {
        let mut tls = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(RawKeyVerifier::default()))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified.clone())));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        tls.max_early_data_size = 0;
        Ok(tls)
    }

    /// For dialling `expected`. The second part tells afterwards who answered instead.
    pub(super) fn client(&self, expected: DeviceId) -> Result<(ClientTls, Arc<RawKeyVerifier>), Error> {
        let verifier = Arc::new(RawKeyVerifier { expected: Some(expected), other: OnceLock::new() });
        let mut tls = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified.clone())));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        tls.enable_sni = false;
        Ok((tls, verifier))
    }
}

/// The device that a connection's identity names: exactly one raw Ed25519 public key.
///
/// `identity` is what QUIC hands out after the handshake, a chain of certificates in an `Any`.
pub(super) fn device_of(identity: Box<dyn Any>) -> Option<DeviceId> {
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match chain.as_slice() {
        [only] => device_of_spki(only),
        _ => None,
    }
}

/// Takes the other side's raw public key, and on the dialer's side the expected one only.
#[derive(Debug, Default)]
pub(super) struct RawKeyVerifier {
    expected: Option<DeviceId>,
    /// Who signed the handshake, when it was not `expected`.
    other: OnceLock<DeviceId>,
}

impl RawKeyVerifier {
    /// Who proved to be there in place of the expected device.
    pub(super) fn other(&self) -> Option<DeviceId> {
        self.other.get().copied()
    }

    fn check_key(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        match device_of_spki(end_entity) {
            Some(_) if intermediates.is_empty() => Ok(()),
            _ => Err(CertificateError::BadEncoding.into()),
        }
    }

    /// The signature comes first and the comparison second, so that `other` has proved what it is.
    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let device = device_of_spki(spki).ok_or(CertificateError::BadEncoding)?;
        let signature = <&[u8; 64]>::try_from(signed.signature()).map_err(|_| CertificateError::BadSignature)?;
        if signed.scheme != SignatureScheme::ED25519 || !device.verifies(message, signature) {
            return Err(CertificateError::BadSignature.into());
        }
        if self.expected.is_some_and(|expected| expected != device) {
            // The cell is set once per connection; if it was set before, it was by this very device.
            let _ = self.other.set(device);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410) is this and the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn spki_of(device: DeviceId) -> Vec<u8> {
    [&SPKI_PREFIX[..], device.as_bytes()].concat()
}

fn device_of_spki(spki: &[u8]) -> Option<DeviceId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(DeviceId::from_bytes)
}

fn certified(key: &DeviceKey) -> CertifiedKey {
    let spki = CertificateDer::from(spki_of(key.device()));
    CertifiedKey::new(vec![spki], Arc::new(HandshakeKey(key.clone())))
}

/// The device key as rustls wants it. Signing with our own key type keeps further copies of the secret out of memory.
#[derive(Clone)]
struct HandshakeKey(DeviceKey);

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki_of(self.0.device()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for HandshakeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Clients that a server has to refuse.
#[cfg(test)]
pub(super) mod hostile {
    use rustls::client::ResolvesClientCert;

    use super::*;

    /// What a hostile client shows.
    #[derive(Debug, Clone)]
    pub enum Shows {
        /// It agrees to raw public keys and shows none.
        Nothing,
        /// It knows X.509 only, and shows some.
        X509,
        /// It agrees to raw public keys and shows these bytes in place of one, signing with a key of its own.
        Bytes(Vec<u8>),
    }

    #[derive(Debug)]
    struct Resolver {
        shows: Shows,
        key: DeviceKey,
    }

    impl ResolvesClientCert for Resolver {
        fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            let bytes = match &self.shows {
                Shows::Nothing => return None,
                Shows::X509 => b"\x30\x03\x02\x01\x01".to_vec(),
                Shows::Bytes(bytes) => bytes.clone(),
            };
            let key = Arc::new(HandshakeKey(self.key.clone()));
            Some(Arc::new(CertifiedKey::new(vec![bytes.into()], key)))
        }

        fn only_raw_public_keys(&self) -> bool {
            !matches!(self.shows, Shows::X509)
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    /// A client that dials `expected` and shows something else than its key.
    pub fn showing(shows: Shows, key: &DeviceKey, expected: DeviceId) -> ClientTls {
        let (mut tls, _) = Identity::new(key, None).client(expected).expect("ring supports TLS 1.3");
        let key = key.clone();
        tls.client_auth_cert_resolver = Arc::new(Resolver { shows, key });
        tls
    }

    /// An honest client that offers these protocols.
    pub fn speaking(protocols: &[&[u8]], key: &DeviceKey, expected: DeviceId) -> ClientTls {
        let (mut tls, _) = Identity::new(key, None).client(expected).expect("ring supports TLS 1.3");
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        tls
    }

    /// A client that keeps whatever session it is given and would resume it; the same one for several dials.
    pub fn resuming(key: &DeviceKey, expected: DeviceId) -> ClientTls {
        let (mut tls, _) = Identity::new(key, None).client(expected).expect("ring supports TLS 1.3");
        tls.resumption = Resumption::in_memory_sessions(8);
        tls.enable_early_data = true;
        tls
    }

    /// The bytes in which a device shows its key.
    pub fn spki(device: DeviceId) -> Vec<u8> {
        spki_of(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_exactly_one_raw_key() {
        let device = DeviceKey::from_secret(&[7; 32]).device();
        let spki = spki_of(device);
        assert_eq!(spki.len(), 44);
        let identity = |chain: Vec<Vec<u8>>| -> Box<dyn Any> {
            Box::new(chain.into_iter().map(CertificateDer::from).collect::<Vec<_>>())
        };
        assert_eq!(device_of(identity(vec![spki.clone()])), Some(device));
        assert_eq!(device_of(identity(vec![])), None);
        assert_eq!(device_of(identity(vec![spki.clone(), spki.clone()])), None);
        assert_eq!(device_of(identity(vec![spki[..43].to_vec()])), None);
        assert_eq!(device_of(identity(vec![[&spki[..], &[0]].concat()])), None);
        assert_eq!(device_of(Box::new(device)), None);
    }

    #[test]
    fn the_certified_key_agrees_with_itself() {
        // rustls parses the raw key as X.509 here, so it can only be asked for the public key.
        let key = DeviceKey::from_secret(&[7; 32]);
        let certified = certified(&key);
        assert_eq!(certified.key.public_key().map(|spki| spki.to_vec()), Some(certified.cert[0].to_vec()));
    }
}
