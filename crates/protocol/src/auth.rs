//! How a peer shows that it knows a token without sending it.
//!
//! What it sends is made of the token and of what binds it to the TLS session of this connection. An answer that
//! was overheard, or that an impostor passes on, is of no use in another session.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::BINDING_BYTES;

/// What stands before a token that may only publish.
const PUBLISH_PREFIX: &str = "publish:";

/// What stands before a token that may only get.
const GET_PREFIX: &str = "get:";

/// Separates this use of a token from any other that a deployment may make of it.
const TOKEN_CONTEXT: &str = "psp-relay v2 proof that a peer knows the relay's token";

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

    /// What a peer sends: keyed BLAKE3 of what binds it to the TLS session.
    #[must_use]
    pub fn proof(&self, binding: &[u8; BINDING_BYTES]) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, binding).as_bytes()
    }

    /// Whether the proof was made with this token. Takes equally long wherever it differs.
    #[must_use]
    pub fn verify(&self, binding: &[u8; BINDING_BYTES], proof: &[u8; 32]) -> bool {
        // Comparison of `blake3::Hash` is constant-time, that of arrays is not.
        blake3::keyed_hash(&self.key, binding) == blake3::Hash::from_bytes(*proof)
    }
}

/// What a peer may do at a relay that asks for tokens: publish files, get them, both, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roles(u8);

impl Roles {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Begin a swarm, as a peer that has the whole file.
    pub const PUBLISH: Self = Self(1);
    /// Take part in a swarm that a peer with [`Self::PUBLISH`] began.
    pub const GET: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// The roles that a line of a token file gives, and the rest of the line, trimmed: its token, which may be
    /// empty. A line is `TOKEN`, `publish:TOKEN` or `get:TOKEN`.
    #[must_use]
    pub fn of_line(line: &str) -> (Self, &str) {
        let line = line.trim();
        let restricted = [(PUBLISH_PREFIX, Self::PUBLISH), (GET_PREFIX, Self::GET)];
        let found = restricted.into_iter().find_map(|(prefix, roles)| {
            line.strip_prefix(prefix).map(|token| (roles, token.trim_start()))
        });
        found.unwrap_or((Self::BOTH, line))
    }

    /// Whether it may publish.
    #[must_use]
    pub fn may_publish(self) -> bool {
        self.0 & Self::PUBLISH.0 != 0
    }

    /// Whether it may get what others publish.
    #[must_use]
    pub fn may_get(self) -> bool {
        self.0 & Self::GET.0 != 0
    }

    /// All that either may.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which peers must prove that they know a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TokenDemand {
    /// None.
    #[default]
    None,
    /// Those that publish a file (their hello states a seeding), and those that ask for statistics.
    ToPublish,
    /// All.
    Always,
}

/// A token, and what those who know it may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The token.
    pub token: Token,
    /// What it is good for.
    pub roles: Roles,
}

impl Grant {
    /// From a line of a token file, as [`Roles::of_line`] reads it. `None` if it has no token.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let (roles, token) = Roles::of_line(line);
        Some(Self { token: Token::from_line(token)?, roles })
    }
}

/// What the proof's token is good for: nothing if it was made with none of them. Of a token that was granted
/// several times, all that it was granted. All are tried, so the time tells not which it was.
#[must_use]
pub fn roles_of(grants: &[Grant], binding: &[u8; BINDING_BYTES], proof: &[u8; 32]) -> Roles {
    let granted = |grant: &Grant| {
        let is_known = grant.token.verify(binding, proof);
        Roles(grant.roles.0 * u8::from(is_known))
    };
    grants.iter().map(granted).fold(Roles::NONE, Roles::union)
}

#[cfg(test)]
mod tests {
    use super::{Grant, Roles, Token, roles_of};

    const SESSION: [u8; 32] = [1; 32];

    fn token(line: &str) -> Token {
        Token::from_line(line).unwrap()
    }

    fn grants(lines: &[&str]) -> Vec<Grant> {
        lines.iter().map(|line| Grant::from_line(line).unwrap()).collect()
    }

    #[test]
    fn the_same_token_verifies_its_proof_whatever_white_space_surrounds_it() {
        let proof = token("secret").proof(&SESSION);
        assert!(token("  secret\r\n").verify(&SESSION, &proof));
        let known = grants(&["other", "secret"]);
        assert_eq!(roles_of(&known, &SESSION, &proof), Roles::BOTH);
    }

    #[test]
    fn another_token_session_or_bit_does_not_verify() {
        let proof = token("secret").proof(&SESSION);
        assert!(!token("secret2").verify(&SESSION, &proof));
        assert!(!token("secret").verify(&[2; 32], &proof));
        for bit in 0..256 {
            let mut wrong = proof;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!token("secret").verify(&SESSION, &wrong));
        }
        for known in [&grants(&[])[..], &grants(&["other", "publish:third"])] {
            assert_eq!(roles_of(known, &SESSION, &proof), Roles::NONE);
        }
    }

    #[test]
    fn a_line_may_say_what_its_token_is_good_for() {
        for (line, roles, rest) in [
            ("secret", Roles::BOTH, "secret"),
            (" publish:secret\r\n", Roles::PUBLISH, "secret"),
            ("get: secret ", Roles::GET, "secret"),
            ("get:publish:secret", Roles::GET, "publish:secret"),
            // These words and no others, and only before the token.
            ("Get:secret", Roles::BOTH, "Get:secret"),
            ("get :secret", Roles::BOTH, "get :secret"),
            ("secret get:", Roles::BOTH, "secret get:"),
            ("get", Roles::BOTH, "get"),
            ("get:", Roles::GET, ""),
        ] {
            assert_eq!(Roles::of_line(line), (roles, rest), "{line}");
        }
        assert!(Grant::from_line("publish: ").is_none());
        assert!(Roles::BOTH.may_publish() && Roles::BOTH.may_get());
        assert!(Roles::PUBLISH.may_publish() && !Roles::PUBLISH.may_get());
        assert!(!Roles::GET.may_publish() && Roles::GET.may_get());
        assert!(!Roles::NONE.may_publish() && !Roles::NONE.may_get());
    }

    #[test]
    fn a_proof_yields_all_that_its_token_was_granted() {
        let known = grants(&["get:a", "publish:b", "publish:a", "c", "get:d", "get:d"]);
        for (secret, roles) in [
            ("a", Roles::BOTH),
            ("b", Roles::PUBLISH),
            ("c", Roles::BOTH),
            ("d", Roles::GET),
            // The words are no part of the token.
            ("get:d", Roles::NONE),
        ] {
            let proof = token(secret).proof(&SESSION);
            assert_eq!(roles_of(&known, &SESSION, &proof), roles, "{secret}");
        }
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
