//! Which peers the relay takes: what their tokens are good for, and what their hellos ask for.
//!
//! Pure. Whether a swarm is there for a peer that may only get is its home's to say.

use super::effects::Fault;
use relay_protocol::{
    Claims, FailureCode, Grant, Hello, Roles, TokenDemand, auth, limits::BINDING_BYTES,
};

/// Whom a relay takes.
#[derive(Clone, Debug, Default)]
pub struct TokenRules {
    /// What peers may know; empty: all may do all.
    pub tokens: Vec<Grant>,
    /// With tokens: peers without one may get what others publish.
    pub open_get: bool,
}

impl TokenRules {
    /// What a welcome says of it.
    pub(super) fn demand(&self) -> TokenDemand {
        match (self.tokens.is_empty(), self.open_get) {
            (true, _) => TokenDemand::None,
            (false, true) => TokenDemand::ToPublish,
            (false, false) => TokenDemand::Always,
        }
    }

    /// What the peer of this hello may do, which is all that the hello asks for.
    pub(super) fn admit(
        &self,
        binding: &[u8; BINDING_BYTES],
        hello: &Hello,
    ) -> Result<Roles, Fault> {
        if self.tokens.is_empty() {
            return Ok(Roles::BOTH);
        }
        let refused = |text: &str| Err(Fault::new(FailureCode::TokenRefused, "token", text));
        let (has_proof, publishes) = (hello.proof.is_some(), hello.seeding.is_some());
        let roles = match &hello.proof {
            Some(proof) => auth::roles_of(&self.tokens, binding, proof),
            None if self.open_get && hello.key.is_some() => Roles::GET,
            None => Roles::NONE,
        };
        if roles == Roles::NONE {
            return refused(match has_proof {
                true => "this relay does not know the token: check the first line of --token-file",
                false => "this relay wants a token: give one with --token-file",
            });
        }
        if publishes && !roles.may_publish() {
            return refused(match has_proof {
                true => "this token may get files and publish none: ask for one that may publish",
                false => {
                    "this relay wants a token of those who publish: give one with --token-file"
                }
            });
        }
        if !roles.may_get() && hello.key.is_some() && !(publishes && has_everything(hello)) {
            return refused(
                "this token may publish files and get none: ask for one that may get files",
            );
        }
        Ok(roles)
    }
}

/// Whether the peer has all of the file. One without chunks is had by all.
fn has_everything(hello: &Hello) -> bool {
    hello.claims == Claims::Everything || hello.key.is_some_and(|key| key.chunk_count() == 0)
}

#[cfg(test)]
mod tests;
