//! Which relay a peer believes: the one with the key that a ticket names, the one that answered first, or one that
//! an authority vouches for.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use quinn_proto::crypto::rustls::QuicClientConfig;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};

use super::{
    crypto::{ALPN, ALPN_OF_DATAGRAMS, pin_of, provider},
    session::{Secure, WrongPin},
};
use relay_protocol::Pin;

/// Certificates of the authorities that may vouch for a relay.
#[derive(Clone)]
pub enum Authorities {
    /// These.
    These(Arc<RootCertStore>),
    /// The system's, which are read when a relay first shows a certificate of an authority.
    System(fn() -> RootCertStore),
}

/// Whom a peer believes. Clones are the same: what one has seen counts for all.
#[derive(Clone)]
pub struct Trust {
    config: ClientConfig,
    belief: Arc<Belief>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("pin", &self.pin()).finish_non_exhaustive()
    }
}

impl Trust {
    /// The relay with this pin, and no other.
    #[must_use]
    pub fn pinned(pin: Pin) -> Self {
        Self::new(Some(pin), None, false)
    }

    /// The relay that answers first, and from then on no other.
    #[must_use]
    pub fn first_seen() -> Self {
        Self::new(None, None, true)
    }

    /// A relay that one of these authorities vouches for, or the one with this pin.
    #[must_use]
    pub fn of_authorities(authorities: RootCertStore, pin: Option<Pin>) -> Self {
        Self::new(pin, Some(Authorities::These(Arc::new(authorities))), false)
    }

    /// A relay with the pin that was seen before, if there is one, or that an authority of the system vouches
    /// for; if none was seen before, the one that answers first.
    #[must_use]
    pub fn remembered(pin: Option<Pin>, system: fn() -> RootCertStore) -> Self {
        Self::new(pin, Some(Authorities::System(system)), pin.is_none())
    }

    fn new(pin: Option<Pin>, authorities: Option<Authorities>, takes_first: bool) -> Self {
        let provider = provider();
        let belief = Arc::new(Belief {
            seen: pin.map_or_else(OnceLock::new, OnceLock::from),
            takes_first,
            shown: OnceLock::new(),
            is_vouched_for: AtomicBool::new(false),
            authorities,
            of_authorities: OnceLock::new(),
            provider: Arc::clone(&provider),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3");
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::of(&belief)))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        // Its address says which relay is meant; the path need not read its name.
        config.enable_sni = false;
        Self { config, belief }
    }

    /// The pin that the relay proved first; before it did, the one that is expected.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        let Belief { shown, seen, .. } = &*self.belief;
        shown.get().or(seen.get()).copied()
    }

    /// What a client of its own is made of, for tests of hostile ones.
    #[cfg(any(test, feature = "exercise"))]
    pub(crate) fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Whether an authority has vouched for the relay: then its key may be another next time.
    #[must_use]
    pub fn is_vouched_for(&self) -> bool {
        self.belief.is_vouched_for.load(Ordering::Relaxed)
    }

    /// The peer's end of a new connection to the relay at this host: a name, or an address.
    ///
    /// # Panics
    /// Not with a configuration of this module.
    #[must_use]
    pub fn connect(&self, host: &str) -> Secure {
        let connection = ClientConnection::new(Arc::new(self.of_one()), name_of(host));
        Secure::over(connection.expect("the configuration was checked"))
    }

    /// How the relay at this host is believed in datagrams, and its name as the library wants it.
    pub(crate) fn datagrams(&self, host: &str) -> (QuicClientConfig, String) {
        let mut config = self.of_one();
        config.alpn_protocols = vec![ALPN_OF_DATAGRAMS.to_vec()];
        let config = QuicClientConfig::try_from(config);
        let name = name_of(host).to_str().into_owned();
        (config.expect("the provider has the first cipher of QUIC"), name)
    }

    /// Each connection proves itself, so each has a verifier of its own.
    fn of_one(&self) -> ClientConfig {
        let mut config = self.config.clone();
        config.dangerous().set_certificate_verifier(Arc::new(Verifier::of(&self.belief)));
        config
    }
}

/// The relay's name, which counts only where an authority vouches for it.
fn name_of(host: &str) -> ServerName<'static> {
    let nameless = || ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| nameless())
}

/// What is believed, and what was proved so far.
struct Belief {
    /// The pin that is expected; proved first, if it was not known before.
    seen: OnceLock<Pin>,
    /// The relay that answers first is believed.
    takes_first: bool,
    /// The pin that was proved first.
    shown: OnceLock<Pin>,
    is_vouched_for: AtomicBool,
    authorities: Option<Authorities>,
    /// Made when it is first needed.
    of_authorities: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    provider: Arc<CryptoProvider>,
}

impl Belief {
    /// Checks by what authorities say; `None` if there are none.
    fn of_authorities(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        let make = || {
            let roots = match self.authorities.as_ref()? {
                Authorities::These(roots) => Arc::clone(roots),
                Authorities::System(read) => Arc::new(read()),
            };
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()
        };
        self.of_authorities.get_or_init(make).as_ref()
    }

    /// A relay has proved that it has the key with this pin.
    fn handle_proved(&self, found: Pin, is_vouched_for: bool) -> Result<(), WrongPin> {
        let expected = *self.seen.get_or_init(|| found);
        if expected != found && !is_vouched_for {
            // Another connection was first meanwhile.
            return Err(WrongPin { expected, found });
        }
        self.is_vouched_for.fetch_or(is_vouched_for, Ordering::Relaxed);
        self.shown.get_or_init(|| found);
        Ok(())
    }
}

/// Decides whether the certificate of one connection is the relay's.
struct Verifier {
    belief: Arc<Belief>,
    /// Whether an authority vouches for it, once that was looked at.
    is_vouched_for: AtomicBool,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("seen", &self.belief.seen).finish_non_exhaustive()
    }
}

impl Verifier {
    fn of(belief: &Arc<Belief>) -> Self {
        Self { belief: Arc::clone(belief), is_vouched_for: AtomicBool::new(false) }
    }
}

fn wrong_pin(wrong: WrongPin) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(wrong))).into()
}

impl ServerCertVerifier for Verifier {
    /// Looks at what is shown. That the relay has the key is proved by its signature, which comes after.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (belief, found) = (&self.belief, pin_of(end_entity)?);
        let expected = belief.seen.get().copied();
        if expected == Some(found) {
            return Ok(ServerCertVerified::assertion());
        }
        let vouched = belief.of_authorities().map(|verifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        });
        match (vouched, expected) {
            (Some(Ok(verified)), _) => {
                self.is_vouched_for.store(true, Ordering::Relaxed);
                Ok(verified)
            }
            (_, None) if belief.takes_first => Ok(ServerCertVerified::assertion()),
            (Some(Err(error)), None) => Err(error),
            (_, expected) => {
                Err(wrong_pin(WrongPin { expected: expected.unwrap_or(found), found }))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.belief.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, certificate, signed, algorithms)?;
        let is_vouched_for = self.is_vouched_for.load(Ordering::Relaxed);
        self.belief.handle_proved(pin_of(certificate)?, is_vouched_for).map_err(wrong_pin)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.belief.provider.signature_verification_algorithms.supported_schemes()
    }
}
