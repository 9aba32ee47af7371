//! Relays' keys for tests: made up once in a process, and of no use elsewhere.

use std::sync::OnceLock;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::secure::Identity;

/// The relay's.
#[must_use]
pub fn relay_identity() -> Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(other_identity).clone()
}

/// A new one each time, as an impostor has.
///
/// # Panics
/// Without randomness.
#[must_use]
pub fn other_identity() -> Identity {
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = CertificateParams::default().self_signed(&key).expect("it can be signed");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Identity::new(vec![certificate.der().clone()], key).expect("they belong together")
}
