//! Tests of the relay's identity: it stays, two first starts agree, and what is wrong with a file is said.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Barrier};

use super::*;
use relay_protocol::Pin;

/// First starts at once.
const MANY: usize = 8;

fn stage() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory is made");
    let path = home.path().join("relay/identity");
    (home, path)
}

/// A file that its owner alone may read.
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("it is written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn pem_of(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let base64 = BASE64.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n").into_bytes()
}

#[test]
fn an_identity_stays_the_same_and_is_never_printed() {
    let (_home, path) = stage();
    let first = open(Some(&path)).expect("it is made");
    let again = open(Some(&path)).expect("it is read");
    assert_eq!(first.pin(), again.pin());
    let found = look(Some(&path)).expect("it is read").expect("it is there");
    assert_eq!(found.pin(), first.pin());
    assert_eq!(format!("{first:?}"), format!("Identity {{ pin: {:?}, .. }}", first.pin()));
    let (_home, path) = stage();
    assert!(look(Some(&path)).is_ok_and(|found| found.is_none()));
    assert!(!path.exists(), "a look makes nothing");
    let other = open(Some(&path)).expect("it is made");
    assert_ne!(first.pin(), other.pin());
    assert_ne!(ephemeral().expect("it is made").pin(), ephemeral().expect("it is made").pin());
}

/// The certificate that an identity in a file shows.
fn certificate_of(path: &Path) -> CertificateDer<'static> {
    let pem = std::fs::read(path).expect("it is there");
    let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
    let pair = KeyPair::try_from(&key).expect("of a kind that is known");
    certificate(&pair).expect("it is signed")
}

#[test]
fn the_pin_is_of_the_key_as_the_certificate_has_it_and_nothing_depends_on_the_time() {
    let (_home, path) = stage();
    let identity = open(Some(&path)).expect("it is made");
    // An Ed25519 key in a certificate: a fixed header and 32 bytes (RFC 8410).
    let header = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let certificate = certificate_of(&path);
    assert_eq!(certificate, certificate_of(&path));
    let at = certificate.windows(header.len()).position(|window| window == header);
    let at = at.expect("the certificate has the key");
    assert_eq!(identity.pin(), Pin::of_public_key(&certificate[at..at + header.len() + 32]));
}

#[test]
fn first_starts_at_once_agree() {
    let (_home, path) = stage();
    let together = Barrier::new(MANY);
    let open = || {
        together.wait();
        open(Some(&path)).expect("it is made").pin()
    };
    let pins: Vec<Pin> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(pins.windows(2).all(|pair| pair[0] == pair[1]), "{pins:?}");
}

#[test]
fn a_file_that_holds_something_else_or_that_others_may_read_is_refused() {
    let home = tempfile::tempdir().expect("a directory is made");
    let path = home.path().join("identity");
    let (_other_home, other) = stage();
    open(Some(&other)).expect("it is made");
    let certificate = pem_of(&certificate_of(&other));
    let broken = b"-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----\n";
    for wrong in [&b"hush"[..], &certificate, broken] {
        write(&path, wrong);
        let error = open(Some(&path)).expect_err("it holds no key");
        for what in ["--identity-file", "private key", &path.display().to_string()] {
            assert!(error.contains(what), "{what} in: {error}");
        }
        assert!(!error.contains("hush") && !error.contains("aHVz"), "{error}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let error = open(Some(&path)).expect_err("others may read it");
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn a_certificate_goes_with_its_own_key_only() {
    let (home, first) = stage();
    let second = home.path().join("second");
    let one = open(Some(&first)).expect("it is made");
    open(Some(&second)).expect("it is made");
    let chain = home.path().join("chain.pem");
    write(&chain, &[pem_of(&certificate_of(&first)), pem_of(&certificate_of(&second))].concat());
    let found = of_authority(&chain, &first).expect("they belong together");
    assert_eq!(found.pin(), one.pin());
    let error = of_authority(&chain, &second).expect_err("it is the other's");
    for what in ["--tls-cert", "--tls-key", "not that of the first certificate"] {
        assert!(error.contains(what), "{what} in: {error}");
    }
    let error = of_authority(&first, &first).expect_err("it holds no certificate");
    assert!(error.contains("--tls-cert") && error.contains("no certificate"), "{error}");
    write(&chain, &[&b"-----BEGIN CERTIFICATE-----\n?\n"[..]].concat());
    assert!(of_authority(&chain, &first).is_err_and(|error| error.contains("PEM")));
    let error = of_authority(&second, &home.path().join("none")).expect_err("neither");
    assert!(error.contains("--tls-cert"), "{error}");
    write(&chain, &pem_of(&certificate_of(&first)));
    let missing = home.path().join("missing");
    let error = of_authority(&chain, &missing).expect_err("there is no key");
    assert!(error.contains("no such file"), "{error}");
    assert!(!missing.exists(), "a key of an authority is never made here");
}
