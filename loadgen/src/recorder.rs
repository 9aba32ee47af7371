//! What a run with `--report` keeps beside its counters: which client had how much when, how long chunks
//! took, and where their bytes came from.
//!
//! One recorder for each shard, merged at the end. Its memory is bounded whatever the number of
//! clients and chunks, and a chunk costs a few additions: curves of clients are kept at [`SHARES`]
//! points each, clients by chunks in at most [`ROWS_MAX`] by [`COLUMNS_MAX`] cells (means of what
//! falls into one), times in at most [`SLOTS_MAX`] slots, which double in length when they run out.

use std::time::Duration;

/// Points of a client's curve: when it had each 32nd of its file.
pub(crate) const SHARES: u32 = 32;

/// Rows of the map of clients by chunks, at most.
pub(crate) const ROWS_MAX: usize = 128;

/// Columns of that map, at most; and parts of the file whose latency is told apart.
pub(crate) const COLUMNS_MAX: usize = 256;

/// Slots of time, at most.
const SLOTS_MAX: usize = 512;

/// The first slots are so long.
const SLOT_FIRST: Duration = Duration::from_millis(1);

/// Latencies are told apart by half octaves from a microsecond on: up to 71 minutes.
pub(crate) const BANDS: usize = 64;

/// How a run is recorded; the same for all shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recording {
    pub(crate) clients: usize,
    pub(crate) chunk_count: u32,
}

/// What is known of one shard's clients, or, merged, of all.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    recording: Recording,
    /// By client: seconds at which it had each share; only of those that live here.
    curves: Vec<Option<Box<Curve>>>,
    slots: Slots,
    columns: Vec<Column>,
    /// Row by row.
    cells: Vec<Cell>,
}

#[derive(Clone, Debug)]
struct Curve {
    have: u32,
    /// The next share to be reached, from 1.
    next: u32,
    at_seconds: [f32; SHARES as usize],
}

/// What happened in one slot of time.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Bytes that clients verified.
    pub(crate) verified_bytes: u64,
    /// Bytes that the origin supplied to the relay.
    pub(crate) origin_bytes: u64,
    /// Bytes that clients supplied to the relay.
    pub(crate) peer_bytes: u64,
    /// Chunks by their latency.
    pub(crate) bands: [u32; BANDS],
}

impl Default for Slot {
    fn default() -> Self {
        Self { verified_bytes: 0, origin_bytes: 0, peer_bytes: 0, bands: [0; BANDS] }
    }
}

/// Latencies of one part of the file.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Column {
    nanos_sum: u64,
    count: u64,
    nanos_max: u64,
}

impl Column {
    /// Not a number if no chunk of it came.
    pub(crate) fn mean_seconds(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.nanos_sum as f64 / self.count as f64 / 1e9 }
    }

    /// The longest.
    pub(crate) fn max_seconds(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.nanos_max as f64 / 1e9 }
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Cell {
    micros_sum: u64,
    count: u32,
}

/// Slots of equal length, from the start on.
#[derive(Clone, Debug)]
struct Slots {
    length: Duration,
    slots: Vec<Slot>,
}

impl Slots {
    fn at(&mut self, since_start: Duration) -> &mut Slot {
        let mut index = self.index(since_start);
        while index >= SLOTS_MAX {
            self.double();
            index = self.index(since_start);
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        &mut self.slots[index]
    }

    fn index(&self, since_start: Duration) -> usize {
        usize::try_from(since_start.as_nanos() / self.length.as_nanos()).unwrap_or(usize::MAX)
    }

    fn double(&mut self) {
        let pairs = self.slots.chunks(2).map(|pair| {
            let mut sum = pair[0].clone();
            pair.iter().skip(1).for_each(|slot| sum.add(slot));
            sum
        });
        self.slots = pairs.collect();
        self.length *= 2;
    }

    fn merge(&mut self, mut other: Self) {
        while self.length < other.length {
            self.double();
        }
        while other.length < self.length {
            other.double();
        }
        let len = self.slots.len().max(other.slots.len());
        self.slots.resize_with(len, Slot::default);
        self.slots.iter_mut().zip(&other.slots).for_each(|(slot, more)| slot.add(more));
    }
}

impl Slot {
    fn add(&mut self, other: &Self) {
        self.verified_bytes += other.verified_bytes;
        self.origin_bytes += other.origin_bytes;
        self.peer_bytes += other.peer_bytes;
        self.bands.iter_mut().zip(other.bands).for_each(|(band, more)| *band += more);
    }
}

impl Recorder {
    /// Nothing yet.
    pub(crate) fn new(recording: Recording) -> Self {
        let columns = (recording.chunk_count as usize).min(COLUMNS_MAX);
        let rows = recording.clients.min(ROWS_MAX);
        Self {
            recording,
            curves: vec![None; recording.clients],
            slots: Slots { length: SLOT_FIRST, slots: Vec::new() },
            columns: vec![Column::default(); columns],
            cells: vec![Cell::default(); rows * columns],
        }
    }

