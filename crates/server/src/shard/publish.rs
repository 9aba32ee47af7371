//! What a shard publishes of itself while it is watched: made here, looked at elsewhere.
//!
//! A shard looks ten times a second whether it is watched. While it is, it copies what an onlooker may see, never
//! waits for the reader, and spends at most a hundredth of its time on this.

use std::{sync::Arc, time::Duration};

use shards::clock;

use super::{desk::Desk, guests::Guests};
use crate::{
    home::{Home, homes::Homes},
    observe::snapshot::{
        ConnectionSnapshot, MAP_COLUMNS_MAX, MAP_ROWS_MAX, MapSnapshot, PeerSnapshot,
        ShardSnapshot, SwarmSnapshot,
    },
};
use relay_protocol::{Bitfield, time::Time};

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
        departures: homes.departures.recent(now).copied().collect(),
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
    let stride = swarm.chunk_count().div_ceil(MAP_COLUMNS_MAX).next_power_of_two().max(1);
    let columns = swarm.chunk_count().div_ceil(stride);
    let row_bytes = columns.div_ceil(8) as usize;
    let mut bits = Vec::new();
    let mut peers = Vec::with_capacity(swarm.peer_count());
    for peer in swarm.watch(now) {
        let Some(member) = home.watch_member(peer.slot) else { continue };
        if with_map && peers.len() < MAP_ROWS_MAX {
            push_row(&mut bits, peer.have, stride, row_bytes);
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
            bits,
            row_bytes,
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

/// Appends one peer's row: whole words where every chunk is shown, else bit by bit.
fn push_row(bits: &mut Vec<u8>, have: &Bitfield, stride: u32, row_bytes: usize) {
    let end = bits.len() + row_bytes;
    if stride == 1 {
        bits.extend(have.words().iter().flat_map(|word| word.to_le_bytes()));
        bits.resize(end, 0);
        return;
    }
    bits.resize(end, 0);
    let row = &mut bits[end - row_bytes..];
    for (column, chunk) in (0..have.len()).step_by(stride as usize).enumerate() {
        row[column / 8] |= u8::from(have.contains(chunk)) << (column % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_every_strideth_chunk() {
        for (chunk_count, stride) in [(1, 1), (63, 1), (64, 1), (100, 1), (100, 4), (1000, 2)] {
            let mut have = Bitfield::empty(chunk_count);
            for chunk in (0..chunk_count).filter(|chunk| chunk % 3 == 0) {
                have.insert(chunk);
            }
            let columns = chunk_count.div_ceil(stride);
            let row_bytes = columns.div_ceil(8) as usize;
            // There may be rows before it.
            let mut bits = vec![0xaa; 7];
            push_row(&mut bits, &have, stride, row_bytes);
            assert_eq!(bits.len(), 7 + row_bytes);
            let row = &bits[7..];
            for column in 0..columns {
                let shown = row[column as usize / 8] >> (column % 8) & 1 == 1;
                assert_eq!(shown, have.contains(column * stride), "{chunk_count} by {stride}");
            }
        }
    }
}
