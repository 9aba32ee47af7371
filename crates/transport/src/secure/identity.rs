//! What a relay proves itself by: a key, and a certificate that names its public half.

use std::sync::Arc;

use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::{
    crypto::{ALPN, ALPN_OF_DATAGRAMS, pin_of, provider},
    session::Secure,
};
use relay_protocol::Pin;
use zeroize::Zeroize as _;

/// A relay's key and certificate, ready for handshakes. Clones are the same.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    datagrams: Arc<QuicServerConfig>,
    pin: Pin,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl Identity {
    /// A certificate, those that vouch for it, and its private key, which is wiped where it lay.
    ///
    /// # Errors
    /// There is none, one can't be read, or the key is another's.
    pub fn new(
        certificates: Vec<CertificateDer<'static>>,
        mut key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let signing = any_supported_type(&key);
        key.zeroize();
        let own = certificates.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let pin = pin_of(own)?;
        let certified = CertifiedKey::new(certificates, signing?);
        certified.keys_match()?;
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&TLS13])?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves everything anew: nothing is kept of earlier ones.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // The welcome goes with the relay's proof, and saves a round trip.
        config.send_half_rtt_data = true;
        let mut of_datagrams = config.clone();
        of_datagrams.alpn_protocols = vec![ALPN_OF_DATAGRAMS.to_vec()];
        let datagrams = QuicServerConfig::try_from(of_datagrams);
        let datagrams = Arc::new(datagrams.expect("the provider has the first cipher of QUIC"));
        Ok(Self { config: Arc::new(config), datagrams, pin })
    }

    /// What peers know this relay by.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// What the relay proves itself by in datagrams.
    pub(crate) fn datagrams(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.datagrams)
    }

    /// The relay's end of a new connection.
    ///
    /// # Panics
    /// Not with a configuration that [`Self::new`] made.
    #[must_use]
    pub fn accept(&self) -> Secure {
        let connection = ServerConnection::new(Arc::clone(&self.config));
        Secure::over(connection.expect("the configuration was checked"))
    }
}