    /// A client verified a chunk, so long after the first connect.
    pub(crate) fn verified(
        &mut self,
        since: Duration,
        client: usize,
        chunk: u32,
        bytes: u32,
        latency: Duration,
    ) {
        let slot = self.slots.at(since);
        slot.verified_bytes += u64::from(bytes);
        slot.bands[band(latency)] += 1;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let index = self.column_of(chunk);
        let column = &mut self.columns[index];
        column.nanos_sum = column.nanos_sum.saturating_add(nanos);
        column.nanos_max = column.nanos_max.max(nanos);
        column.count += 1;
        let row = client * self.row_count() / self.recording.clients;
        let cell = row * self.columns.len() + index;
        self.cells[cell].micros_sum += u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.cells[cell].count += 1;
        let chunk_count = self.recording.chunk_count;
        let curve = self.curves[client].get_or_insert_with(Curve::new);
        curve.advance(since.as_secs_f32(), chunk_count);
    }

    /// An origin (or else a client) supplied so many bytes to the relay.
    pub(crate) fn served(&mut self, since: Duration, is_origin: bool, bytes: u32) {
        let slot = self.slots.at(since);
        let counter = if is_origin { &mut slot.origin_bytes } else { &mut slot.peer_bytes };
        *counter += u64::from(bytes);
    }

    /// Adds what another shard recorded of the same run.
    pub(crate) fn merge(&mut self, other: Self) {
        for (curve, more) in self.curves.iter_mut().zip(other.curves) {
            *curve = curve.take().or(more);
        }
        self.slots.merge(other.slots);
        for (column, more) in self.columns.iter_mut().zip(other.columns) {
            column.nanos_sum = column.nanos_sum.saturating_add(more.nanos_sum);
            column.count += more.count;
            column.nanos_max = column.nanos_max.max(more.nanos_max);
        }
        for (cell, more) in self.cells.iter_mut().zip(other.cells) {
            cell.micros_sum += more.micros_sum;
            cell.count += more.count;
        }
    }

    /// Chunks by how long they took, over the whole run.
    pub(crate) fn band_counts(&self) -> [u64; BANDS] {
        let mut counts = [0; BANDS];
        for slot in self.slots().1 {
            counts.iter_mut().zip(slot.bands).for_each(|(sum, count)| *sum += u64::from(count));
        }
        counts
    }

    /// Length of a slot, and the slots from the start on.
    pub(crate) fn slots(&self) -> (f64, &[Slot]) {
        (self.slots.length.as_secs_f64(), &self.slots.slots)
    }

    /// Latencies by part of the file.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The first chunk of a column.
    pub(crate) fn first_chunk(&self, column: usize) -> u64 {
        let (chunks, columns) = (u64::from(self.recording.chunk_count), self.columns.len() as u64);
        (column as u64 * chunks).div_ceil(columns.max(1))
    }

    /// Rows of the map.
    pub(crate) fn row_count(&self) -> usize {
        self.recording.clients.min(ROWS_MAX)
    }

    /// Row by row: mean seconds until the clients of the row had the chunks of the column; not a
    /// number where none came.
    pub(crate) fn cells(&self) -> Vec<f64> {
        let seconds = |cell: &Cell| match cell.count {
            0 => f64::NAN,
            count => cell.micros_sum as f64 / f64::from(count) / 1e6,
        };
        self.cells.iter().map(seconds).collect()
    }

    /// By client: seconds at which it had each share of its file, not a number for what it never
    /// had.
    pub(crate) fn curves(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let curves = self.curves.iter().enumerate();
        curves.filter_map(|(client, curve)| Some((client, &curve.as_ref()?.at_seconds[..])))
    }

    fn column_of(&self, chunk: u32) -> usize {
        chunk as usize * self.columns.len() / self.recording.chunk_count as usize
    }
}

impl Curve {
    fn new() -> Box<Self> {
        Box::new(Self { have: 0, next: 1, at_seconds: [f32::NAN; SHARES as usize] })
    }

