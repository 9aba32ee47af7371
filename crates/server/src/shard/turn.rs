//! The turn that joins what is on a shard.
//!
//! A turn: replies, then requests, then hand-offs; the news of connections; the homes' decisions;
//! what is to go to other shards. Requests to the own shard are handled in the same turn, so
//! that local and remote differ in one place only ([`super::outbox`]).

use std::rc::Rc;

use shards::task;

use super::{
    Parts, ShardState,
    desk::{Desk, now},
    outbox::CLAIMS_AT_ONCE_MAX,
    requests, tick,
};
use crate::{
    connection::{accept, admit, closing, pump, udp_in},
    message::{Handled, Request},
};

/// Requests handled before other tasks get their turn.
const REQUESTS_PER_TURN_MAX: usize = 256;

/// The shard's main loop: until the process drains and everything is written or the time
/// for it is over.
pub(crate) async fn run(state: Rc<ShardState>) {
    let _alarm = Alarm;
    let desk = &state.desk;
    task::spawn(pump::run(Rc::clone(&state)));
    task::spawn(admit::take_turns(Rc::clone(&state)));
    task::spawn(tick::run(Rc::clone(&state)));
    task::spawn(tick::watch_prices(Rc::clone(&state)));
    udp_in::start(&state);
    // How often the relay was said to be watched, when last looked.
    let mut calls_seen = 0;
    loop {
        let more = turn(&state);
        let calls = desk.shared.watch.calls();
        if std::mem::replace(&mut calls_seen, calls) != calls {
            // The relay is watched: there is something to do though nothing happens.
            desk.bells.activity.ring();
        }
        if desk.shard.draining() {
            if closing::is_drained(desk, &state.parts().guests) {
                break;
            }
            // Its deadline may be all that still happens.
            desk.bells.activity.ring();
        }
        if more {
            task::yield_now().await;
        } else {
            desk.shard.port.wait().await;
        }
    }
    closing::close_all(&state).await;
}

/// One turn; whether there is more to do at once.
pub(crate) fn turn(state: &Rc<ShardState>) -> bool {
    let (desk, parts) = (&state.desk, &mut *state.parts());
    let port = &desk.shard.port;
    parts.ready.refresh_limits(desk, &parts.guests);
    while let Some((from, Handled { claims })) = port.try_reply() {
        parts.ready.outbox.handled(from, claims);
    }
    let (mut handled, mut claims) = (0, 0);
    while handled < REQUESTS_PER_TURN_MAX
        && claims < CLAIMS_AT_ONCE_MAX
        && let Some((from, request)) = port.try_request_in()
    {
        handled += 1;
        let reply = handle(desk, parts, request);
        claims += reply.claims;
        port.reply(from, reply);
    }
    while let Some(incoming) = desk.shard.try_accept() {
        accept::begin(state, &mut parts.guests, &mut parts.ready, incoming);
    }
    let mut own_claims = 0;
    let has_more = loop {
        let has_more = parts.ready.collect_news(desk);
        if !desk.shard.draining() && parts.homes.drive(now(), &mut parts.ready.outbox, &desk.cells)
        {
            desk.bells.price.ring();
        }
        let mut is_quiet = true;
        while own_claims < CLAIMS_AT_ONCE_MAX
            && let Some(request) = parts.ready.outbox.pop_own()
        {
            let Handled { claims } = handle(desk, parts, request);
            parts.ready.outbox.handled(desk.id(), claims);
            own_claims += claims;
            is_quiet = false;
        }
        if is_quiet {
            break has_more;
        }
    };
    parts.ready.outbox.flush(port);
    desk.cells.outbox_depth.set(parts.ready.outbox.len() as u64);
    has_more || handled == REQUESTS_PER_TURN_MAX || claims.max(own_claims) >= CLAIMS_AT_ONCE_MAX
}

/// A request, of this shard or another, to a home here or to a connection here.
fn handle(desk: &Desk, parts: &mut Parts, request: Request) -> Handled {
    desk.bells.activity.ring();
    let handled = Handled { claims: request.claims() };
    let Parts { guests, homes, ready, payloads, .. } = parts;
    match request {
        Request::Home(request) => homes.handle(now(), request, &mut ready.outbox, &desk.cells),
        Request::Peer(request) => requests::handle(desk, guests, ready, payloads, request),
    }
    handled
}

/// If the shard panics, the process must end and say so, not go on with one shard less: the main
/// thread waits for signals, so it gets one.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // If the signal can't be raised, /healthz tells.
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM).ok();
        }
    }
}
