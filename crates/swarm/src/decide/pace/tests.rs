//! The last peer, however little arrives at it.

use std::time::Duration;

use relay_protocol::{Bitfield, Order, Seeding, time::Time};

use crate::{
    Action, Eviction, Join, LAMBDA_DEFAULT, Limits, PeerSlot, Swarm, SwarmConfig,
    book::peer::Pacing,
};

const CHUNK: u32 = 16 << 10;
const CHUNKS: u32 = 40;
const CACHED: u32 = 16;

/// An origin, and one peer with credit for all, to which the whole cache is being sent.
fn swarm_with_a_full_cache(now: Time) -> (Swarm, PeerSlot) {
    let mut swarm = Swarm::new(SwarmConfig {
        size_bytes: u64::from(CHUNKS * CHUNK),
        chunk_size_bytes: CHUNK,
        eviction: Eviction::Demand,
        lambda: LAMBDA_DEFAULT,
        fetches_max: CACHED / 2,
        cache_chunks_max: CACHED,
        missing_deadline: Duration::from_secs(60),
        spread_wait: Duration::from_secs(10),
        leaving_deadline: Duration::from_secs(60),
    });
    let join = |claims, seeding| Join {
        claims,
        order: Order::Relay,
        seeding,
        is_suspect: false,
        is_uplink: false,
    };
    let origin = swarm.handle_join(now, join(Bitfield::full(CHUNKS), Some(Seeding::Origin)));
    let peer = swarm.handle_join(now, join(Bitfield::empty(CHUNKS), None));
    swarm.handle_manifest(now, origin, Ok(()));
    swarm.handle_allowance(now, peer, u64::from(CHUNKS * CHUNK));
    let mut leases = 0;
    while let Some(action) = swarm.poll_action() {
        match action {
            Action::WantRoom if leases < CACHED => {
                leases += 1;
                swarm.handle_room(now);
            }
            Action::Fetch { fetch_id, .. } => swarm.handle_fetched(now, fetch_id),
            _ => {}
        }
    }
    assert_eq!(swarm.cached_count(), CACHED);
    (swarm, peer)
}

#[test]
fn the_last_peer_is_not_cut_off_for_its_own_next_chunk() {
    let now = |millis| Time::ZERO + Duration::from_millis(millis);
    let (mut swarm, peer) = swarm_with_a_full_cache(now(0));
    // It fell behind while others were there, and no chunk arrives at it whole.
    swarm.desk.book.set_pacing(peer, Pacing::Behind { since: now(0) });
    for millis in 1..5_000 {
        swarm.handle_timeout(now(millis));
        while let Some(action) = swarm.poll_action() {
            let cuts_off = matches!(action, Action::Evict { .. } | Action::Recall { .. });
            assert!(!cuts_off, "{action:?} after {millis} ms");
        }
        swarm.invariants();
    }
    assert!(swarm.desk.book.peer(peer).keeps_pace(), "the pace has come down to it");
}

#[test]
fn no_peer_falls_behind_or_goes_dormant_while_the_shell_itself_holds_back() {
    for holds_back in [true, false] {
        let now = |millis| Time::ZERO + Duration::from_millis(millis);
        let (mut swarm, peer) = swarm_with_a_full_cache(now(0));
        // All its credit is used by what is on its way, and none of that arrives.
        swarm.handle_allowance(now(1), peer, 0);
        swarm.handle_limits(now(1), Limits { holds_back, ..Limits::default() });
        for millis in (2..5_000).step_by(10) {
            swarm.handle_timeout(now(millis));
            while swarm.poll_action().is_some() {}
            swarm.invariants();
        }
        let peer = swarm.desk.book.peer(peer);
        assert_eq!(peer.is_counted(), holds_back, "its wants keep chunks in the cache");
        assert!(peer.keeps_pace() || !holds_back);
    }
}
