//! How a peer shows that it knows a token without sending it.
//!
//! Each side contributes a nonce, so an answer that was overheard is of no use on another
//! connection. What follows the handshake is neither encrypted nor bound to it: an attacker who can rewrite
//! the stream can take over an introduced connection. Content is safe all the same, since every
//! chunk is verified; secrecy is the business of a tunnel around the connection.

use std::fmt;

use super::limits::NONCE_BYTES;

/// Separates this use of a token from any other that a deployment may make of it.
const TOKEN_CONTEXT: &str = "psp-relay v1 proof that a peer knows the relay's token";

/// A secret that peers must know. Only a key derived from it is kept, and that is never printed.
#[derive(Clone)]
pub struct Token {
    key: [u8; blake3::KEY_LEN],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// From a line of a token file: white space around it does not count. `None` if nothing is
    /// left.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let secret = line.trim();
        (!secret.is_empty())
            .then(|| Self { key: blake3::derive_key(TOKEN_CONTEXT, secret.as_bytes()) })
    }

    /// What a peer sends: keyed BLAKE3 of the relay's nonce, then its own.
    #[must_use]
    pub fn proof(
        &self,
        relay_nonce: &[u8; NONCE_BYTES],
        peer_nonce: &[u8; NONCE_BYTES],
    ) -> [u8; 32] {
        *self.keyed_hash(relay_nonce, peer_nonce).as_bytes()
    }

    /// Whether the proof was made with this token. Takes equally long wherever it differs.
    #[must_use]
    pub fn verify(
        &self,
        relay_nonce: &[u8; NONCE_BYTES],
        peer_nonce: &[u8; NONCE_BYTES],
        proof: &[u8; 32],
    ) -> bool {
        // Comparison of `blake3::Hash` is constant-time, that of arrays is not.
        self.keyed_hash(relay_nonce, peer_nonce) == blake3::Hash::from_bytes(*proof)
    }

    fn keyed_hash(
        &self,
        relay_nonce: &[u8; NONCE_BYTES],
        peer_nonce: &[u8; NONCE_BYTES],
    ) -> blake3::Hash {
        let mut nonces = [0; 2 * NONCE_BYTES];
        nonces[..NONCE_BYTES].copy_from_slice(relay_nonce);
        nonces[NONCE_BYTES..].copy_from_slice(peer_nonce);
        blake3::keyed_hash(&self.key, &nonces)
    }
}

/// Whether the proof was made with one of the tokens; all are tried, so the time tells not which.
#[must_use]
pub fn verify_any(
    tokens: &[Token],
    relay_nonce: &[u8; NONCE_BYTES],
    peer_nonce: &[u8; NONCE_BYTES],
    proof: &[u8; 32],
) -> bool {
    tokens.iter().fold(false, |found, token| token.verify(relay_nonce, peer_nonce, proof) | found)
}

#[cfg(test)]
mod tests {
    use super::{Token, verify_any};

    const RELAY: [u8; 16] = [1; 16];
    const PEER: [u8; 16] = [2; 16];

    fn token(line: &str) -> Token {
        Token::from_line(line).unwrap()
    }

    #[test]
    fn the_same_token_verifies_its_proof_whatever_white_space_surrounds_it() {
        let proof = token("secret").proof(&RELAY, &PEER);
        assert!(token("  secret\r\n").verify(&RELAY, &PEER, &proof));
        assert!(verify_any(&[token("other"), token("secret")], &RELAY, &PEER, &proof));
    }

    #[test]
    fn another_token_nonce_or_bit_does_not_verify() {
        let proof = token("secret").proof(&RELAY, &PEER);
        assert!(!token("secret2").verify(&RELAY, &PEER, &proof));
        assert!(!token("secret").verify(&PEER, &PEER, &proof));
        assert!(!token("secret").verify(&RELAY, &RELAY, &proof));
        // Whose nonce is whose matters, or a relay could be made to answer its own challenge.
        assert!(!token("secret").verify(&PEER, &RELAY, &proof));
        for bit in 0..256 {
            let mut wrong = proof;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!token("secret").verify(&RELAY, &PEER, &wrong));
        }
        assert!(!verify_any(&[], &RELAY, &PEER, &proof));
    }

    #[test]
    fn an_empty_line_is_no_token_and_nothing_of_one_is_printed() {
        assert!(Token::from_line(" \t\n").is_none());
        let token = token("secret");
        let key = format!("{:?}", token.key);
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert!(!format!("{token:?}").contains(&key));
    }
}
