//! What home shards ask of this shard's connections: join answers, fetches, deliveries, recalls.

use std::rc::Rc;

use super::{
    accept::perform_effects,
    closing::close,
    connection::Connection,
    message::{
        CachedChunk, ConnectionRef, HomeRequest, NewsItem, PeerRequest, Request, SwarmRef, Target,
    },
    shard::{ShardState, now},
};
use relay_transport::Payload;

impl ShardState {
    pub(crate) fn handle_peer_request(self: &Rc<Self>, request: PeerRequest) {
        match request {
            PeerRequest::Joined { to, swarm, peer, manifest } => {
                let connection = self.connection_of(to);
                let joined = connection.filter(|it| it.link().membership.join(swarm, peer));
                let Some(connection) = joined else {
                    // It went while its join was under way.
                    let gone = HomeRequest::Gone { swarm, peer };
                    self.outbox.borrow_mut().push(swarm.home, Request::Home(gone));
                    return;
                };
                let number = u64::from(to.index) << 16 | u64::from(to.shard.0);
                connection.link().session.handle_joined_swarm(now(), number, manifest);
                self.after_session(&connection);
            }
            PeerRequest::Close { to, failure } => {
                if let Some(connection) = self.connection_of(to) {
                    tracing::info!(remote = %connection.remote, "closing: {}", failure.text);
                    close(self, &connection, failure);
                }
            }
            PeerRequest::Tell { to, message } => {
                // Behind its last word nothing is said.
                if let Some(connection) = self.present(to) {
                    connection.link().send(&message);
                    self.pump(&connection);
                }
            }
            PeerRequest::FetchManifest { to } => {
                if let Some(connection) = self.present(to) {
                    connection.link().session.handle_fetch_manifest();
                    self.after_session(&connection);
                }
            }
            PeerRequest::Manifest { swarm, manifest } => {
                for connection in self.members(swarm) {
                    let known = Some(manifest.clone());
                    connection.link().session.handle_manifest_known(known);
                    self.after_session(&connection);
                }
            }
            PeerRequest::Fetch { to, fetch } => {
                // Of one that left the home will hear: the lease must not wait until it has lingered.
                if let Some(connection) = self.present(to) {
                    connection.link().session.handle_fetch(fetch);
                    self.after_session(&connection);
                }
            }
            PeerRequest::CancelFetch { to, swarm, fetch_id, lease_back } => {
                let connection = self.connection_of(to);
                let lease = connection.and_then(|connection| {
                    let lease = connection.link().session.handle_cancel(fetch_id);
                    self.after_session(&connection);
                    lease
                });
                if lease_back {
                    let back = HomeRequest::LeaseBack { swarm, lease };
                    self.outbox.borrow_mut().push(swarm.home, Request::Home(back));
                }
            }
            PeerRequest::Deliver { swarm, chunk, targets } => self.deliver(swarm, chunk, &targets),
            PeerRequest::CutOff { to, chunk, has_it } => {
                if let Some(connection) = self.present(to) {
                    connection.link().cut_off(chunk, has_it);
                    self.after_session(&connection);
                }
            }
            PeerRequest::Recall { swarm, chunk } => self.recall(swarm, chunk),
            PeerRequest::Datagram { route, bytes } => {
                super::datagrams::handle(self, route, &bytes);
            }
        }
    }

    /// After the session was told something: effects, then what is to be written.
    fn after_session(self: &Rc<Self>, connection: &Rc<Connection>) {
        perform_effects(self, connection);
        self.mark_news(connection);
        self.pump(connection);
    }

    /// The connection, while it has a part in its swarm.
    fn present(&self, to: ConnectionRef) -> Option<Rc<Connection>> {
        self.connection_of(to).filter(|it| !it.link().membership.has_left())
    }

    fn members(&self, swarm: SwarmRef) -> Vec<Rc<Connection>> {
        let connections = self.connections.borrow();
        let is_member = |connection: &&Rc<Connection>| {
            connection.link().membership.member().is_some_and(|(other, _)| other == swarm)
        };
        connections.iter().filter(is_member).cloned().collect()
    }

    fn deliver(self: &Rc<Self>, swarm: SwarmRef, chunk: CachedChunk, targets: &[Target]) {
        let now = now();
        let CachedChunk { index, bytes, crcs } = chunk;
        let mut payloads = self.payloads.borrow_mut();
        let live = payloads.get(&(swarm, index)).and_then(std::rc::Weak::upgrade);
        let payload = live.filter(|payload| !payload.is_withdrawn()).unwrap_or_else(|| {
            let payload = Payload::new(index, bytes, crcs);
            payloads.insert((swarm, index), Rc::downgrade(&payload));
            payload
        });
        drop(payloads);
        for target in targets {
            let Some(connection) = self.connection(target.index, target.generation) else {
                continue;
            };
            let mut link = connection.link();
            if !link.life.is_closing() {
                link.deliver(now, Rc::clone(&payload), target.offset);
                drop(link);
                self.pump(&connection);
            }
        }
    }

    fn recall(self: &Rc<Self>, swarm: SwarmRef, chunk: u32) {
        let now = now();
        let payload = self.payloads.borrow_mut().remove(&(swarm, chunk));
        let mut rest = Vec::new();
        if let Some(payload) = payload.and_then(|weak| weak.upgrade()) {
            for connection in self.members(swarm) {
                let Some((_, peer)) = connection.link().membership.member() else { continue };
                let mut link = connection.link();
                for reached in link.recall(now, chunk) {
                    if reached < payload.len_bytes() {
                        rest.push((peer, reached));
                    } else {
                        // Its last frame was half-written and is on its way as a copy.
                        link.session.tell(NewsItem::Written(chunk));
                    }
                }
                drop(link);
                self.mark_news(&connection);
                self.pump(&connection);
            }
            payload.withdraw();
        }
        let recalled = HomeRequest::Recalled { swarm, chunk, rest };
        self.outbox.borrow_mut().push(swarm.home, Request::Home(recalled));
    }

    /// Drops the entries of chunks that no send holds any longer.
    pub(crate) fn prune_payloads(&self) {
        self.payloads.borrow_mut().retain(|_, payload| payload.strong_count() > 0);
    }
}
