//! Descriptors: how many are not for peers, and how many peers that leaves.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::http::CONNECTIONS_MAX;

/// Standard streams, log, listeners, control thread, disk thread, spare ones (15 were counted).
const FIXED: u64 = 32;

/// Each shard's ring or epoll, doorbell, hand-off and timers (5 were counted), beside a datagram
/// socket for each address.
const PER_SHARD: u64 = 6;

/// Both ends of a connection from within, and the file that is served.
const PER_OWN_FILE: u64 = 3;

/// What a relay with so many shards, addresses and files of its own needs beside peers.
pub(super) fn reserved(shard_count: usize, address_count: usize, own_files: usize) -> u64 {
    let [shards, addresses, files] = [shard_count, address_count, own_files].map(|n| n as u64);
    FIXED + CONNECTIONS_MAX as u64 + shards * (PER_SHARD + addresses) + files * PER_OWN_FILE
}

/// Peers that fit into a limit, at least one: a relay starts even where hardly anything is allowed.
pub(super) fn peers_that_fit(limit: u64, reserved: u64) -> usize {
    usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX).max(1)
}

/// Raises the descriptor limit as far as allowed; what it is then.
pub(super) fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("failed to raise the descriptor limit: {error}");
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// Peers as many as fit, and no more than wished; says so if that is fewer.
pub(super) fn peers_max(wished: usize, descriptors: u64, reserved: u64) -> usize {
    let fit = peers_that_fit(descriptors, reserved);
    if fit < wished {
        let wanted = reserved.saturating_add(wished as u64);
        tracing::warn!(
            "--max-peers lowered from {wished} to {fit}: the process may open {descriptors} \
             descriptors, and needs {reserved} beside peers; for more, raise the hard limit \
             (ulimit -Hn {wanted} as root, systemd: LimitNOFILE={wanted})"
        );
    }
    wished.min(fit)
}