    fn advance(&mut self, seconds: f32, chunk_count: u32) {
        self.have = self.have.saturating_add(1);
        let shares = u64::from(self.have) * u64::from(SHARES) / u64::from(chunk_count);
        while self.next <= SHARES && u64::from(self.next) <= shares {
            self.at_seconds[self.next as usize - 1] = seconds;
            self.next += 1;
        }
    }
}

/// Which half octave of microseconds.
fn band(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2() as usize;
    // The upper half begins at the square root of two.
    let is_upper = u128::from(micros).pow(2) >= 2u128.pow(2 * micros.ilog2() + 1);
    (octave * 2 + usize::from(is_upper)).min(BANDS - 1)
}

/// Where a band begins, in seconds; the first after the last is where that ends.
pub(crate) fn band_start(band: usize) -> f64 {
    (band as f64 / 2.0).exp2() * 1e-6
}

/// The latency that this share of chunks does not exceed, to within half an octave; not a number
/// without chunks.
pub(crate) fn quantile(bands: &[u32; BANDS], share: f64) -> f64 {
    let total: u64 = bands.iter().map(|&count| u64::from(count)).sum();
    let (mut before, wanted) = (0.0, share * total as f64);
    for (band, &count) in bands.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = f64::from(count);
        if before + count >= wanted {
            // Within the band, as if it were evenly filled.
            let within = ((wanted - before) / count).clamp(0.0, 1.0);
            return band_start(band) * (within / 2.0).exp2();
        }
        before += count;
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(clients: usize, chunk_count: u32) -> Recorder {
        Recorder::new(Recording { clients, chunk_count })
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn memory_does_not_grow_with_chunks_nor_with_time() {
        let mut recorder = recorder(10_000, 1 << 18);
        for n in 0..200_000u32 {
            let client = n as usize % 10_000;
            let now = at(u64::from(n) * 977);
            recorder.verified(now, client, (n * 7) % (1 << 18), 1024, Duration::from_micros(50));
        }
        assert!(recorder.slots.slots.len() <= SLOTS_MAX);
        assert_eq!(recorder.columns.len(), COLUMNS_MAX);
        assert_eq!(recorder.cells.len(), ROWS_MAX * COLUMNS_MAX);
        let bytes: u64 = recorder.slots.slots.iter().map(|slot| slot.verified_bytes).sum();
        assert_eq!(bytes, 200_000 * 1024, "what slots lose in sharpness they keep in sum");
    }

    #[test]
    fn shards_of_different_pace_merge_to_the_same_as_one() {
        let (mut one, mut slow, mut fast) = (recorder(4, 10), recorder(4, 10), recorder(4, 10));
        for n in 0..40u32 {
            let (client, chunk) = (n as usize % 4, n / 4);
            // The clients of one shard take far longer, so that its slots are longer.
            let now = if client < 2 { at(u64::from(n) * 1_000) } else { at(u64::from(n)) };
            let latency = Duration::from_micros(u64::from(n) * 100);
            one.verified(now, client, chunk, 5, latency);
            let shard = if client < 2 { &mut slow } else { &mut fast };
            shard.verified(now, client, chunk, 5, latency);
        }
        one.served(at(7), true, 3);
        fast.served(at(7), true, 3);
        assert_ne!(slow.slots.length, fast.slots.length);
        fast.merge(slow);
        assert_eq!(fast.slots().0, one.slots().0);
        for (merged, whole) in fast.slots.slots.iter().zip(&one.slots.slots) {
            assert_eq!(merged.verified_bytes, whole.verified_bytes);
            assert_eq!(merged.origin_bytes, whole.origin_bytes);
            assert_eq!(merged.bands, whole.bands);
        }
        assert_eq!(fast.cells(), one.cells());
        let curves = |r: &Recorder| r.curves().map(|(c, s)| (c, s.to_vec())).collect::<Vec<_>>();
        assert_eq!(format!("{:?}", curves(&fast)), format!("{:?}", curves(&one)));
        assert_eq!(fast.columns()[3].mean_seconds(), one.columns()[3].mean_seconds());
    }

    #[test]
    fn a_curve_reaches_every_share_whatever_the_number_of_chunks() {
        for chunk_count in [1, 5, 31, 32, 33, 1000] {
            let mut recorder = recorder(1, chunk_count);
            for chunk in 0..chunk_count {
                recorder.verified(at(u64::from(chunk) + 1), 0, chunk, 1, Duration::ZERO);
                let (_, curve) = recorder.curves().next().unwrap();
                let all = curve.iter().all(|seconds| seconds.is_finite());
                assert_eq!(all, chunk + 1 == chunk_count, "{chunk} of {chunk_count}");
            }
        }
    }

    #[test]
    fn columns_share_all_chunks_out() {
        for chunk_count in [1, 255, 256, 257, 400, 97_657] {
            let recorder = recorder(1, chunk_count);
            for column in 0..recorder.columns().len() {
                let first = u32::try_from(recorder.first_chunk(column)).unwrap();
                assert_eq!(recorder.column_of(first), column);
                assert!(first == 0 || recorder.column_of(first - 1) + 1 == column);
            }
        }
    }

    #[test]
    fn quantiles_are_right_to_within_a_band() {
        let mut bands = [0; BANDS];
        assert!(quantile(&bands, 0.5).is_nan());
        (1..=1000).for_each(|ms| bands[band(Duration::from_millis(ms))] += 1);
        for (share, seconds) in [(0.5, 0.5), (0.99, 0.99), (0.1, 0.1)] {
            let found = quantile(&bands, share);
            assert!((0.7..1.42).contains(&(found / seconds)), "{share}: {found}");
        }
        for micros in [1, 2, 3, 1000, 1 << 40] {
            let band = band(Duration::from_micros(micros));
            assert!(band_start(band) <= micros as f64 * 1e-6 * 1.000_001);
            assert!(band == BANDS - 1 || band_start(band + 1) > micros as f64 * 1e-6);
        }
    }
}
