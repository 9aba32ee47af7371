//! The way to a relay: directly, or through the proxy that the user or the environment names.
//!
//! `--proxy` is for all relays but those of `NO_PROXY`. Without it `ALL_PROXY` counts, but not for relays on this
//! machine. Connects to nothing.

use std::env;

use super::{error::ProgramError, proxy_source::ProxySource};
use crate::{
    client::{NoProxy, Proxies, Remote},
    protocol::RelayAddr,
    transport::Transport,
};

/// How programs name the proxy for all that they connect to; the first that is set counts.
const ALL_PROXY: [&str; 2] = ["all_proxy", "ALL_PROXY"];

/// How they name what is reached directly.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A way to a relay.
pub(super) struct Way {
    pub(super) remote: Remote,
    /// What the user should hear of it.
    pub(super) note: Option<String>,
}

impl Way {
    /// To the first of these relays that can be reached, of which there is at least one.
    ///
    /// # Errors
    /// What is to be the proxy is none, or does not fit the transport: wrong usage.
    pub(super) fn to(
        relays: &[RelayAddr],
        proxy: Option<&ProxySource>,
        transport: Transport,
    ) -> Result<Self, ProgramError> {
        let exceptions = NoProxy::of(&variable(NO_PROXY).map_or(String::new(), |(_, text)| text));
        let (proxies, note) = match proxy {
            Some(source) => of_option(source, exceptions, relays, transport)?,
            None => of_environment(exceptions, relays, transport)?,
        };
        let (first, more) = relays.split_first().expect("there is a relay");
        let (first, more) = (first.clone(), more.to_vec());
        let remote = match proxies {
            Some(proxies) => Remote::Through { first, more, proxies },
            None if more.is_empty() => Remote::Named(first),
            None => Remote::AnyOf { first, more },
        };
        Ok(Self { remote, note })
    }
}

type Found = (Option<Proxies>, Option<String>);

fn of_option(
    source: &ProxySource,
    exceptions: NoProxy,
    relays: &[RelayAddr],
    transport: Transport,
) -> Result<Found, ProgramError> {
    let proxy = source.read().map_err(|error| {
        ProgramError::Usage(format!("--proxy (PEER_PROXY) names no proxy: {error}"))
    })?;
    if transport != Transport::Tcp {
        return Err(ProgramError::Usage(format!(
            "--proxy (PEER_PROXY) and --transport {transport} don't go together: a proxy passes streams and no \
             datagrams: leave out one of them"
        )));
    }
    let excepted = relays.iter().find(|relay| exceptions.has(relay));
    let note = excepted.map(|relay| {
        format!("NO_PROXY names the relay at {relay}: it is reached without the proxy {proxy}")
    });
    Ok((Some(Proxies::new(proxy, exceptions)), note))
}

fn of_environment(
    exceptions: NoProxy,
    relays: &[RelayAddr],
    transport: Transport,
) -> Result<Found, ProgramError> {
    let is_direct = |relay: &RelayAddr| exceptions.has(relay) || relay.is_of_this_machine();
    let Some((name, text)) = variable(ALL_PROXY) else { return Ok((None, None)) };
    // What is not needed may be wrong.
    if relays.iter().all(is_direct) {
        return Ok((None, None));
    }
    if transport != Transport::Tcp {
        let note = format!(
            "the proxy of {name} is not used: it passes no datagrams, which --transport {transport} needs"
        );
        return Ok((None, Some(note)));
    }
    let proxy = ProxySource::from(text).read().map_err(|error| {
        ProgramError::Usage(format!(
            "the variable {name} names no proxy that can be used: {error}; or name another with --proxy, or the relay \
             in NO_PROXY to reach it without one"
        ))
    })?;
    Ok((Some(Proxies::new(proxy, exceptions).without_loopback()), None))
}

/// The first of these variables that has a value.
fn variable(names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let value = |name| env::var_os(name).filter(|value| !value.is_empty());
    names.into_iter().find_map(|name| Some((name, value(name)?.to_string_lossy().into_owned())))
}
