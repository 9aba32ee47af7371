//! How fast a peer supplies what it is asked for: by the algorithm of [`relay_protocol::rate`].
//!
//! Holds no bytes: what may not go waits in the send queue, which is short.

use relay_protocol::{
    rate::{Gcra, Rate},
    time::Time,
};

/// The limit of one connection's uploads, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UploadLimit {
    rate: Option<Rate>,
    sent: Gcra,
}

impl UploadLimit {
    /// With nothing sent.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, sent: Gcra::default() }
    }

    /// Whether there is a limit.
    pub(super) fn is_some(&self) -> bool {
        self.rate.is_some()
    }

    /// New file bytes that may be sent now: none, or at least a frame.
    pub(super) fn room_bytes(&self, now: Time) -> u64 {
        self.rate.map_or(u64::MAX, |rate| self.sent.room_bytes(rate, now))
    }

    /// When there is room again.
    pub(super) fn due(&self) -> Time {
        self.sent.next()
    }

    /// So many file bytes are on their way.
    pub(super) fn note_sent(&mut self, now: Time, bytes: u64) {
        if let Some(rate) = self.rate {
            self.sent.charge(rate, now, bytes);
        }
    }
}
