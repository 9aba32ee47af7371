//! `/api/v1`: swarms, one swarm with its peers, and shards, as JSON.
//!
//! Lists come in pages of at most [`PAGE_MAX`]: `?offset=` and `?limit=`, and the answer says where
//! the next page begins. Keys have their unit in the name and are promises, like metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use shards::clock;

use super::{
    View,
    board::{Board, Life, PeerState, Seen},
    figures::{self, ShardFigures, Totals},
    frame::{Why, label, milliseconds, phase, swarm_name, whole},
};
use crate::{message::SwarmRef, observe::snapshot::PeerSnapshot};
use relay_protocol::{limits::VERSION, time::Time};

/// Entries of one answer, at most: 1,000 peers are about 300 KiB.
const PAGE_MAX: usize = 1000;

/// Which part of a list.
#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    offset: usize,
    #[serde(default = "page_max")]
    limit: usize,
}

fn page_max() -> usize {
    PAGE_MAX
}

impl Page {
    /// That part of all, and where the next one begins.
    fn of<T>(&self, all: Vec<T>) -> (Vec<T>, Option<usize>) {
        let total = all.len();
        let part: Vec<T> =
            all.into_iter().skip(self.offset).take(self.limit.min(PAGE_MAX)).collect();
        let end = self.offset.saturating_add(part.len());
        (part, (end < total && self.limit > 0).then_some(end))
    }
}

#[derive(Serialize)]
struct About<'a> {
    version: &'static str,
    protocol_version: u16,
    pin: String,
    driver: &'a str,
}

/// What answers here, and what peers know it by.
pub(crate) async fn about(State(view): State<Arc<View>>) -> Response {
    let shared = &view.shared;
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        protocol_version: VERSION,
        pin: shared.policy.identity.pin().to_string(),
        driver: &shared.about.driver,
    };
    Json(about).into_response()
}

#[derive(Serialize)]
struct Shards {
    totals: Totals,
    shards: Vec<ShardFigures>,
}

#[derive(Serialize)]
struct Swarms {
    total: usize,
    offset: usize,
    next_offset: Option<usize>,
    /// Shards whose swarms are as they last were: they did not answer.
    silent_shards: Vec<usize>,
    swarms: Vec<SwarmEntry>,
}

#[derive(Serialize)]
struct SwarmEntry {
    id: String,
    /// The id and the binary logarithm of the chunk's size: what `/api/v1/swarms/` takes.
    name: String,
    /// What an origin would have the file called: its word, which nothing proves.
    label: Option<String>,
    size_bytes: u64,
    chunk_size_bytes: u32,
    chunk_count: u32,
    home_shard: usize,
    phase: &'static str,
    peers: usize,
    peers_whole: usize,
    /// Those that went since it began: with the file, before they had it, and cut off for wrong bytes.
    peers_left: u64,
    peers_dead: u64,
    peers_banned: u64,
    peers_starving: usize,
    chunks_cached: u32,
    chunks_fetching: usize,
    chunks_missing: u32,
    deliveries: u64,
    fetches: u64,
    cache_hits: u64,
    cache_misses: u64,
    cache_evictions: u64,
    hedges: u64,
}

#[derive(Serialize)]
struct SwarmDetail {
    #[serde(flatten)]
    swarm: SwarmEntry,
    /// The most needed cached chunks, each with how many peers still need it.
    cached: Vec<CachedEntry>,
    total: usize,
    offset: usize,
    next_offset: Option<usize>,
    peers_list: Vec<PeerEntry>,
    /// Those that went in the last minute, the last 256; it makes no difference whether there was a watcher.
    gone: Vec<GoneEntry>,
    silent_shards: Vec<usize>,
}

#[derive(Serialize)]
struct CachedEntry {
    chunk: u32,
    needed_by: u32,
}

#[derive(Serialize)]
struct PeerEntry {
    peer: u64,
    remote: String,
    shard: usize,
    state: PeerState,
    chunks_held: u32,
    progress_ratio: f64,
    is_origin: bool,
    idle_ms: u64,
    chunks_on_their_way: usize,
    chunks_asked_of_it: u32,
    window_bytes: Option<u64>,
    unacknowledged_bytes: Option<u64>,
    #[serde(flatten)]
    why: Why,
}

#[derive(Serialize)]
struct GoneEntry {
    peer: u64,
    remote: String,
    state: PeerState,
    chunks_held: u32,
    gone_ms: u64,
}

/// `/api/v1/shards`.
pub(crate) async fn shards(State(view): State<Arc<View>>) -> Response {
    let ages = view.heartbeats.ages(clock::now());
    let shards = figures::of_shards(&view.shared, &ages);
    Json(Shards { totals: Totals::of(&view.shared), shards }).into_response()
}

