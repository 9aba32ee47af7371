//! The library's part of one end: an endpoint of its own, and its one connection.

use core::net::SocketAddr;
use std::sync::Arc;

use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, ConnectionId, Endpoint, Incoming, ServerConfig,
};

use super::{address::Address, instant::instant};
use relay_protocol::time::Time;

/// The library's part.
pub(super) struct Quic {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Option<(ConnectionHandle, Connection)>,
    /// The relay's, until its peer has come.
    awaited: Option<(ConnectionId, Arc<ServerConfig>)>,
    /// Why the connection has ended.
    pub(super) lost: Option<ConnectionError>,
    frames: FramesReceived,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// How many frames of the other side were read.
#[derive(Clone, Copy, Default)]
pub(super) struct FramesReceived {
    pub(super) all: u64,
    pub(super) challenges: u64,
}

impl Quic {
    /// A peer's connection, or the relay's wait for one.
    pub(super) fn new(
        endpoint: Endpoint,
        connection: Option<(ConnectionHandle, Connection)>,
        awaited: Option<(ConnectionId, Arc<ServerConfig>)>,
    ) -> Self {
        Self { endpoint, connection, awaited, lost: None, frames: FramesReceived::default() }
    }

    /// None before the other side has come.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().map(|(_, connection)| connection)
    }

    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|(_, connection)| connection.remote_address())
    }

    /// A peer wants to begin: the one that was made an offer does, and no other.
    pub(super) fn begin(&mut self, now: Time, incoming: Incoming) {
        let awaited = self.awaited.take_if(|(first_id, _)| incoming.orig_dst_cid() == first_id);
        let Some((first_id, server)) = awaited else { return self.endpoint.ignore(incoming) };
        let mut reply = Vec::new();
        match self.endpoint.accept(incoming, instant(now), &mut reply, Some(Arc::clone(&server))) {
            Ok(connection) => self.connection = Some(connection),
            // It was damaged on its way, or is another's: the right one may still come.
            Err(_) => self.awaited = Some((first_id, server)),
        }
    }

    /// Passes on what connection and endpoint have for each other.
    pub(super) fn exchange(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
    }

    /// Whether a datagram may be of this connection. Until the peer has come, only one that names the id that it was
    /// given costs more than a look.
    pub(super) fn takes(&self, datagram: &[u8]) -> bool {
        let awaited = self.awaited.as_ref().filter(|_| self.connection.is_none());
        awaited.is_none_or(|(first_id, _)| Address::names(datagram, first_id))
    }

    /// What [`Self::frames_received`] said last.
    pub(super) fn frames_before(&self) -> FramesReceived {
        self.frames
    }

    /// Frames are read of authentic packets only, and of each once.
    pub(super) fn frames_received(&mut self) -> FramesReceived {
        let Some((_, connection)) = &self.connection else { return FramesReceived::default() };
        let stats = connection.stats().frame_rx;
        let all = stats.acks
            + stats.crypto
            + stats.ping
            + stats.stream
            + stats.reset_stream
            + stats.max_data
            + stats.max_stream_data
            + stats.max_streams_uni
            + stats.new_connection_id
            + stats.retire_connection_id
            + stats.data_blocked
            + stats.stream_data_blocked
            + stats.streams_blocked_uni
            + stats.stop_sending
            + u64::from(stats.handshake_done)
            + stats.path_challenge
            + stats.path_response
            + stats.connection_close
            + stats.immediate_ack
            + stats.ack_frequency
            + stats.new_token
            + stats.datagram
            + stats.max_streams_bidi
            + stats.streams_blocked_bidi;
        self.frames = FramesReceived { all, challenges: stats.path_challenge };
        self.frames
    }
}
