//! What the relay's limits mean for one swarm: how much it asks for at once, and how long that may take. Pure.
//!
//! What is asked for and not read yet lies in sockets, and the messages of its holders behind it. So no more is asked for
//! than is read in [`AHEAD`], beside the chunk that is being read; with slow limits one chunk after the other.

use std::time::Duration;

use crate::limits::Limits;
use relay_protocol::rate::Rate;

/// Fetches are under way for so long a time of a limit, beside the one that is being read and the next: as long as a
/// long path's round trip, so that a limit can be used up over such a path.
const AHEAD: Duration = Duration::from_millis(250);

/// Where a chunk takes so long to be read, none is asked for before the last has come.
const ONE_BY_ONE: Duration = Duration::from_secs(1);

/// Of a swarm with chunks of this length, while `fetching_bytes` are under way to all homes.
pub(crate) fn of_swarm(
    limits: &Limits,
    chunk_bytes: u64,
    fetching_bytes: u64,
    holds_back: bool,
) -> relay_swarm::Limits {
    let fetches = |limit: Option<Rate>| limit.map_or(u32::MAX, |rate| fetches(rate, chunk_bytes));
    let (fetches_max, each_max) = (fetches(limits.ingress), fetches(limits.peer));
    let depth_max = fetches_max.min(each_max);
    // Twice what it takes, as limits are kept on average and paths take their time.
    let time =
        |limit: Option<Rate>, bytes| limit.map_or(Duration::ZERO, |rate| 2 * rate.time_for(bytes));
    let of_all = time(limits.ingress, fetching_bytes.saturating_add(chunk_bytes));
    let of_each = time(limits.peer, chunk_bytes.saturating_mul(depth_max.into()));
    relay_swarm::Limits { fetches_max, depth_max, patience: of_all.max(of_each), holds_back }
}

/// Fetches that may be under way at once.
fn fetches(rate: Rate, chunk_bytes: u64) -> u32 {
    if rate.time_for(chunk_bytes) >= ONE_BY_ONE {
        return 1;
    }
    let ahead = rate.bytes_in(AHEAD) / chunk_bytes;
    u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 256 << 10;

    fn limits(ingress: u64, peer: u64) -> Limits {
        Limits { egress: None, ingress: Rate::new(ingress), peer: Rate::new(peer) }
    }

    #[test]
    fn without_limits_a_swarm_has_none() {
        assert_eq!(of_swarm(&limits(0, 0), CHUNK, 9 << 20, false), relay_swarm::Limits::default());
    }

    #[test]
    fn no_more_is_asked_for_than_can_be_read_soon() {
        for (ingress, fetches) in
            [(1000, 1), (CHUNK, 1), (1 << 20, 3), (20 << 20, 22), (200 << 20, 202)]
        {
            let of = of_swarm(&limits(ingress, 0), CHUNK, 0, false);
            assert_eq!((of.fetches_max, of.depth_max), (fetches, fetches), "{ingress}");
        }
        let of = of_swarm(&limits(20 << 20, 1 << 20), CHUNK, 0, false);
        assert_eq!((of.fetches_max, of.depth_max), (22, 3));
    }

    #[test]
    fn a_fetch_is_late_only_when_it_could_have_been_read_twice() {
        let of = of_swarm(&limits(1 << 20, 0), CHUNK, 3 * CHUNK, false);
        assert_eq!(of.patience, Duration::from_secs(2));
        let of = of_swarm(&limits(0, 1000), CHUNK, 3 * CHUNK, true);
        assert!(of.patience > Duration::from_secs(520) && of.holds_back);
    }
}
