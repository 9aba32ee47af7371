//! The user's secret, by which this user's shares are sealed: a file of 64 hexadecimal digits, made once, for its
//! owner alone. One who has it opens every share of this user of which the size and the digest are known.

use std::{io, path::Path};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use crate::{
    protocol::{UserSecret, limits::USER_SECRET_BYTES},
    secret_file,
};

/// Digits that the file holds.
const FILE_DIGITS: usize = 2 * USER_SECRET_BYTES;

/// Name of its file among the program's state.
const FILE_NAME: &str = "secret";

/// What it is, for messages.
const WHAT: &str = "the secret of shares";

/// The option that names another file.
const OPTION: &str = "--secret-file";

/// Reads it from the file that was given or from the usual one, or makes it.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn open(given: Option<&Path>) -> Result<UserSecret, String> {
    let text = secret_file::open(given, FILE_NAME, WHAT, OPTION, &mut make)?;
    parse(&text).ok_or_else(|| {
        let file = given.map_or_else(|| format!("its file {FILE_NAME}"), |path| path.display().to_string());
        format!(
            "{WHAT} can't be read: {file} does not hold {FILE_DIGITS} hexadecimal digits: put back what it held, or remove \
             it, which makes other tickets of all files",
        )
    })
}

/// 32 random bytes as digits, and the end of a line.
fn make() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new([0; USER_SECRET_BYTES]);
    let filled = rustix::rand::getrandom(&mut *secret, rustix::rand::GetRandomFlags::empty())?;
    if filled < secret.len() {
        return Err(io::Error::other("the system has too little randomness"));
    }
    let mut text = Zeroizing::new(vec![b'\n'; FILE_DIGITS + 1]);
    HEXLOWER.encode_mut(&*secret, &mut text[..FILE_DIGITS]);
    Ok(text)
}

fn parse(text: &[u8]) -> Option<UserSecret> {
    let digits = text.trim_ascii();
    if digits.len() != FILE_DIGITS {
        return None;
    }
    let mut bytes = Zeroizing::new([0; USER_SECRET_BYTES]);
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut *bytes).ok()?;
    Some(UserSecret(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let secret = open(Some(&path)).unwrap();
        assert!(open(Some(&path)).unwrap() == secret);
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text.len(), 65);
        assert_eq!(text.last(), Some(&b'\n'));
        assert!(open(Some(&dir.path().join("other"))).unwrap() != secret);
        for wrong in [&text[..63], b"", b"nonsense\n", &[b'g'; 64]] {
            std::fs::write(&path, wrong).unwrap();
            let error = open(Some(&path)).unwrap_err();
            assert!(error.contains("secret"), "{error}");
        }
        std::fs::write(&path, text.to_ascii_uppercase()).unwrap();
        assert!(open(Some(&path)).unwrap() == secret, "in digits of either case");
    }
}
