//! The part of a session that asks for a channel in datagrams. Pure, like the rest.

use super::{Session, SessionError, SessionEvent};
use relay_protocol::{Channel, DatagramKeys, DatagramOffer, Message, limits::NONCE_BYTES};

impl Session {
    /// Asks for this channel in datagrams. Before the first message is handled.
    #[must_use]
    pub fn with_datagrams(mut self, channel: Option<Channel>) -> Self {
        self.datagrams = channel;
        self
    }

    /// The channel that runs in datagrams, or is to.
    #[must_use]
    pub fn datagram_channel(&self) -> Option<Channel> {
        self.datagrams
    }

    /// What proves this connection's datagrams.
    #[must_use]
    pub fn datagram_keys(&self, offer: &DatagramOffer) -> DatagramKeys {
        DatagramKeys::derive(&offer.secret, &self.relay_nonce, &self.config.nonce)
    }

    /// Right before the hello.
    pub(super) fn ask_for_datagrams(&mut self, relay_nonce: [u8; NONCE_BYTES]) {
        if let Some(channel) = self.datagrams {
            self.relay_nonce = relay_nonce;
            self.outbox.push(Message::DatagramRequest { channel });
        }
    }

    pub(super) fn handle_offer(&mut self, offer: DatagramOffer) -> Result<(), SessionError> {
        if self.datagrams.is_none() || self.offer.is_some() {
            return Err(self.unexpected("a DatagramOffer that was not asked for"));
        }
        self.offer = Some(offer);
        Ok(())
    }

    /// The relay accepts: what was asked for must have been offered.
    pub(super) fn take_offer(&mut self) -> Result<(), SessionError> {
        if self.datagrams.is_some() {
            let Some(offer) = self.offer.take() else {
                return Err(self.unexpected("Accepted without the DatagramOffer"));
            };
            self.events.push_back(SessionEvent::Datagrams { offer });
        }
        Ok(())
    }
}
