//! What a relay is known by: a private key, and the certificate that it shows.
//!
//! Without a certificate of an authority the relay makes its key once, keeps it in a file, and signs a certificate for
//! it anew at each start. Peers know the relay by the pin of the key, so nothing in that certificate matters to them,
//! and it never runs out. Opens no connection.

use std::{io, path::Path};

use data_encoding::BASE64;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber, date_time_ymd};
use relay_program::{certificates, secret_file};
use relay_transport::Identity;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use zeroize::{Zeroize as _, Zeroizing};

/// Name of the file that holds the key.
const NAME: &str = "identity";

/// What it holds, for messages.
const WHAT: &str = "the relay's key";

/// Characters of a line of PEM (RFC 7468).
const PEM_LINE_CHARS: usize = 64;

/// Certificates of a chain, at most: authorities use three or four.
const CHAIN_MAX: usize = 16;

/// What its option is called.
const OPTION: &str = "--identity-file";

/// The key in this file, or in the user's directory of state, made now if there is none; with a certificate of its
/// own.
///
/// # Errors
/// A sentence for the user: see [`secret_file::open`]; the file holds something else than a private key.
pub fn open(given: Option<&Path>) -> Result<Identity, String> {
    let pem = secret_file::open(given, NAME, WHAT, OPTION, &mut make_key)?;
    of_key(given, &pem)
}

/// What [`open`] would find, without making anything: `None` if it would make a key.
///
/// # Errors
/// As [`open`].
pub fn look(given: Option<&Path>) -> Result<Option<Identity>, String> {
    let pem = secret_file::look(given, NAME, WHAT, OPTION)?;
    pem.map(|pem| of_key(given, &pem)).transpose()
}

/// A key that ends with this process, kept in no file.
///
/// # Errors
/// A sentence for the user: the system has no randomness.
pub fn ephemeral() -> Result<Identity, String> {
    let pem = make_key().map_err(|error| format!("failed to make {WHAT}: {error}"))?;
    of_key(None, &pem)
}

/// A certificate of an authority with its chain, and its key: files in PEM.
///
/// # Errors
/// A sentence for the user: a file can't be read or holds something else, or the key is another certificate's.
pub fn of_authority(certificates: &Path, key: &Path) -> Result<Identity, String> {
    let chain = read_chain(certificates)
        .map_err(|why| format!("failed to read --tls-cert {}: {why}", certificates.display()))?;
    let pem = secret_file::look(Some(key), NAME, "the certificate's key", "--tls-key")?
        .ok_or_else(|| {
            format!("failed to read --tls-key {}: there is no such file", key.display())
        })?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        format!("--tls-key {} holds no private key in PEM: {error}", key.display())
    })?;
    Identity::new(chain, private).map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key is not that of the first certificate".to_owned()
            }
            other => other.to_string(),
        };
        format!(
            "--tls-cert {} and --tls-key {} can't be used together: {why}",
            certificates.display(),
            key.display()
        )
    })
}

/// A private key in PEM, with a certificate of its own.
fn of_key(given: Option<&Path>, pem: &[u8]) -> Result<Identity, String> {
    let key = PrivateKeyDer::from_pem_slice(pem);
    let pair = key.map_err(|error| error.to_string()).and_then(|key| {
        let pair = KeyPair::try_from(&key).map_err(|error| error.to_string())?;
        Ok((key, pair))
    });
    let (key, mut pair) = pair.map_err(|error| {
        let place = match given {
            Some(path) => path.display().to_string(),
            None => format!("the file {NAME} of this user's state"),
        };
        format!(
            "{place} does not hold {WHAT}: {error}: it should be a private key in PEM (PKCS#8, Ed25519 or ECDSA); \
             remove it, so that it is made anew, or give {OPTION} another file"
        )
    })?;
    let unusable = |error: &dyn std::fmt::Display| format!("{WHAT} can't be used: {error}");
    let certificate = certificate(&pair);
    pair.zeroize();
    let certificate = certificate.map_err(|error| unusable(&error))?;
    Identity::new(vec![certificate], key).map_err(|error| unusable(&error))
}

/// A new key in PEM. Ed25519: it signs without drawing a random number, and its handshakes are the smallest.
fn make_key() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
    let der = Zeroizing::new(pair.serialize_der());
    pair.zeroize();
    let base64 = Zeroizing::new(BASE64.encode(&der));
    // Of full size from the start: a vector that grows leaves copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(2 * base64.len() + 128));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    for line in base64.as_bytes().chunks(PEM_LINE_CHARS) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    Ok(pem)
}

/// A certificate that a key signs for itself. Nothing in it depends on when or where it is made.
fn certificate(pair: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["relay".to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "relay");
    params.serial_number = Some(SerialNumber::from(1_u64));
    params.not_before = date_time_ymd(2020, 1, 1);
    // RFC 5280's way to say that it has no end.
    params.not_after = date_time_ymd(9999, 12, 31);
    Ok(params.self_signed(pair)?.der().clone())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = certificates::read(path)?;
    match chain.len() {
        ..=CHAIN_MAX => Ok(chain),
        count => Err(format!("it holds {count} certificates, and a chain has at most {CHAIN_MAX}")),
    }
}

#[cfg(test)]
mod tests;
