//! Which relay a ticket's file is looked for at: one of the ticket, or the one that the user names.

use std::path::Path;

use super::{
    belief::{Belief, PinSource},
    error::ProgramError,
    proxy_source::ProxySource,
    way::Way,
};
use crate::{
    protocol::{Pin, PinnedRelay, RelayAddr, Ticket, limits::TICKET_RELAYS_MAX},
    transport::Transport,
};

/// The relay, or several of which one will do, and the pin that it must show.
pub(super) struct Destination {
    /// At least one.
    relays: Vec<RelayAddr>,
    pin: Option<(Pin, PinSource)>,
}

impl Destination {
    /// Of a ticket, with the relay that `--relay` names.
    pub(super) fn of(ticket: &Ticket, option: Option<&PinnedRelay>) -> Self {
        let Some(PinnedRelay { addr, pin }) = option else {
            let pin = ticket.pin.map(|pin| (pin, PinSource::Ticket));
            // Without a pin nothing says that the others are the relay that is meant: one of them would be remembered,
            // or vouched for, under the name of the first.
            let count = if pin.is_some() { TICKET_RELAYS_MAX } else { 1 };
            return Self { relays: ticket.relays().take(count).cloned().collect(), pin };
        };
        let is_of_ticket = ticket.relays().any(|relay| relay == addr);
        // A relay may be reached by another name than the ticket's, so the ticket's pin holds until the user says
        // that another relay is meant.
        let source = if is_of_ticket { PinSource::Ticket } else { PinSource::TicketOfOther };
        let of_option = pin.map(|pin| (pin, PinSource::Option));
        let pin = of_option.or_else(|| ticket.pin.map(|pin| (pin, source)));
        Self { relays: vec![addr.clone()], pin }
    }

    /// Which relay is believed to be it.
    ///
    /// # Errors
    /// As [`Belief::of`].
    pub(super) fn belief(&self, tls_ca: Option<&Path>) -> Result<Belief, ProgramError> {
        Belief::of(&self.relays[0], self.pin, tls_ca)
    }

    /// The way there.
    ///
    /// # Errors
    /// As [`Way::to`].
    pub(super) fn way(
        &self,
        proxy: Option<&ProxySource>,
        transport: Transport,
    ) -> Result<Way, ProgramError> {
        Way::to(&self.relays, proxy, transport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Manifest;

    #[test]
    fn the_pin_is_the_options_or_else_the_tickets() {
        let key = *Manifest::of(b"file", 10).unwrap().key();
        let ticket = Ticket::new("relay:1".parse().unwrap(), key, "name").unwrap();
        let (ours, other) = (Pin::of_public_key(b"ours"), Pin::of_public_key(b"other"));
        let pinned = ticket.clone().with_pin(Some(ours));
        let pin = |ticket: &Ticket, option: &str| {
            Destination::of(ticket, Some(&option.parse().unwrap())).pin
        };
        assert_eq!(Destination::of(&pinned, None).pin, Some((ours, PinSource::Ticket)));
        assert_eq!(pin(&pinned, "relay:1"), Some((ours, PinSource::Ticket)));
        assert_eq!(pin(&pinned, "relay:2"), Some((ours, PinSource::TicketOfOther)));
        let given = format!("relay:2#{other}");
        assert_eq!(pin(&pinned, &given), Some((other, PinSource::Option)));
        assert_eq!(pin(&ticket, &given), Some((other, PinSource::Option)));
        assert_eq!(pin(&ticket, "relay:2"), None);
        let more = vec!["other:1".parse().unwrap()];
        let several = |ticket: Ticket| ticket.with_more_relays(more.clone()).unwrap();
        assert_eq!(Destination::of(&several(pinned), None).relays.len(), 2);
        assert_eq!(Destination::of(&several(ticket.clone()), None).relays.len(), 1);
        let usual = Destination::of(&ticket, Some(&"relay".parse().unwrap()));
        assert_eq!(usual.relays, ["relay:7440".parse().unwrap()]);
    }
}
