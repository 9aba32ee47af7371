//! The UDP sockets of one shard, one for each address that the relay listens on.
//!
//! Says nothing about what is in a datagram.

use std::{io, rc::Rc};

use shards::{ShardId, datagrams::DatagramSocket, steering::DatagramGroup};

use relay_protocol::limits::DATAGRAM_SHARDS_MAX;

/// A shard's datagram sockets; a route names the index of one.
pub(crate) struct Sockets {
    all: Vec<Rc<DatagramSocket>>,
    /// What this shard's connections are called by their first byte.
    pub shard: Option<u8>,
    /// What a socket holds of data that was not read yet.
    pub room_bytes: u32,
}

impl Sockets {
    /// Takes this shard's sockets over. Without them it serves on, but offers no datagrams.
    pub(crate) fn new(id: ShardId, groups: &[DatagramGroup]) -> Self {
        let open = |group: &DatagramGroup| {
            DatagramSocket::from_std(group.sockets[id.index()].try_clone()?).map(Rc::new)
        };
        let all = groups.iter().map(open).collect::<io::Result<Vec<_>>>();
        let all = all.unwrap_or_else(|error| {
            tracing::error!(shard = %id, "failed to take over the UDP sockets: {error}");
            Vec::new()
        });
        let room_bytes = all.iter().map(|socket| socket.room_bytes()).min().unwrap_or(0);
        let shard = u8::try_from(id.0).ok().filter(|_| !all.is_empty());
        const { assert!(DATAGRAM_SHARDS_MAX == 1 + u8::MAX as usize) };
        Self { all, shard, room_bytes }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<DatagramSocket>> {
        self.all.iter()
    }

    /// The socket of a route.
    pub(crate) fn of(&self, index: u8) -> &DatagramSocket {
        &self.all[usize::from(index)]
    }

    /// Datagrams that go in one call, whichever socket takes them.
    pub(crate) fn segments_max(&self) -> usize {
        self.all.iter().map(|socket| socket.segments_max()).min().unwrap_or(1)
    }
}
