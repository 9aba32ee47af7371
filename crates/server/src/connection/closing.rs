//! The end of a connection: what it is told last arrives, within a bounded time and amount.
//!
//! A socket that is closed while bytes of the other side lie unread is reset, and a reset destroys
//! what was written just before. So a connection that ends with a word closes only its writing
//! direction once the word is out, and takes and discards what still comes until the other side
//! has closed, too, or has had its time. Its part in everything else ends at once. A peer that speaks
//! something else, or has gone, is told nothing and closed at once.
//!
//! The end of a shard is that of all its connections: chunks in flight are finished, nothing new is begun.

use std::{rc::Rc, time::Duration};

use shards::{clock, task};

use super::{
    Connection,
    link::{News, Parting},
};
use crate::{
    message::HomeRequest,
    shard::{
        Parts, ShardState,
        desk::{Desk, now},
        guests::Guests,
        outbox::CLAIMS_OF_GONE_MAX,
        ready::Ready,
    },
};
use relay_protocol::{Failure, FailureCode, time::Time};

/// How long the other side has to take its last words and to close. A peer that is there needs a
/// round trip; one that is not costs a descriptor and an empty queue for so long.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are taken and discarded meanwhile: more than both sockets' buffers hold by default,
/// so that a peer that stops sending when it hears why does hear it.
const LINGER_BYTES_MAX: usize = 32 << 20;

/// How often words are looked at that the kernel does not take.
const WORDS_TICK: Duration = Duration::from_millis(10);

/// How often a draining shard looks whether its connections have ended.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// Connections that are told that the relay shuts down get so long to take it.
const DRAIN_WORDS: Duration = Duration::from_millis(500);

/// Says why and ends the connection: its part in the swarm at once, its socket when it has heard.
pub(crate) fn close(desk: &Desk, ready: &mut Ready, connection: &Rc<Connection>, failure: Failure) {
    if connection.link().life.is_closing() {
        return;
    }
    connection.close_with(now() + LINGER_TIMEOUT, failure);
    leave(desk, ready, connection);
    ready.mark_write(desk, connection);
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
fn leave(desk: &Desk, ready: &mut Ready, connection: &Connection) {
    let parting = connection.link().leave(CLAIMS_OF_GONE_MAX);
    let Some(Parting { dropped, was, news }) = parting else { return };
    desk.cells.count_all_dropped(&dropped);
    if was.counts() {
        desk.cells.peers.sub(1);
        desk.shared.peer_left();
    }
    // A join that is under way is answered, and that answer is told that the peer has gone.
    if let Some((swarm, peer)) = was.member() {
        // What it said just before it went goes first.
        if let Some(News { news, claims }) = news {
            ready.outbox.hand_over(swarm.home, claims);
            ready.outbox.push_home(swarm.home, HomeRequest::News(vec![news]));
        }
        ready.outbox.push_home(swarm.home, HomeRequest::Gone { swarm, peer });
    }
    desk.shard.port.nudge();
}

/// Lets the last words arrive, then ends the connection.
pub(crate) async fn finish(state: &ShardState, connection: &Rc<Connection>) {
    let desk = &state.desk;
    let words = connection.stop_hearing();
    leave(desk, &mut state.parts().ready, connection);
    if let Some(words_until) = words {
        let deadline = words_until.unwrap_or_else(|| now() + LINGER_TIMEOUT);
        let place = desk.lingering.enter(desk.shard.draining());
        if place.is_some() {
            linger(state, connection, deadline).await;
        } else {
            say(connection);
        }
    }
    connection.close_now();
    let Parts { guests, ready, .. } = &mut *state.parts();
    forget(desk, guests, ready, connection);
}

/// Takes and discards what comes until the other side has heard and closed.
async fn linger(state: &ShardState, connection: &Connection, deadline: Time) {
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
        let discarded = connection.socket.try_read(state.parts().receive_buffer.bytes_mut());
        match discarded {
            Ok(0) => has_ended = true,
            Ok(count) => {
                state.desk.cells.control_in_bytes.add(count as u64);
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

/// Gives the kernel what is left to say, then closes the writing direction; whether all is said.
fn say(connection: &Connection) -> bool {
    let link = connection.link();
    let mut has_urgent = link.queue.has_urgent() && link.life.takes_bytes();
    let is_blocked = link.is_blocked;
    drop(link);
    if has_urgent && !is_blocked {
        // A peer that can't be told any more is as good as told.
        has_urgent =
            connection.write(now(), u64::MAX).is_ok() && connection.link().queue.has_urgent();
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
pub(crate) fn forget(
    desk: &Desk,
    guests: &mut Guests,
    ready: &mut Ready,
    connection: &Rc<Connection>,
) {
    if !connection.link().life.close() {
        return;
    }
    if !desk.shard.draining() {
        // Otherwise the process is about to end, and last words may still be on their way.
        connection.forget_lent();
    }
    leave(desk, ready, connection);
    // What its window had of the sum is free: the next sweep gives it back.
    desk.bells.activity.ring();
    // The task that waits until the socket takes more ends, too.
    connection.blocked_bell.ring();
    guests.forget(connection);
    ready.forget(desk, connection);
    if connection.link().queue.datagrams().is_some() {
        desk.cells.datagram_connections.sub(1);
    }
    desk.shard.connection_closed();
    desk.cells.connections.sub(1);
    desk.shard.port.nudge();
}

/// Everything that was given to connections is written and acknowledged, or the time is over.
pub(crate) fn is_drained(desk: &Desk, guests: &Guests) -> bool {
    if now() >= desk.shared.drain_deadline() {
        return true;
    }
    guests.iter().all(|connection| {
        let link = connection.link();
        if link.life.is_closing() {
            return !link.queue.has_urgent();
        }
        let window_is_clear = link.session.window().unacknowledged_bytes() == 0;
        link.queue.is_empty() && window_is_clear
    })
}

/// Tells every peer that the relay ends, and waits until the connections have ended.
pub(crate) async fn close_all(state: &ShardState) {
    let tell = |Parts { guests, ready, .. }: &mut Parts| {
        for connection in guests.iter() {
            connection.close_with(now() + DRAIN_WORDS, shutting_down());
            ready.mark_write(&state.desk, connection);
        }
    };
    tell(&mut state.parts());
    let deadline = now() + DRAIN_WORDS;
    while state.parts().guests.len() > 0 && now() < deadline {
        clock::sleep(DRAIN_TICK).await;
    }
    state.parts().guests.iter().for_each(|connection| connection.close_now());
    // The last system calls in flight end before the runtime does.
    while state.parts().guests.len() > 0 && now() < deadline + DRAIN_WORDS {
        clock::sleep(DRAIN_TICK).await;
    }
}

/// What a peer is told when the relay shuts down.
fn shutting_down() -> Failure {
    Failure {
        code: FailureCode::ShuttingDown,
        text: "the relay shuts down: connect again when it is back".into(),
    }
}