/// `/api/v1/swarms`.
pub(crate) async fn swarms(State(view): State<Arc<View>>, Query(page): Query<Page>) -> Response {
    let looked = view.feed.look(move |board, silent| {
        let alive = living(board);
        let total = alive.len();
        let (part, next_offset) = page.of(alive);
        Swarms {
            total,
            offset: page.offset,
            next_offset,
            silent_shards: silent.to_vec(),
            swarms: part.into_iter().map(|(reference, life)| entry(reference, life)).collect(),
        }
    });
    looked.await.map_or_else(too_busy, |swarms| Json(swarms).into_response())
}

/// `/api/v1/swarms/{id}`.
pub(crate) async fn swarm(
    State(view): State<Arc<View>>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Response {
    let looked = view.feed.look(move |board, silent| {
        // The same file may be shared with chunks of several sizes: the largest swarm is meant,
        // unless the name says which.
        let is_it = |life: &Life| life.swarm.key.id.to_string() == id || swarm_name(life) == id;
        let found = living(board).into_iter().find(|(_, life)| is_it(life));
        found.map(|(reference, life)| detail(board, reference, life, &page, silent))
    });
    match looked.await {
        None => too_busy(),
        Some(Some(detail)) => Json(detail).into_response(),
        Some(None) => problem(
            StatusCode::NOT_FOUND,
            "no swarm has this id now: /api/v1/swarms lists those that have peers",
        ),
    }
}

fn too_busy() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "too many ask at once: try again")
}

pub(crate) fn problem(status: StatusCode, error: &'static str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Swarms that have peers.
fn living(board: &Board) -> Vec<(SwarmRef, &Life)> {
    let mut all = board.swarms();
    all.retain(|(_, life)| life.ended_at.is_none());
    all
}

fn entry(reference: SwarmRef, life: &Life) -> SwarmEntry {
    let swarm = &life.swarm;
    let key = &swarm.key;
    SwarmEntry {
        id: key.id.to_string(),
        name: swarm_name(life),
        label: label(life),
        size_bytes: key.size_bytes,
        chunk_size_bytes: key.chunk_size_bytes(),
        chunk_count: key.chunk_count(),
        home_shard: reference.home.index(),
        phase: phase(life),
        peers: life.peers.len(),
        peers_whole: whole(life),
        peers_left: life.endings.left,
        peers_dead: life.endings.dead,
        peers_banned: life.endings.banned,
        peers_starving: swarm.starving_count,
        chunks_cached: swarm.cached_count,
        chunks_fetching: swarm.fetch_count,
        chunks_missing: swarm.missing_count,
        deliveries: swarm.counters.deliveries,
        fetches: swarm.counters.fetches,
        cache_hits: swarm.counters.hits,
        cache_misses: swarm.counters.misses,
        cache_evictions: swarm.counters.evictions,
        hedges: swarm.counters.hedges,
    }
}

fn detail(
    board: &Board,
    reference: SwarmRef,
    life: &Life,
    page: &Page,
    silent: &[usize],
) -> SwarmDetail {
    let now = Time::from_start(clock::now());
    let cached = life.swarm.cached.iter();
    let (part, next_offset) = page.of(life.swarm.peers.iter().collect());
    let peers = part.into_iter().filter_map(|peer| peer_entry(board, life, peer));
    let gone = life.gone.iter().map(|gone| GoneEntry {
        peer: gone.seen.row,
        remote: gone.seen.name(),
        state: gone.seen.state,
        chunks_held: gone.seen.chunks_held,
        gone_ms: milliseconds(now.since(gone.at)),
    });
    SwarmDetail {
        swarm: entry(reference, life),
        cached: cached.map(|&(chunk, needed_by)| CachedEntry { chunk, needed_by }).collect(),
        total: life.swarm.peers.len(),
        offset: page.offset,
        next_offset,
        peers_list: peers.collect(),
        gone: gone.collect(),
        silent_shards: silent.to_vec(),
    }
}

fn peer_entry(board: &Board, life: &Life, peer: &PeerSnapshot) -> Option<PeerEntry> {
    let seen: &Seen = life.peers.get(&peer.connection)?;
    let connection = board.connection_of(peer);
    Some(PeerEntry {
        peer: seen.row,
        remote: seen.name(),
        shard: peer.connection.shard.index(),
        state: seen.state,
        chunks_held: seen.chunks_held,
        progress_ratio: f64::from(seen.chunks_held)
            / f64::from(life.swarm.key.chunk_count().max(1)),
        is_origin: seen.is_origin,
        idle_ms: milliseconds(peer.idle),
        chunks_on_their_way: peer.deliveries,
        chunks_asked_of_it: peer.fetches,
        window_bytes: connection.map(|connection| connection.window_bytes),
        unacknowledged_bytes: connection.map(|connection| connection.unacknowledged_bytes),
        why: Why::of(life, peer),
    })
}
