//! What ends of uplinks are told, and that they count for no copy and hold up no peer.

use std::time::Duration;

use relay_protocol::{Bitfield, ChunkRange, Order, Seeding, rng::Rng, time::Time};

use crate::{Action, Eviction, Join, LAMBDA_DEFAULT, PeerSlot, Swarm, SwarmConfig};

const CHUNKS: u32 = 8;
const CHUNK_BYTES: u32 = 1 << 18;
const NOW: Time = Time::ZERO;

fn swarm() -> Swarm {
    Swarm::new(SwarmConfig {
        size_bytes: u64::from(CHUNKS * CHUNK_BYTES),
        chunk_size_bytes: CHUNK_BYTES,
        eviction: Eviction::Demand,
        lambda: LAMBDA_DEFAULT,
        fetches_max: 4,
        cache_chunks_max: 8,
        missing_deadline: Duration::from_secs(60),
        spread_wait: Duration::from_secs(10),
        leaving_deadline: Duration::from_secs(60),
    })
}

fn join(swarm: &mut Swarm, claims: Bitfield, is_uplink: bool) -> PeerSlot {
    let order = if is_uplink { Order::Peer } else { Order::Relay };
    let seeding = (!is_uplink && claims.is_full()).then_some(Seeding::Origin);
    let slot =
        swarm.handle_join(NOW, Join { claims, order, seeding, is_suspect: false, is_uplink });
    swarm.invariants();
    slot
}

/// All that is decided; wishes for room are met.
fn decided(swarm: &mut Swarm) -> Vec<Action> {
    let mut all = Vec::new();
    while let Some(action) = swarm.poll_action() {
        match action {
            Action::WantRoom => swarm.handle_room(NOW),
            Action::TryRoom => swarm.handle_room_tried(NOW, true),
            _ => {}
        }
        all.push(action);
    }
    swarm.invariants();
    all
}

/// What an end was told, put together.
fn told(actions: &[Action], slot: PeerSlot, known: &mut Bitfield) {
    for action in actions {
        let Action::Available { peer, ranges, held } = action else { continue };
        for &ChunkRange { first, count } in ranges.iter().filter(|_| *peer == slot) {
            for chunk in first..first + count {
                let is_news = if *held { known.insert(chunk) } else { known.remove(chunk) };
                assert!(is_news, "chunk {chunk} is told once");
            }
        }
    }
}

#[test]
fn an_end_is_told_what_others_hold_and_hold_no_longer() {
    let mut swarm = swarm();
    let origin = join(&mut swarm, Bitfield::full(CHUNKS), false);
    let end = join(&mut swarm, Bitfield::empty(CHUNKS), true);
    let mut known = Bitfield::empty(CHUNKS);
    told(&decided(&mut swarm), end, &mut known);
    assert!(known.is_full());
    swarm.handle_have(NOW, end, 3);
    told(&decided(&mut swarm), end, &mut known);
    assert!(known.is_full(), "its own claims change nothing");
    let peer = join(&mut swarm, Bitfield::empty(CHUNKS), false);
    swarm.handle_have(NOW, peer, 5);
    swarm.handle_gone(NOW, origin);
    told(&decided(&mut swarm), end, &mut known);
    assert_eq!(known.iter().collect::<Vec<_>>(), [5], "chunk 3 is held by itself alone");
}

#[test]
fn two_ends_tell_each_others_claims_and_not_their_own() {
    let mut swarm = swarm();
    let ends = [3, 6].map(|chunk| {
        let end = join(&mut swarm, Bitfield::empty(CHUNKS), true);
        swarm.handle_have(NOW, end, chunk);
        end
    });
    let actions = decided(&mut swarm);
    for (end, others) in ends.into_iter().zip([6, 3]) {
        let mut known = Bitfield::empty(CHUNKS);
        told(&actions, end, &mut known);
        assert_eq!(known.iter().collect::<Vec<_>>(), [others]);
    }
}

#[test]
fn an_end_gets_what_it_names_also_what_it_claimed_before_and_nothing_else() {
    let mut swarm = swarm();
    let origin = join(&mut swarm, Bitfield::full(CHUNKS), false);
    let end = join(&mut swarm, Bitfield::full(CHUNKS), true);
    swarm.handle_allowance(NOW, end, u64::from(CHUNKS * CHUNK_BYTES));
    let actions = decided(&mut swarm);
    assert!(actions.contains(&Action::FetchManifest { holder: origin }), "it passes that on");
    swarm.handle_manifest(NOW, origin, Ok(()));
    let fetches = |actions: &[Action]| -> Vec<_> {
        let fetch = |action: &Action| match *action {
            Action::Fetch { fetch_id, chunk, holder } => Some((fetch_id, chunk, holder)),
            _ => None,
        };
        actions.iter().filter_map(fetch).collect()
    };
    assert_eq!(fetches(&decided(&mut swarm)), []);
    swarm.handle_lost(NOW, end, 2);
    swarm.handle_want(NOW, end, &[2]);
    let begun = fetches(&decided(&mut swarm));
    let [(fetch_id, 2, holder)] = begun[..] else { panic!("{begun:?}") };
    assert_eq!(holder, origin);
    swarm.handle_fetched(NOW, fetch_id);
    let delivery = Action::Deliver { chunk: 2, peer: end, offset: 0 };
    assert!(decided(&mut swarm).contains(&delivery));
    swarm.handle_written(NOW, end, 2);
    swarm.handle_have(NOW, end, 2);
    assert_eq!(fetches(&decided(&mut swarm)), []);
}

