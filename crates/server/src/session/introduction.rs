//! How a peer introduces itself: its hello, which chunks it claims, and that it is an end of an uplink.

use std::sync::Arc;

use super::{
    Labelling, Phase, Session,
    effects::{Effect, Fault},
};
use crate::message::{Join, NewsItem};
use relay_protocol::{Accepted, Bitfield, Claims, FailureCode, Hello, Message, Order, SwarmKey};

impl Session {
    /// The peer is an end of an uplink, right before its hello; or stands for other relays than before.
    pub(super) fn handle_uplink(&mut self, below: Vec<u64>) -> Result<(), Fault> {
        let own = self.config.relay_id;
        if below.contains(&own) {
            return Err(Fault::new(
                FailureCode::UplinkRefused,
                "uplink",
                "this relay is below the one that asks, so the two would get the file of each other in a circle: one \
                 of the relays must have no --upstream, or another",
            ));
        }
        let below: Arc<[u64]> = below.into();
        match (&self.phase, &self.rights.uplink) {
            (Phase::Hello, None) => {}
            (Phase::Joined(_), Some(_)) => self.tell(NewsItem::Below(Arc::clone(&below))),
            _ => return Err(Fault::protocol("an uplink out of place")),
        }
        self.rights.uplink = Some(below);
        Ok(())
    }

    pub(super) fn handle_hello(&mut self, hello: Hello) -> Result<(), Fault> {
        if !matches!(self.phase, Phase::Hello) {
            return Err(Fault::protocol("a second hello"));
        }
        let roles = self.config.admission.admit(&self.binding, &hello)?;
        if self.rights.uplink.is_some() && (hello.order != Order::Peer || hello.seeding.is_some()) {
            return Err(Fault::protocol("an uplink that chooses no order, or publishes"));
        }
        let may_begin = roles.may_publish();
        self.rights.may_get = roles.may_get();
        let Some(key) = hello.key else {
            self.phase = Phase::Observer;
            self.effects.push(Effect::Observe);
            self.send(Message::Accepted(Accepted { connection: 0 }));
            return Ok(());
        };
        if key.chunk_size_log2 > self.config.chunk_size_log2_limit {
            return Err(Fault::new(
                FailureCode::SwarmRefused,
                "swarm",
                format!(
                    "chunks of 2^{} bytes, but this relay's cache takes at most 2^{}: share with \
                     smaller chunks, or start the relay with a larger --cache",
                    key.chunk_size_log2, self.config.chunk_size_log2_limit
                ),
            ));
        }
        match hello.claims {
            Claims::Nothing => {
                self.join(&hello, key, may_begin, Bitfield::empty(key.chunk_count()));
            }
            Claims::Everything => {
                self.join(&hello, key, may_begin, Bitfield::full(key.chunk_count()));
            }
            Claims::Some => {
                let hello = Box::new(hello);
                self.phase = Phase::Bitfield { hello, may_begin, bytes: Vec::new() };
            }
        }
        Ok(())
    }

    pub(super) fn handle_bitfield_part(
        &mut self,
        offset_bytes: u32,
        part: &[u8],
    ) -> Result<(), Fault> {
        let Phase::Bitfield { hello, bytes, .. } = &mut self.phase else {
            return Err(Fault::protocol("a bitfield that was not announced"));
        };
        let key = hello.key.expect("only hellos with a key announce a bitfield");
        let len_bytes = Bitfield::byte_len(key.chunk_count());
        if offset_bytes as usize != bytes.len() || bytes.len() + part.len() > len_bytes {
            return Err(Fault::protocol("a bitfield part out of order or beyond the end"));
        }
        bytes.extend_from_slice(part);
        if bytes.len() < len_bytes {
            return Ok(());
        }
        let claims = Bitfield::from_bytes(bytes, key.chunk_count())
            .ok_or_else(|| Fault::protocol("a bitfield that claims chunks beyond the last"))?;
        let hello = std::mem::replace(&mut self.phase, Phase::Hello);
        if let Phase::Bitfield { hello, may_begin, .. } = hello {
            self.join(&hello, key, may_begin, claims);
        }
        Ok(())
    }

    fn join(&mut self, hello: &Hello, key: SwarmKey, may_begin: bool, claims: Bitfield) {
        self.phase = Phase::Joining(key);
        if hello.seeding.is_some() {
            self.rights.labelling = Labelling::Possible;
        }
        let Hello { order, seeding, .. } = *hello;
        let uplink = self.rights.uplink.clone();
        let join = Join { key, claims, order, seeding, may_begin, uplink };
        self.effects.push(Effect::Join(Box::new(join)));
    }
}
