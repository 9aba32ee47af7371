//! Waits until the relay's limits let a connection be read from.
//!
//! Only what was asked for counts: a peer of which nothing is fetched is read from at once, and so is the stream beside
//! data in datagrams. Its messages lie behind the file bytes of a few fetches at most ([`relay_swarm::Limits`]).

use std::rc::Rc;

use shards::clock;

use super::Connection;
use crate::shard::{
    ShardState,
    desk::{TIMER_LEAST, now},
    shaping::{Reading, micros},
};

/// Bytes that may be read now; `None` if the reader has nothing left to wait for.
pub(super) async fn admit(state: &ShardState, connection: &Rc<Connection>) -> Option<usize> {
    let desk = &state.desk;
    let mut was_held = false;
    loop {
        let reading = state.parts().ready.shaping.reading_room(desk, connection);
        match reading {
            Reading::Now(bytes) => {
                if was_held {
                    let held = connection.link().release_reading(now());
                    desk.cells.held_reading_us.add(micros(held));
                }
                return Some(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            Reading::At(at) => {
                was_held = true;
                connection.link().hold_reading(now());
                let wait = at.since(now()).max(TIMER_LEAST);
                clock::timeout(wait, connection.read_bell.wait()).await;
            }
            Reading::InTurn => {
                was_held = true;
                connection.link().hold_reading(now());
                connection.read_bell.wait().await;
            }
        }
        if connection.link().life.is_closing() {
            state.parts().ready.shaping.give_back(desk, connection, 0);
            return None;
        }
    }
}

/// Lets connections be read from in turn, as long as the shard lives.
pub(crate) async fn take_turns(state: Rc<ShardState>) {
    let bell = &state.desk.bells.intake;
    loop {
        let due = state.parts().ready.shaping.grant_reading(&state.desk);
        match due {
            None => bell.wait().await,
            Some(at) => {
                // Rung or due, all the same: it is looked at again.
                clock::timeout(at.since(now()).max(TIMER_LEAST), bell.wait()).await;
            }
        }
    }
}
