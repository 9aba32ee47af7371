//! What both sides of a session have in common: ciphers, the protocol's name, and how a key becomes a pin.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, pki_types::CertificateDer, server::ParsedCertificate};

use relay_protocol::Pin;

/// What both sides agree to speak inside of TLS (RFC 7301): a relay's key that also serves another protocol
/// can't be talked into this one, nor the other way round.
pub(super) const ALPN: &[u8] = b"psp-relay/2";

/// The same, inside of QUIC.
pub(super) const ALPN_OF_DATAGRAMS: &[u8] = b"psp-relay-datagrams/3";

/// The ciphers and key exchanges of both sides.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::{cipher_suite, default_provider};
    // Of the two with AES the shorter key is the faster; without hardware for AES, ChaCha20 is.
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
}

/// The pin of a certificate's public key.
///
/// # Errors
/// It can't be read.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Pin::of_public_key(&parsed.subject_public_key_info()))
}
