//! One number for all that the swarms of a run decided, and when: two trees that decide alike print the same
//! ones (`cargo test --test simulation -- --nocapture`, lines that begin with `digest`).

use std::cell::Cell;

use relay::{protocol::ChunkRange, swarm::Action};

thread_local! {
    /// Of all runs on this thread so far.
    static ALL: Cell<u64> = const { Cell::new(0) };
}

/// Folds one more number in (the finish of `SplitMix64`).
fn fold(digest: u64, number: u64) -> u64 {
    let mut mixed = (digest ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What one run decided so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Digest(u64);

impl Digest {
    /// The numbers came next.
    pub(super) fn add(&mut self, numbers: &[u64]) {
        self.0 = numbers.iter().fold(self.0, |digest, &number| fold(digest, number));
    }

    /// The swarm of this home decided this.
    pub(super) fn act(&mut self, now: u64, home: usize, action: &Action) {
        self.add(&[now, home as u64]);
        self.add(&numbers(action));
    }

    /// The run is over; its digest.
    pub(super) fn end(self) -> u64 {
        ALL.set(fold(ALL.get(), self.0));
        self.0
    }
}

/// The digest of all runs on this thread since it was last asked for.
pub(super) fn take_all() -> u64 {
    ALL.replace(0)
}

fn numbers(action: &Action) -> [u64; 5] {
    let four = |kind, a: u32, b: u32, c: u32| [kind, a.into(), b.into(), c.into(), 0];
    match *action {
        Action::WantRoom => four(0, 0, 0, 0),
        Action::TryRoom => four(1, 0, 0, 0),
        Action::ReleaseRoom => four(2, 0, 0, 0),
        Action::Fetch { fetch_id, chunk, holder } => four(3, fetch_id.0, chunk, holder.0),
        Action::CancelFetch { fetch_id, holder, keep_room } => {
            four(4, fetch_id.0, holder.0, keep_room.into())
        }
        Action::FetchManifest { holder } => four(5, holder.0, 0, 0),
        Action::Deliver { chunk, peer, offset } => four(6, chunk, peer.0, offset),
        Action::Evict { chunk } => four(7, chunk, 0, 0),
        Action::Recall { chunk } => four(8, chunk, 0, 0),
        Action::CutOff { chunk, peer, has_it } => four(9, chunk, peer.0, has_it.into()),
        Action::Ban { peer } => four(10, peer.0, 0, 0),
        Action::SeedingDone { origin } => four(11, origin.0, 0, 0),
        Action::LeaveGranted { peer } => four(12, peer.0, 0, 0),
        Action::Waiting { peer, missing_count, first_missing, deadline } => {
            let [kind, a, b, c, _] = four(13, peer.0, missing_count, first_missing);
            [kind, a, b, c, u64::try_from(deadline.as_nanos()).expect("a deadline")]
        }
        Action::GiveUp { peer, missing_count, is_given_up } => {
            four(14, peer.0, missing_count, is_given_up.into())
        }
        Action::Available { peer, ref ranges, held } => {
            let both = |range: &ChunkRange| u64::from(range.first) << 32 | u64::from(range.count);
            let chunks = ranges.iter().fold(0, |digest, range| fold(digest, both(range)));
            [15, peer.0.into(), held.into(), chunks, 0]
        }
    }
}
