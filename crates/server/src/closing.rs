//! The end of a connection: what it is told last arrives, within a bounded time and amount.
//!
//! A socket that is closed while bytes of the other side lie unread is reset, and a reset destroys
//! what was written just before. So a connection that ends with a word closes only its writing
//! direction once the word is out, and takes and discards what still comes until the other side
//! has closed, too, or has had its time. Its part in everything else ends at once. Whoever speaks
//! something else, or has gone, is told nothing and closed at once.

use std::{cell::Cell, rc::Rc, time::Duration};

use shards::{clock, task};

use super::{
    claims::CLAIMS_OF_GONE_MAX,
    connection::{
        Connection,
        link::{News, Parting},
    },
    message::{HomeRequest, Request},
    shard::{ShardState, now},
};
use relay_protocol::{Failure, time::Time};

/// How long the other side has to take its last words and to close. A peer that is there needs a
/// round trip; who is not costs a descriptor and an empty queue for so long.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are taken and discarded meanwhile: more than both sockets' buffers hold by default,
/// so that whoever stops sending when it hears why does hear it.
const LINGER_BYTES_MAX: usize = 32 << 20;

/// Connections of one shard that linger at once; further ones are closed as soon as their words
/// are with the kernel. Descriptors are what they cost.
const LINGERING_MAX: usize = 256;

/// How often words are looked at that the kernel does not take.
const WORDS_TICK: Duration = Duration::from_millis(10);

/// Connections of a shard that linger.
#[derive(Debug, Default)]
pub(crate) struct Lingering(Cell<usize>);

/// One of them.
struct Place<'a>(&'a Lingering);

impl Lingering {
    fn enter(&self, is_draining: bool) -> Option<Place<'_>> {
        // A relay that ends says so to all: it has no other use for the descriptors.
        if self.0.get() >= LINGERING_MAX && !is_draining {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// Says why and ends the connection: its part in the swarm at once, its socket when it has heard.
pub(crate) fn close(state: &Rc<ShardState>, connection: &Rc<Connection>, failure: Failure) {
    if connection.link().life.is_closing() {
        return;
    }
    connection.close_with(now() + LINGER_TIMEOUT, failure);
    leave(state, connection);
    state.pump(connection);
    // Its reader may be waiting for the socket, and wakes only if something comes.
    let weak = Rc::downgrade(connection);
    task::spawn(async move {
        clock::sleep(LINGER_TIMEOUT).await;
        if let Some(connection) = weak.upgrade() {
            connection.close_now();
        }
    });
}

/// Ends the connection's part in its swarm, and gives back what it held for it.
pub(crate) fn leave(state: &ShardState, connection: &Connection) {
    let Some(parting) = connection.link().leave(CLAIMS_OF_GONE_MAX) else { return };
    let Parting { dropped, was, news } = parting;
    state.cells.count_all_dropped(&dropped);
    if was.counts() {
        state.cells.peers.sub(1);
        state.shared.peer_left();
    }
    // A join that is under way is answered, and that answer is told that the peer has gone.
    if let Some((swarm, peer)) = was.member() {
        // What it said just before it went goes first.
        if let Some(News { news, claims }) = news {
            state.claims.borrow_mut().hand_over(swarm.home, claims);
            let news = Request::Home(HomeRequest::News(vec![news]));
            state.outbox.borrow_mut().push(swarm.home, news);
        }
        let gone = Request::Home(HomeRequest::Gone { swarm, peer });
        state.outbox.borrow_mut().push(swarm.home, gone);
    }
    state.shard.port.nudge();
}

/// Lets the last words arrive, then ends the connection.
pub(crate) async fn finish(state: &Rc<ShardState>, connection: &Rc<Connection>) {
    let words = connection.stop_hearing();
    leave(state, connection);
    if let Some(words_until) = words {
        let deadline = words_until.unwrap_or_else(|| now() + LINGER_TIMEOUT);
        let place = state.lingering.enter(state.shard.draining());
        if place.is_some() {
            linger(state, connection, deadline).await;
        } else {
            say(connection);
        }
    }
    connection.close_now();
    forget(state, connection);
}

/// Takes and discards what comes until the other side has heard and closed.
async fn linger(state: &Rc<ShardState>, connection: &Rc<Connection>, deadline: Time) {
    let mut bytes_left = LINGER_BYTES_MAX;
    let mut has_ended = false;
    while !connection.link().life.is_cut() && now() < deadline {
        let is_said = say(connection);
        if has_ended && is_said {
            return;
        }
        if has_ended {
            clock::sleep(WORDS_TICK).await;
            continue;
        }
        match discard(state, connection) {
            Ok(0) => has_ended = true,
            Ok(count) => {
                state.cells.control_in_bytes.add(count as u64);
                bytes_left = bytes_left.saturating_sub(count);
                if bytes_left == 0 {
                    return;
                }
                task::yield_now().await;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let left = deadline.since(now());
                match clock::timeout(left, connection.socket.readable()).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) | None => return,
                }
            }
            Err(_) => return,
        }
    }
}

fn discard(state: &ShardState, connection: &Connection) -> std::io::Result<usize> {
    connection.socket.try_read(state.receive_buffer.borrow_mut().bytes_mut())
}

/// Gives the kernel what is left to say, then closes the writing direction; whether all is said.
fn say(connection: &Connection) -> bool {
    let link = connection.link();
    let mut has_urgent = link.queue.has_urgent() && link.life.takes_bytes();
    let is_blocked = link.is_blocked;
    drop(link);
    if has_urgent && !is_blocked {
        // Who can't be told any more is as good as told.
        has_urgent = connection.write(now()).is_ok() && connection.link().queue.has_urgent();
        if has_urgent {
            connection.blocked_bell.ring();
        }
    }
    if !has_urgent {
        connection.shut_write();
    }
    !has_urgent
}

/// Ends one connection's part in everything, once its socket has ended.
pub(crate) fn forget(state: &ShardState, connection: &Rc<Connection>) {
    if !connection.link().life.close() {
        return;
    }
    leave(state, connection);
    // What its window had of the sum is free: the next sweep gives it back.
    state.activity.ring();
    // The task that waits until the socket takes more ends, too.
    connection.blocked_bell.ring();
    let reference = connection.reference;
    state.connections.borrow_mut().remove(reference.index, reference.generation);
    state.handshakes.borrow_mut().forget(connection);
    state.observers.borrow_mut().forget(connection);
    state.datagrams.forget(connection, &state.cells);
    state.shard.connection_closed();
    state.cells.connections.sub(1);
    state.shard.port.nudge();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_linger_unless_the_relay_ends() {
        let lingering = Lingering::default();
        let mut places: Vec<_> = (0..LINGERING_MAX).map(|_| lingering.enter(false)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(lingering.enter(false).is_none());
        assert!(lingering.enter(true).is_some());
        drop(places.pop());
        assert!(lingering.enter(false).is_some());
    }
}
