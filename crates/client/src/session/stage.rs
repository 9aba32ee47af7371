//! How far a session is. Pure, like the rest.

/// How far the handshake is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Waits for the relay's preamble.
    Greeting,
    /// Waits for the relay's welcome.
    Challenged,
    /// Waits for the relay's consent.
    Introduced,
    /// Takes part.
    Joined,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Greeting => "waiting for the preamble",
            Self::Challenged => "waiting for the welcome",
            Self::Introduced => "waiting to be accepted",
            Self::Joined => "joined",
        }
    }
}
