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

/// What is being fetched.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct UnderWay {
    /// For all swarms of the process.
    pub all_bytes: u64,
    /// Swarms that fetch.
    pub swarms: u64,
    /// Fetches of the one that is spoken of.
    pub own: u64,
}

/// Of a swarm with chunks of this length.
pub(crate) fn of_swarm(
    limits: &Limits,
    chunk_bytes: u64,
    under_way: UnderWay,
    holds_back: bool,
) -> relay_swarm::Limits {
    let ingress = limits.ingress.map(|rate| part(rate, chunk_bytes, under_way));
    let peer = limits.peer.map(|rate| fetches(rate, chunk_bytes));
    let (fetches_max, each_max) = (ingress.unwrap_or(u32::MAX), peer.unwrap_or(u32::MAX));
    let depth_max = fetches_max.min(each_max);
    // Twice what it takes, as limits are kept on average and paths take their time.
    let time =
        |limit: Option<Rate>, bytes| limit.map_or(Duration::ZERO, |rate| 2 * rate.time_for(bytes));
    let of_all = time(limits.ingress, under_way.all_bytes.saturating_add(chunk_bytes));
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

/// A swarm's part of the fetches that may be under way at once. It has what there is alone. Beside others it gets one
/// more, and its part of what is left, only while less is under way than is read in [`AHEAD`]; where more is, each
/// gives up in proportion. One each has.
fn part(rate: Rate, chunk_bytes: u64, under_way: UnderWay) -> u32 {
    let UnderWay { all_bytes, swarms, own } = under_way;
    let most = fetches(rate, chunk_bytes);
    let ahead = rate.bytes_in(AHEAD);
    if all_bytes <= own.saturating_mul(chunk_bytes) {
        return most;
    }
    let wished = match ahead.checked_sub(all_bytes) {
        Some(left) => own + 1 + left / chunk_bytes / swarms.max(1),
        None => {
            u64::try_from(u128::from(own) * u128::from(ahead) / u128::from(all_bytes)).unwrap_or(0)
        }
    };
    u32::try_from(wished).unwrap_or(u32::MAX).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 256 << 10;

    fn limits(ingress: u64, peer: u64) -> Limits {
        Limits { egress: None, ingress: Rate::new(ingress), peer: Rate::new(peer) }
    }

    /// So many fetches of the swarm itself, and of others.
    fn under_way(own: u64, others: u64, swarms: u64) -> UnderWay {
        UnderWay { all_bytes: (own + others) * CHUNK, swarms, own }
    }

    #[test]
    fn without_limits_a_swarm_has_none() {
        let of = of_swarm(&limits(0, 0), CHUNK, under_way(6, 30, 3), false);
        assert_eq!(of, relay_swarm::Limits::default());
    }

    #[test]
    fn swarms_share_what_is_asked_for_at_once() {
        let limits = limits(20 << 20, 0);
        let ahead = 20;
        // All of them begin with what one may have alone, and more come.
        for swarms in [2, 5, 40, 1000_u64] {
            let mut own = vec![22_u64; usize::try_from(swarms).expect("a few")];
            for _ in 0..100 {
                let all: u64 = own.iter().sum();
                for own in &mut own {
                    let others = all - *own;
                    let of = of_swarm(&limits, CHUNK, under_way(*own, others, swarms), false);
                    *own = of.fetches_max.into();
                }
            }
            let all: u64 = own.iter().sum();
            assert!(all <= ahead + swarms, "{all} of {swarms} swarms");
            assert!(all >= ahead / 2 && own.iter().all(|&own| own > 0), "{all} of {swarms}");
        }
        // One that has nothing may begin, and one that is left alone has all again.
        assert_eq!(of_swarm(&limits, CHUNK, under_way(0, 500, 9), false).fetches_max, 1);
        assert_eq!(of_swarm(&limits, CHUNK, under_way(1, 0, 1), false).fetches_max, 22);
    }

    #[test]
    fn no_more_is_asked_for_than_can_be_read_soon() {
        for (ingress, fetches) in
            [(1000, 1), (CHUNK, 1), (1 << 20, 3), (20 << 20, 22), (200 << 20, 202)]
        {
            let of = of_swarm(&limits(ingress, 0), CHUNK, under_way(0, 0, 0), false);
            assert_eq!((of.fetches_max, of.depth_max), (fetches, fetches), "{ingress}");
        }
        let of = of_swarm(&limits(20 << 20, 1 << 20), CHUNK, under_way(0, 0, 0), false);
        assert_eq!((of.fetches_max, of.depth_max), (22, 3));
    }

    #[test]
    fn a_fetch_is_late_only_when_it_could_have_been_read_twice() {
        let of = of_swarm(&limits(1 << 20, 0), CHUNK, under_way(3, 0, 1), false);
        assert_eq!(of.patience, Duration::from_secs(2));
        let of = of_swarm(&limits(0, 1000), CHUNK, under_way(3, 0, 1), true);
        assert!(of.patience > Duration::from_secs(520) && of.holds_back);
    }
}
