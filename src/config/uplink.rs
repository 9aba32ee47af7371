//! The options of a relay's uplink.

use std::path::PathBuf;

use anyhow::Context as _;
use relay_program::token_file;
use relay_protocol::{PinnedRelay, Token};

use crate::peer::belief::{Belief, PinSource};

/// Which relay this one gets and gives files at, too.
#[derive(clap::Args, Clone, Debug)]
pub struct UplinkArgs {
    /// Relay at which this one joins the files that it has peers of: what one relay's peers have, the other's get
    #[arg(long, env = "RELAY_UPSTREAM", value_name = "HOST:PORT[#PIN]")]
    pub upstream: Option<PinnedRelay>,

    /// File whose first line is the token that this relay proves to its --upstream
    #[arg(long, env = "RELAY_UPSTREAM_TOKEN_FILE", value_name = "FILE", requires = "upstream")]
    pub upstream_token_file: Option<PathBuf>,
}

/// The relay above.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// As it was named.
    pub relay: PinnedRelay,
    /// What it is known by.
    pub(crate) belief: Belief,
    /// What it may ask for.
    pub(crate) token: Option<Token>,
}

impl UplinkArgs {
    /// Reads what there is to read.
    ///
    /// # Errors
    /// The token, or the relays that were met before, can't be read.
    pub fn open(&self) -> anyhow::Result<Option<Upstream>> {
        let Some(relay) = self.upstream.clone() else { return Ok(None) };
        let token = match &self.upstream_token_file {
            Some(path) => {
                let lines = token_file::read_grants(path).map_err(anyhow::Error::msg);
                let lines = lines.with_context(|| {
                    format!("failed to read --upstream-token-file {}", path.display())
                })?;
                lines.into_iter().next().map(|grant| grant.token)
            }
            None => None,
        };
        let belief = Belief::of(&relay.addr, relay.pin.map(|pin| (pin, PinSource::Option)), None)?;
        Ok(Some(Upstream { relay, belief, token }))
    }
}
