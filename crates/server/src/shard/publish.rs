//! What a shard publishes of itself while it is watched: made here, looked at elsewhere.
//!
//! A shard looks ten times a second whether it is watched. While it is, it copies what an onlooker may see, never
//! waits for the reader, and spends at most a hundredth of its time on this.

use std::{sync::Arc, time::Duration};

use shards::clock;

use super::{desk::Desk, guests::Guests};
use crate::{
    home::{Home, homes::Homes},
    observe::{
        map_row::{push_row, stride_of},
        snapshot::{
            ConnectionSnapshot, MAP_ROWS_MAX, MapSnapshot, PeerSnapshot, ShardSnapshot,
            SwarmSnapshot,
        },
    },
};
use relay_protocol::time::Time;

/// How often a shard publishes at most: smooth enough to the eye.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// After a snapshot that took so long, the next comes at least so many times later: a shard with
/// 10,000 peers publishes less often, not at more cost.
const COST_FACTOR: u32 = 100;

/// However dear, a snapshot comes so often: watchers wait for it.
const PUBLISH_EVERY_MAX: Duration = Duration::from_secs(1);

/// Swarms of a shard that come with a map, at most: those with the most peers. Together with the
/// bounds of one map it bounds a snapshot's maps to 4 MiB.
const MAPS_PER_SHARD_MAX: usize = 8;

/// Cached chunks that are listed with how many peers still need them.
const CACHED_LISTED_MAX: usize = 256;

/// When a shard publishes next.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    next_at: Time,
}

impl Publisher {
    /// Publishes what there is to see, if the shard is watched and it is time.
    pub(crate) fn run(&mut self, desk: &Desk, guests: &Guests, homes: &Homes, now: Time) {
        if now < self.next_at {
            return;
        }
        // Without a place in the channel there is no need to look.
        let Some(place) = desk.shared.watch.place(now) else { return };
        let began = clock::now();
        place.send(Arc::new(snapshot(desk, guests, homes, now)));
        let cost = clock::now().saturating_sub(began);
        self.next_at = now + (cost * COST_FACTOR).clamp(PUBLISH_EVERY, PUBLISH_EVERY_MAX);
    }
}

fn snapshot(desk: &Desk, guests: &Guests, homes: &Homes, now: Time) -> ShardSnapshot {
    let connections = guests.iter().filter_map(|connection| {
        let link = connection.link();
        let window = link.session.window();
        link.membership.member().map(|_| ConnectionSnapshot {
            reference: connection.reference,
            remote: connection.remote,
            stalled: link.stalled_for(now).unwrap_or_default(),
            quiet: link.quiet_for(now),
            window_bytes: window.size_bytes(),
            unacknowledged_bytes: window.unacknowledged_bytes(),
        })
    });
    ShardSnapshot {
        shard: desk.id(),
        at: now,
        connections: connections.collect(),
        swarms: homes_by_size(homes.iter(), now),
        departures: homes.departures.recent(now).cloned().collect(),
    }
}

/// All homes, those with the most peers first and with a map.
fn homes_by_size<'a>(homes: impl Iterator<Item = &'a Home>, now: Time) -> Vec<Arc<SwarmSnapshot>> {
    let mut homes: Vec<&Home> = homes.collect();
    homes.sort_by_key(|home| (std::cmp::Reverse(home.swarm().peer_count()), home.reference()));
    let with_map = |(place, home)| Arc::new(swarm(home, now, place < MAPS_PER_SHARD_MAX));
    homes.into_iter().enumerate().map(with_map).collect()
}

fn swarm(home: &Home, now: Time, with_map: bool) -> SwarmSnapshot {
    let swarm = home.swarm();
    let stride = stride_of(swarm.chunk_count());
    let mut bits = Vec::new();
    let mut peers = Vec::with_capacity(swarm.peer_count());
    for peer in swarm.watch(now) {
        let Some(member) = home.watch_member(peer.slot) else { continue };
        if with_map && peers.len() < MAP_ROWS_MAX {
            push_row(&mut bits, peer.have, stride);
        }
        peers.push(PeerSnapshot {
            connection: member.connection,
            slot: peer.slot,
            chunks_held: member.chunks_held,
            chunks_claimed: member.chunks_claimed,
            wait: peer.wait,
            idle: peer.idle,
            deliveries: peer.deliveries,
            fetches: peer.fetches,
            is_origin: peer.is_origin,
            is_leaving: member.has_said_farewell,
        });
    }
    let map = with_map.then(|| {
        let shown = (0..swarm.chunk_count()).step_by(stride as usize);
        MapSnapshot {
            stride,
            places: shown.map(|chunk| swarm.place(chunk)).collect(),
            row_bytes: swarm.chunk_count().div_ceil(stride).div_ceil(8) as usize,
            bits,
        }
    });
    SwarmSnapshot {
        key: *home.key(),
        label: home.label().cloned(),
        reference: home.reference(),
        counters: swarm.counters(),
        is_seeding: swarm.is_seeding(),
        has_manifest: swarm.has_manifest(),
        cached_count: swarm.cached_count(),
        fetch_count: swarm.fetch_count(),
        starving_count: swarm.starving_count(),
        missing_count: swarm.missing_count(),
        endings: home.endings(),
        cached: swarm.cached().take(CACHED_LISTED_MAX).collect(),
        peers,
        map,
    }
}
