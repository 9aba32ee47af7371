//! Which channel runs on what, where its datagrams go, and how control messages may overtake one another.
//!
//! Decides nothing else: the lanes themselves are the transports' business.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use relay_protocol::{Channel, Message};

/// A pairing of channels with what carries them, as `--transport` names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Transport {
    /// Both channels on one TCP connection.
    #[default]
    Tcp,
    /// Control in datagrams, data on the stream.
    UdpControl,
    /// Control on the stream, data in datagrams.
    UdpData,
    /// Both in datagrams.
    Quic,
}

/// A name that no transport has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no transport '{0}': choose one of {names}", names = Transport::names())]
pub struct UnknownTransport(String);

impl Transport {
    /// All that this build has.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::UdpControl, Self::UdpData, Self::Quic];

    /// As users, metrics and reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::UdpControl => "udp-control",
            Self::UdpData => "udp-data",
            Self::Quic => "quic",
        }
    }

    /// Which channels run in datagrams, if any does.
    #[must_use]
    pub fn in_datagrams(self) -> Option<Channel> {
        match self {
            Self::Tcp => None,
            Self::UdpControl => Some(Channel::Control),
            Self::UdpData => Some(Channel::Data),
            Self::Quic => Some(Channel::Both),
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        let found = Self::ALL.into_iter().find(|transport| transport.name() == text);
        found.ok_or_else(|| UnknownTransport(text.to_owned()))
    }
}

/// Where a datagram comes from or goes to, as one side sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Which of this side's sockets.
    pub socket: u8,
    /// The other side's address.
    pub remote: SocketAddr,
    /// This side's own address, where the socket has several: answers must come from the one that
    /// was asked.
    pub local: Option<IpAddr>,
}

/// How a control message may be overtaken. On a stream all are in order, which is within what
/// every lane promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// After all that were pushed to this lane before, exactly once.
    InOrder,
    /// As soon as it comes, exactly once.
    Prompt,
    /// The newest counts: an older one need not come, nor come before.
    Latest,
}

impl Lane {
    /// The lane of a message.
    ///
    /// What must not wait is what a fetch is made of, and what stands for itself. All that speaks
    /// of what a peer has or lacks is in order: a `Have` that overtook the `Lacking` before it would
    /// be undone by it.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Fetch { .. }
            | Message::FetchRefused { .. }
            | Message::Ping { .. }
            | Message::Pong { .. } => Self::Prompt,
            Message::Progress { .. } => Self::Latest,
            _ => Self::InOrder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_known_by_their_names_and_others_are_refused_with_a_list() {
        for transport in Transport::ALL {
            assert_eq!(transport.name().parse(), Ok(transport));
        }
        let error = "pigeon".parse::<Transport>().unwrap_err().to_string();
        assert!(error.contains("pigeon") && error.contains("udp-control"), "{error}");
    }
}
