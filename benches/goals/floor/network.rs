//! Plain quinn: connections on the loopback, with raw Ed25519 keys as thence has them.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};

use crate::Outcome;

/// A server, and how to reach it.
pub struct Network {
    server: Endpoint,
    provider: Arc<CryptoProvider>,
}

/// Two connected ends, and what keeps them alive.
pub struct Connected {
    /// The end that dialled.
    pub client: Connection,
    /// The end that was dialled.
    pub server: Connection,
    _endpoint: Endpoint,
}

fn new_key() -> Outcome<Arc<CertifiedKey>> {
    let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no randomness")?;
    let key = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pair.as_ref()))?;
    let public = key.public_key().ok_or("a key pair without a public key")?.to_vec();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key)))
}

impl Network {
    /// A server on the loopback.
    pub fn new() -> Outcome<Self> {
        let provider = Arc::new(default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(new_key()?)));
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        Ok(Self { server: Endpoint::server(config, "127.0.0.1:0".parse()?)?, provider })
    }

    /// Where it listens.
    pub fn address(&self) -> Outcome<SocketAddr> {
        Ok(self.server.local_addr()?)
    }

    /// A new endpoint that will dial.
    pub fn client(&self) -> Outcome<Endpoint> {
        let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyKey(Arc::clone(&self.provider))))
            .with_no_client_auth();
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
        Ok(endpoint)
    }

    /// The next connection that somebody dials.
    pub async fn accept(&self) -> Outcome<Connection> {
        Ok(self.server.accept().await.ok_or("the endpoint is closed")?.await?)
    }

    /// A new connection, dialled at `address`.
    pub async fn connect(&self, endpoint: Endpoint, address: SocketAddr) -> Outcome<Connected> {
        let dial = async { Outcome::Ok(endpoint.connect(address, "localhost")?.await?) };
        let (client, server) = tokio::try_join!(dial, self.accept())?;
        Ok(Connected { client, server, _endpoint: endpoint })
    }
}

impl Connected {
    /// A stream from the server to the client.
    pub async fn stream(&self) -> Outcome<(SendStream, RecvStream)> {
        let mut send = self.server.open_uni().await?;
        // A stream exists for the other side once something was sent on it.
        write(&mut send, b"").await?;
        let mut receive = self.client.accept_uni().await?;
        read(&mut receive).await?;
        Ok((send, receive))
    }
}

/// One message: its length and itself.
pub async fn write(stream: &mut SendStream, message: &[u8]) -> Outcome<()> {
    stream.write_all(&u32::try_from(message.len())?.to_le_bytes()).await?;
    Ok(stream.write_all(message).await?)
}

/// The next message; none at the end.
pub async fn read(stream: &mut RecvStream) -> Outcome<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut message = vec![0; usize::try_from(u32::from_le_bytes(length))?];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// One byte to the other side and back.
pub async fn round_trip(send: &mut SendStream, receive: &mut RecvStream) -> Outcome<()> {
    send.write_all(&[1]).await?;
    Ok(receive.read_exact(&mut [0]).await?)
}

/// Sends back what comes on the first stream of a connection, until its end.
pub async fn echo(connection: Connection) -> Outcome<()> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut byte = [0];
    while receive.read_exact(&mut byte).await.is_ok() {
        send.write_all(&byte).await?;
    }
    Ok(())
}

/// Takes any key that signed the handshake.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
