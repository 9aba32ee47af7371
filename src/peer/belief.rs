//! Which relay a command believes to be the one that is meant, and what the user hears if another one answers.
//!
//! A pin decides: given with `--relay`, or of the ticket. Without one the relay is known from an earlier meeting, or
//! is met for the first time and remembered; the system's authorities may vouch for another key of it. With `--tls-ca`
//! those authorities say which relay it is, or the ticket's pin does, and none is remembered.

use std::path::Path;

use rustls::RootCertStore;

use super::error::ProgramError;
use crate::{
    certificates,
    client::{ConnectionError, SessionError},
    known_relays::{KnownRelays, Meeting},
    protocol::{Pin, RelayAddr},
    transport::{SecureError, Trust},
};

/// Where a pin comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinSource {
    /// The ticket.
    Ticket,
    /// The ticket, which names another relay than `--relay` does.
    TicketOfOther,
    /// `--relay HOST:PORT#PIN`.
    Option,
}

/// Which relay a command believes. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    trust: Trust,
    relay: RelayAddr,
    ground: Ground,
}

/// Why it is believed.
#[derive(Clone, Debug)]
enum Ground {
    Pin(PinSource),
    /// `--tls-ca`.
    Authorities,
    /// Earlier meetings, or the system's authorities.
    Meetings(KnownRelays),
}

impl Belief {
    /// The belief in the relay at an address, with the pin that is known of it, and `--tls-ca`.
    ///
    /// # Errors
    /// The authorities or the known relays can't be read.
    pub(crate) fn of(
        relay: &RelayAddr,
        pin: Option<(Pin, PinSource)>,
        tls_ca: Option<&Path>,
    ) -> Result<Self, ProgramError> {
        let (trust, ground) = match (tls_ca, pin) {
            (_, Some((pin, PinSource::Option))) => {
                (Trust::pinned(pin), Ground::Pin(PinSource::Option))
            }
            (Some(path), pin) => {
                let pin = pin.map(|(pin, _)| pin);
                (Trust::of_authorities(read_authorities(path)?, pin), Ground::Authorities)
            }
            (None, Some((pin, source))) => (Trust::pinned(pin), Ground::Pin(source)),
            (None, None) => {
                let known = KnownRelays::of_this_user();
                let pin = known.look(relay).map_err(ProgramError::Job)?;
                (Trust::remembered(pin, system_authorities), Ground::Meetings(known))
            }
        };
        Ok(Self { trust, relay: relay.clone(), ground })
    }

    /// For connections.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The pin that the relay proved, or that is expected of it.
    pub(crate) fn pin(&self) -> Option<Pin> {
        self.trust.pin()
    }

    /// Remembers the relay, which has proved itself by now. May block. Returns what the user should hear.
    ///
    /// # Errors
    /// Another pin of it has been remembered meanwhile, or the known relays can't be read.
    pub(crate) fn remember(&self) -> Result<Option<String>, String> {
        let Ground::Meetings(known) = &self.ground else { return Ok(None) };
        let Some(pin) = self.pin() else { return Ok(None) };
        let met = known.meet(&self.relay, pin);
        if met.is_err() && self.trust.is_vouched_for() {
            // An authority says that it is the same relay: the key that is remembered stays believed beside that.
            return Ok(None);
        }
        Ok(match met? {
            Meeting::Known => None,
            Meeting::Remembered => Some(format!(
                "met the relay at {} for the first time: its pin is {pin}",
                self.relay
            )),
            Meeting::NotRemembered(warning) => Some(warning),
        })
    }

    /// What an error means where it is about which relay answers.
    pub(crate) fn explain(&self, error: &ConnectionError) -> Option<String> {
        let ConnectionError::Session { error: SessionError::Secure(error), .. } = error else {
            return None;
        };
        let relay = &self.relay;
        match error {
            SecureError::WrongPin(wrong) => {
                let (expected, found) = (wrong.expected, wrong.found);
                Some(match &self.ground {
                    // The impostor's pin must not be remembered: this only looks.
                    Ground::Meetings(known) => match known.judge(relay, found) {
                        Ok(Some(changed)) | Err(changed) => changed,
                        // It was first met by this command.
                        Ok(None) => format!(
                            "the relay at {relay} showed the pin {expected}, and now shows {found}: an \
                                          impostor answers, or it has a new key: ask the relay's operator"
                        ),
                    },
                    Ground::Pin(PinSource::Option) => format!(
                        "the relay at {relay} shows the pin {found}, and --relay names {expected}: an impostor answers, \
                         or it has a new key: ask the relay's operator for the pin that `relay` prints at its start"
                    ),
                    Ground::Pin(PinSource::TicketOfOther) => format!(
                        "the relay at {relay} (--relay, PEER_RELAY) shows the pin {found}, and the ticket, which names \
                         another relay, {expected}: if you mean this relay, give its pin as well, which its operator \
                         knows: --relay {relay}#PIN; if not, leave --relay out"
                    ),
                    Ground::Pin(PinSource::Ticket) | Ground::Authorities => format!(
                        "the relay at {relay} shows the pin {found}, and the ticket names {expected}: an impostor \
                         answers, or it has a new key: ask for a new ticket"
                    ),
                })
            }
            SecureError::Certificate(error) if matches!(self.ground, Ground::Authorities) => {
                Some(format!(
                    "the relay at {relay} shows a certificate that no authority of --tls-ca vouches for under that name: \
                 {error}: check --tls-ca, and that the relay's certificate names {}",
                    relay.host()
                ))
            }
            SecureError::Certificate(error) => Some(format!(
                "the relay at {relay} shows a certificate whose key it does not prove to have: {error}: an impostor \
                 answers, or what answers is no relay: ask the relay's operator"
            )),
            _ => None,
        }
    }
}

/// The authorities of `--tls-ca`.
fn read_authorities(path: &Path) -> Result<RootCertStore, ProgramError> {
    let fail = |why: &dyn std::fmt::Display| {
        ProgramError::Usage(format!("failed to read --tls-ca {}: {why}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates::read(path).map_err(|why| fail(&why))? {
        roots.add(certificate).map_err(|error| fail(&error))?;
    }
    Ok(roots)
}

/// The system's authorities; none where there are none that can be read.
fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
