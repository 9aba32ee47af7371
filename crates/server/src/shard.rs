//! One shard of the relay: its connections, the homes of some swarms, and what they share.
//!
//! A shard is one thread. Its tasks take turns, and between two waits a task has all [`Parts`] to itself; what it
//! calls gets those that it needs, and no more. What has become ready on the way is put into [`ready::Ready`], so
//! that what makes work does not know what does it. [`turn`] joins all.

pub(crate) mod desk;
pub(crate) mod guests;
pub(crate) mod outbox;
mod payloads;
mod publish;
pub(crate) mod ready;
mod requests;
mod shaper;
pub(crate) mod shaping;
pub(crate) mod slots;
mod sweep;
mod tick;
pub(crate) mod turn;
pub(crate) mod window_pool;

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use shards::{Shard, steering::DatagramGroup};

use self::{desk::Desk, guests::Guests, payloads::Payloads, ready::Ready};
use crate::{
    home::homes::Homes,
    message::{Handled, Request},
    process::Shared,
};
use relay_protocol::limits::FRAME_PAYLOAD_BYTES_MAX;
use relay_transport::{ReceiveBuffer, WRITE_BYTES_MAX};

/// Frames of one read, at most: what a peer hands to its kernel at once.
const FRAMES_PER_READ: usize = WRITE_BYTES_MAX / FRAME_PAYLOAD_BYTES_MAX;

/// Everything of one shard, shared by its tasks.
pub(crate) struct ShardState {
    pub desk: Desk,
    /// The one borrow of a shard: a task takes it after each wait, and nothing that it calls takes it again.
    parts: RefCell<Parts>,
}

/// What the tasks of a shard change, one task at a time.
pub(crate) struct Parts {
    pub guests: Guests,
    pub homes: Homes,
    pub ready: Ready,
    pub payloads: Payloads,
    pub receive_buffer: ReceiveBuffer,
    /// Datagrams are made here.
    pub scratch: Vec<u8>,
}

impl ShardState {
    pub(crate) fn new(
        shard: Shard<Request, Handled>,
        shared: &Arc<Shared>,
        groups: &[DatagramGroup],
    ) -> Rc<Self> {
        let desk = Desk::new(shard, shared, groups);
        let (id, shard_count) = (desk.id(), desk.shard_count());
        let parts = Parts {
            guests: Guests::new(shard_count, shared.places.observers),
            homes: Homes::new(id, shard_count, shared, desk.shard.port.ringer()),
            ready: Ready::new(&desk),
            payloads: Payloads::default(),
            receive_buffer: ReceiveBuffer::new(FRAMES_PER_READ),
            scratch: Vec::new(),
        };
        Rc::new(Self { desk, parts: RefCell::new(parts) })
    }

    /// What the tasks change, until the next wait.
    pub(crate) fn parts(&self) -> RefMut<'_, Parts> {
        self.parts.borrow_mut()
    }
}

#[cfg(test)]
mod tests;