#[test]
fn a_want_that_is_taken_back_is_fetched_no_more_and_holds_no_leaver() {
    let mut swarm = swarm();
    let leaver = join(&mut swarm, Bitfield::full(CHUNKS), false);
    let end = join(&mut swarm, Bitfield::empty(CHUNKS), true);
    swarm.handle_manifest(NOW, leaver, Ok(()));
    // Without credit nothing is sent.
    swarm.handle_want(NOW, end, &[1, 4]);
    swarm.handle_leaving(NOW, leaver);
    let grant = Action::LeaveGranted { peer: leaver };
    assert!(!decided(&mut swarm).contains(&grant), "others depend on it");
    for chunk in [1, 4, 4] {
        swarm.handle_lost(NOW, end, chunk);
    }
    assert!(decided(&mut swarm).contains(&grant));
}

#[test]
fn what_is_held_here_is_not_fetched_from_another_relay() {
    let mut swarm = swarm();
    let ends = [(); 2].map(|()| join(&mut swarm, Bitfield::full(CHUNKS), true));
    let peer = join(&mut swarm, Bitfield::empty(CHUNKS), false);
    let local = join(&mut swarm, Bitfield::full(CHUNKS), false);
    swarm.handle_manifest(NOW, local, Ok(()));
    swarm.handle_allowance(NOW, peer, u64::from(CHUNK_BYTES));
    let from = |actions: Vec<Action>| {
        actions.into_iter().find_map(|action| match action {
            Action::Fetch { holder, .. } => Some(holder),
            _ => None,
        })
    };
    assert_eq!(from(decided(&mut swarm)), Some(local));
    swarm.handle_gone(NOW, local);
    let holder = from(decided(&mut swarm));
    assert!(holder.is_some_and(|holder| ends.contains(&holder)), "then it is: {holder:?}");
}

#[test]
fn others_count_as_copies_and_as_peers() {
    let mut swarm = swarm();
    join(&mut swarm, Bitfield::full(CHUNKS), true);
    let peer = join(&mut swarm, Bitfield::empty(CHUNKS), false);
    (0..CHUNKS).for_each(|chunk| swarm.handle_have(NOW, peer, chunk));
    let status = swarm.status();
    assert_eq!((status.peers, status.whole_peers, status.copies), (1, 1, 1));
}

#[test]
fn whatever_comes_the_counts_agree_and_each_end_knows_what_others_hold() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed, 0);
        let mut swarm = swarm();
        let mut peers: Vec<(PeerSlot, Option<Bitfield>)> = Vec::new();
        for _ in 0..120 {
            let chunk = u32::try_from(rng.below(CHUNKS.into())).expect("a chunk");
            let picked = (!peers.is_empty())
                .then(|| usize::try_from(rng.below(peers.len() as u64)).expect("one of them"));
            match (rng.below(8), picked) {
                (0, _) | (_, None) if peers.len() < 6 => {
                    let is_uplink = rng.below(2) == 0;
                    let claims = if rng.below(3) == 0 {
                        Bitfield::full(CHUNKS)
                    } else {
                        Bitfield::empty(CHUNKS)
                    };
                    let known = is_uplink.then(|| Bitfield::empty(CHUNKS));
                    peers.push((join(&mut swarm, claims, is_uplink), known));
                }
                (1, Some(at)) => {
                    let (slot, _) = peers.swap_remove(at);
                    swarm.handle_gone(NOW, slot);
                }
                (2, Some(at)) => swarm.handle_lost(NOW, peers[at].0, chunk),
                (3, Some(at)) => swarm.handle_lacking(NOW, peers[at].0, chunk),
                (4, Some(at)) => swarm.handle_want(NOW, peers[at].0, &[chunk]),
                (5, Some(at)) => {
                    swarm.handle_manifest(NOW, peers[at].0, Ok(()));
                    swarm.handle_allowance(NOW, peers[at].0, rng.below(1 << 22));
                }
                (_, Some(at)) => swarm.handle_have(NOW, peers[at].0, chunk),
                (_, None) => {}
            }
            let actions = decided(&mut swarm);
            for (slot, known) in &mut peers {
                if let Some(known) = known {
                    told(&actions, *slot, known);
                }
            }
        }
    }
}
