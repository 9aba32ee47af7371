//! Sealed files from outside: golden keys and ciphertexts, and what OpenSSL makes of the same key.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use relay::protocol::{
    Digest, Manifest, Sealed, UserSecret, digest_file,
    seal::{Cipher, FileKey, ShareSecret},
};

#[path = "../support/tools.rs"]
mod tools;

/// Content that anybody can make again.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * i + i / 7) % 251).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn user() -> UserSecret {
    UserSecret(core::array::from_fn(|i| u8::try_from(i).unwrap()))
}

/// All that is derived from a user's secret and a file of this length, and the ciphertext.
fn vector(len: usize) -> (String, FileKey, Vec<u8>) {
    let mut bytes = content(len);
    let size_bytes = len as u64;
    let plain = digest_file(&bytes);
    let secret = ShareSecret::derive(&user(), plain, size_bytes);
    let key = FileKey::derive(&secret, plain, size_bytes);
    Cipher::new(&key).apply(0, &mut bytes);
    let start = hex(&bytes[..len.min(32)]);
    let line = format!(
        "{len} {plain} {} {} {} {start}\n",
        hex(&secret.0),
        hex(&key.0),
        digest_file(&bytes)
    );
    (line, key, bytes)
}

const LENGTHS: [usize; 6] = [0, 1, 16, 1023, 5000, 300_000];

#[test]
fn keys_and_ciphertexts_are_the_golden_ones() {
    let text: String = LENGTHS.iter().map(|&len| vector(len).0).collect();
    assert_eq!(text, include_str!("../golden/seals.txt"), "is now:\n{text}");
}

#[test]
fn openssl_makes_the_same_ciphertext_and_the_swarms_id_is_its_blake3() {
    let Some(program) = tools::tool(&["openssl"], "openssl") else { return };
    for len in LENGTHS {
        let (_, key, sealed) = vector(len);
        let iv = "0".repeat(32);
        let mut openssl = Command::new(program)
            .args(["enc", "-aes-256-ctr", "-K", &hex(&key.0), "-iv", &iv])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = openssl.stdin.take().unwrap();
        let bytes = content(len);
        // It writes while it reads, and more than a pipe holds.
        let writing = std::thread::scope(|scope| {
            let writer = std::thread::Builder::new();
            let writer = writer.spawn_scoped(scope, move || stdin.write_all(&bytes)).unwrap();
            let output = openssl.wait_with_output().unwrap();
            writer.join().unwrap().unwrap();
            output
        });
        assert!(writing.status.success());
        assert!(writing.stdout == sealed, "{len} bytes");
        let id = Manifest::of(&sealed, 10).unwrap().key().id;
        assert_eq!(id, Digest(*blake3::hash(&writing.stdout).as_bytes()));
    }
}

#[test]
fn two_users_and_two_contents_share_no_key_stream() {
    let (one, two) = (UserSecret([1; 32]), UserSecret([2; 32]));
    let stream = |user: &UserSecret, plain: u8, size_bytes| {
        let mut zeros = [0; 64];
        Sealed::by(user, Digest([plain; 32]), size_bytes).cipher(size_bytes).apply(0, &mut zeros);
        zeros
    };
    let streams =
        [stream(&one, 1, 64), stream(&two, 1, 64), stream(&one, 2, 64), stream(&one, 1, 65)];
    assert_eq!(streams[0], stream(&one, 1, 64));
    for (at, stream) in streams.iter().enumerate() {
        assert!(!streams[..at].contains(stream), "{at}");
    }
}
