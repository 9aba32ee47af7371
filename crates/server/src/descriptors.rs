//! Descriptors: how many are not for peers, how those that are left are shared out, and how few are too few.
//!
//! Connections that have not introduced themselves have none kept for them: they take what peers don't have, and
//! the listener refuses what is beyond.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Connections at once: pages that are open, some scrapers, and as many again. They need descriptors,
/// which peers want: where these are few, fewer are let in.
const CONNECTIONS_MAX: usize = 64;

/// Pages that are open at once: each costs the control thread some work four times a second.
const WATCHERS_MAX: usize = 16;

/// Connections of the process that only ask for counters, at once: scripts and load generators, one or
/// two of each. Few descriptors allow fewer.
const OBSERVERS_MAX: usize = 256;

/// Standard streams, log, signals, listener, control thread, disk thread (15 were counted), and spare ones.
const FIXED: u64 = 20;

/// Each shard's ring or epoll, doorbell, hand-off and timers, beside a datagram socket for each address.
const PER_SHARD: u64 = 5;

/// Both ends of a connection from within, and the file that is served.
const PER_OWN_FILE: u64 = 3;

/// HTTP and those that only ask for counters each have one of so many places.
const PART: u64 = 16;

/// However few there are: a probe, a scraper, a page and a person that looks for a fault.
const HTTP_MIN: u64 = 4;

/// However few there are: load generators and scripts, two of them.
const OBSERVERS_MIN: u64 = 4;

/// Files of chunks, at most: 1 GiB of chunks of 64 KiB. Where descriptors are short, chunks are copied.
const FILES_MAX: usize = 16_384;

/// Fewer peers than this move no file.
const PEERS_MIN: u64 = 2;

/// How many of each kind may be connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// HTTP connections.
    pub http: usize,
    /// Of them, those that are open pages.
    pub pages: usize,
    /// Connections that only ask for counters.
    pub observers: usize,
    /// Introduced peers.
    pub peers: usize,
    /// Files of chunks, of what is left.
    pub files: usize,
}

/// What a relay's descriptors are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    /// The process may open so many; `None` is no limit.
    pub limit: Option<u64>,
    /// So many are for neither peers nor HTTP nor observers.
    own: u64,
    /// `--max-peers`.
    wished: u64,
    shard_count: usize,
}

/// Too few for a relay.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the process may open {limit} descriptors, and a relay with {shards} event loops needs {least} to serve \
     {PEERS_MIN} peers: raise the hard limit (ulimit -Hn {least} as root, systemd: LimitNOFILE={least}), or \
     take fewer --cores"
)]
pub struct TooFew {
    pub limit: u64,
    pub least: u64,
    pub shards: usize,
}

impl Descriptors {
    /// For a relay with so many shards, addresses and files of its own.
    pub fn new(
        limit: Option<u64>,
        wished: usize,
        shard_count: usize,
        address_count: usize,
        own_files: usize,
    ) -> Self {
        let [shards, addresses, files] = [shard_count, address_count, own_files].map(|n| n as u64);
        let own = FIXED + shards * (PER_SHARD + addresses) + files * PER_OWN_FILE;
        Self { limit, own, wished: wished as u64, shard_count }
    }

    /// The places that there are.
    ///
    /// # Errors
    /// Not even two peers could be served.
    pub fn places(&self) -> Result<Places, TooFew> {
        let room = self.limit.unwrap_or(u64::MAX).saturating_sub(self.own);
        let http = (room / PART).clamp(HTTP_MIN, CONNECTIONS_MAX as u64);
        let observers = (room / PART).clamp(OBSERVERS_MIN, OBSERVERS_MAX as u64);
        let peers = room.saturating_sub(http + observers).min(self.wished);
        if peers < PEERS_MIN.min(self.wished) {
            let least = self.own + HTTP_MIN + OBSERVERS_MIN + PEERS_MIN.min(self.wished);
            let limit = self.limit.unwrap_or(u64::MAX);
            return Err(TooFew { limit, least, shards: self.shard_count });
        }
        let files = room.saturating_sub(http + observers + peers).min(FILES_MAX as u64);
        let [http, observers, peers, files] =
            [http, observers, peers, files].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        // The other HTTP connections are for those that ask and go.
        let pages = (http / 4).clamp(1, WATCHERS_MAX);
        Ok(Places { http, pages, observers, peers, files })
    }

    /// What the limit would have to be for as many peers as are wished.
    pub fn wanted(&self) -> u64 {
        self.own + (CONNECTIONS_MAX + OBSERVERS_MAX) as u64 + self.wished
    }

    /// Says that there are fewer places for peers than are wished, if so.
    pub fn shortage(&self, places: &Places) -> Option<String> {
        let (limit, wished) = (self.limit?, self.wished);
        let beside = self.own + (places.http + places.observers) as u64;
        ((places.peers as u64) < wished).then(|| {
            format!(
                "--max-peers lowered from {wished} to {}: the process may open {limit} descriptors, and keeps \
                 {beside} for other than peers, {} of them for HTTP and {} for those who only ask for counters",
                places.peers, places.http, places.observers
            )
        })
    }
}

/// Raises the descriptor limit as far as allowed; what it is then.
pub(super) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("failed to raise the descriptor limit: {error}");
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current
}

/// The places that there are; says so if they are fewer than wished.
pub(super) fn share_out(descriptors: &Descriptors) -> Result<Places, TooFew> {
    let places = descriptors.places()?;
    if let Some(text) = descriptors.shortage(&places) {
        let wanted = descriptors.wanted();
        tracing::warn!(
            "{text}; for more, raise the hard limit (ulimit -Hn {wanted} as root, systemd: \
             LimitNOFILE={wanted})"
        );
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(limit: u64, shards: usize) -> Result<Places, TooFew> {
        Descriptors::new(Some(limit), 16_384, shards, 2, 0).places()
    }

    #[test]
    fn few_descriptors_are_for_peers_first() {
        let few = places(96, 2).expect("they are enough");
        assert!(few.peers >= 40 && few.http >= 4 && few.pages == 1, "{few:?}");
        assert!(places(96, 4).is_ok_and(|few| few.peers >= 30));
        let many = places(1 << 20, 8).expect("they are enough");
        let all = Places { http: 64, pages: 16, observers: 256, peers: 16_384, files: 16_384 };
        assert_eq!(many, all);
        let wanted = Descriptors::new(Some(0), 16_384, 8, 2, 0).wanted();
        assert_eq!(places(wanted, 8), Ok(Places { files: 0, ..all }), "peers come first");
        for limit in 44..2000 {
            let Places { http, observers, peers, files, .. } =
                places(limit, 2).expect("they are enough");
            assert!((http + observers + peers + files) as u64 + 34 <= limit, "{limit}");
        }
    }

    #[test]
    fn what_serves_no_two_is_refused_with_the_numbers() {
        let error = places(40, 2).expect_err("they are too few");
        assert_eq!(error, TooFew { limit: 40, least: 44, shards: 2 });
        let text = error.to_string();
        assert!(text.contains("may open 40") && text.contains("LimitNOFILE=44"), "{text}");
        assert_eq!(places(44, 2).map(|places| places.peers), Ok(2));
        assert_eq!(places(43, 2).map_err(|error| error.least), Err(44));
        assert!(Descriptors::new(Some(43), 1, 2, 2, 0).places().is_ok(), "one was asked for");
        assert!(Descriptors::new(None, 16_384, 2, 2, 0).places().is_ok(), "there is no limit");
    }
}
