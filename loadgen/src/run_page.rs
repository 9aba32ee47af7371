//! The page of one run: what is drawn. What is said about it is in [`mod@words`], how it is drawn is
//! [`crate::page`]'s business.

mod words;

use self::words::{sources, tiles, times, verdict, words};
use crate::{
    page::{
        Figure, Page,
        chart::{Axis, Chart, Mark},
        heat::{self, HeatMap},
        scale::{Unit, trimmed},
    },
    recorder::{BANDS, ROWS_MAX, SHARES, band_start, quantile},
    report::{Recorded, Report},
    sampler::{RelaySample, Sample},
    units::{seconds, size, thousands},
};

/// Clients whose own curve is drawn, at most.
const CURVES_MAX: usize = 100;

/// Points of a picture over time: enough for its width, few enough to be calm.
const TIME_POINTS: usize = 80;

/// The page; `files` lie beside it.
pub(crate) fn draw(recorded: &Recorded<'_>, files: &[String]) -> String {
    let report = recorded.report;
    let title =
        format!("{} to {} clients", size(report.file_size_bytes), thousands(report.clients as u64));
    let subtitle = format!(
        "{} chunks of {}{} · {} over {} · {} order · {} seeding · seed {}",
        thousands(report.chunk_count.into()),
        size(report.chunk_size_bytes.into()),
        if report.sealed { ", sealed" } else { "" },
        report.transport,
        report.driver,
        report.order,
        report.seeding,
        report.seed
    );
    let mut page = Page::new(&title, &subtitle);
    page.verdict(report.is_success(), &verdict(report));
    page.tiles(&tiles(report));
    page.list(&words(recorded));
    page.heading("The clients");
    page.figures(&[completion(recorded), goodput(recorded), arrivals(recorded)]);
    page.heading("The chunks");
    page.figures(&[
        latency_spread(recorded),
        latency_by_time(recorded),
        latency_by_chunk(recorded),
    ]);
    page.heading("The relay and the processes");
    page.text(&format!(
        "Both processes were looked at {} times, the relay by its own counters. Of chunks nothing is \
         left out: each counts in the pictures above, in slots of {}.",
        recorded.samples.len(),
        seconds(recorded.recorder.slots().0)
    ));
    page.figures(&[
        intake(recorded),
        cache(recorded.samples),
        cpu(recorded.samples),
        memory(recorded),
    ]);
    page.heading("The same in figures");
    page.table("How long clients and chunks took", &["", "a client", "a chunk"], &times(report));
    page.verbatim(&report.to_string());
    page.links("The same figures for machines:", files);
    page.finish()
}

fn time_axis(report: &Report) -> Axis {
    Axis::new("since the first connect", Unit::Seconds).to(report.wall_seconds)
}

/// How much of its file each client had, over time.
fn completion(recorded: &Recorded<'_>) -> Figure {
    let report = recorded.report;
    let mut curves: Vec<&[f32]> = recorded.recorder.curves().map(|(_, curve)| curve).collect();
    // By when they ended, those that didn't last; so that those drawn are evenly chosen.
    curves.sort_by(|a, b| a[SHARES as usize - 1].total_cmp(&b[SHARES as usize - 1]));
    let every = curves.len().div_ceil(CURVES_MAX).max(1);
    let y = Axis::new("share of the file", Unit::Share).to(1.0);
    let mut chart = Chart::new("Completion over time", "", time_axis(report), y);
    let drawn: Vec<&&[f32]> = curves.iter().step_by(every).collect();
    let count = drawn.len();
    for curve in drawn {
        let points = curve.iter().enumerate().map(|(share, &at)| (f64::from(at), share_of(share)));
        let points = points.filter(|point| point.0.is_finite()).collect();
        chart = chart.mark(Mark::Thin { class: "s1", points });
    }
    let median: Vec<(f64, f64)> = (0..SHARES as usize)
        .filter_map(|share| Some((median_at(&curves, share)?, share_of(share))))
        .collect();
    chart.text = format!(
        "Each thin line is one of {} clients{}; the thick one is their median.",
        thousands(curves.len() as u64),
        if every > 1 { format!(", {count} of them drawn") } else { String::new() }
    );
    chart.mark(Mark::Line { class: "s1", points: median }).mark(ends(recorded)).draw()
}

/// The first and the last client that had it all.
fn ends(recorded: &Recorded<'_>) -> Mark {
    let end = |(client, curve): (usize, &[f32])| (client, f64::from(curve[SHARES as usize - 1]));
    let ended = || recorded.recorder.curves().map(end).filter(|(_, at)| at.is_finite());
    let first = ended().min_by(|a, b| a.1.total_cmp(&b.1));
    let last = ended().max_by(|a, b| a.1.total_cmp(&b.1));
    let dot = |(client, at): (usize, f64)| {
        (at, 1.0, format!("client {client} had all of it {} after the first connect", seconds(at)))
    };
    Mark::Dots { class: "s1", dots: first.into_iter().chain(last).map(dot).collect() }
}

fn share_of(index: usize) -> f64 {
    (index + 1) as f64 / f64::from(SHARES)
}

/// When half of the clients had a share; none if fewer ever did.
fn median_at(curves: &[&[f32]], share: usize) -> Option<f64> {
    let mut at: Vec<f32> = curves.iter().map(|curve| curve[share]).collect();
    at.sort_by(f32::total_cmp);
    at.get(at.len().saturating_sub(1) / 2).map(|&at| f64::from(at)).filter(|at| at.is_finite())
}

/// Slots folded to about [`TIME_POINTS`]: (middle, length, sums of what is picked).
fn folded<const N: usize>(
    recorded: &Recorded<'_>,
    pick: impl Fn(&crate::recorder::Slot) -> [u64; N],
) -> Vec<(f64, f64, [f64; N])> {
    let (length, slots) = recorded.recorder.slots();
    let fold = slots.len().div_ceil(TIME_POINTS).max(1);
    let groups = slots.chunks(fold).enumerate();
    groups
        .map(|(n, group)| {
            let mut sums = [0.0; N];
            for slot in group {
                sums.iter_mut().zip(pick(slot)).for_each(|(sum, value)| *sum += value as f64);
            }
            let span = length * group.len() as f64;
            (n as f64 * fold as f64 * length + span / 2.0, span, sums)
        })
        .collect()
}

fn goodput(recorded: &Recorded<'_>) -> Figure {
    let folded = folded(recorded, |slot| [slot.verified_bytes]);
    let points: Vec<(f64, f64)> =
        folded.iter().map(|(at, span, [bytes])| (*at, bytes / span)).collect();
    let band = points.iter().map(|&(at, rate)| (at, 0.0, rate)).collect();
    let y = Axis::new("to all clients together", Unit::Rate);
    let text = "Bytes that clients verified, per second.";
    Chart::new("Goodput over time", text, time_axis(recorded.report), y)
        .mark(Mark::Band { class: "s1", points: band, is_solid: false })
        .mark(Mark::Line { class: "s1", points })
        .draw()
}

fn intake(recorded: &Recorded<'_>) -> Figure {
    let folded = folded(recorded, |slot| [slot.origin_bytes, slot.peer_bytes]);
    let origin = folded.iter().map(|(at, span, [origin, _])| (*at, 0.0, origin / span)).collect();
    let peers = folded
        .iter()
        .map(|(at, span, [origin, peers])| (*at, origin / span, (origin + peers) / span))
        .collect();
    let (origin_sum, peer_sum, cache_sum) = sources(recorded);
    let text = format!(
        "What was fetched, per second: {} from the origin, {} from clients. The other {} that clients \
         received came from the cache.",
        Unit::Bytes.write(origin_sum),
        Unit::Bytes.write(peer_sum),
        Unit::Bytes.write(cache_sum)
    );
    let y = Axis::new("into the relay", Unit::Rate);
    Chart::new("Where the bytes came from", text, time_axis(recorded.report), y)
        .named("s2", "the origin")
        .mark(Mark::Band { class: "s2", points: origin, is_solid: true })
        .named("s3", "clients")
        .mark(Mark::Band { class: "s3", points: peers, is_solid: true })
        .draw()
}

fn latency_spread(recorded: &Recorded<'_>) -> Figure {
    let counts = recorded.recorder.band_counts();
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let bars = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let bars = bars.map(|(band, &count)| {
        let (from, to, share) = (band_start(band), band_start(band + 1), count as f64 / total);
        let says = format!(
            "{} chunks took {} to {}: {}%",
            thousands(count),
            seconds(from),
            seconds(to),
            trimmed(share * 100.0)
        );
        (from, to, share, says)
    });
    let bars = bars.collect();
    let latency = &recorded.report.chunk_latency_seconds;
    let text = format!("Share of {} deliveries by how long they took.", trimmed(total));
    let x = Axis::log("chunk latency", Unit::Seconds);
    let mut chart = Chart::new("Chunk latency", text, x, Axis::new("share of chunks", Unit::Share))
        .mark(Mark::Bars { class: "s1", bars });
    if latency.p50 > 0.0 {
        chart = chart.mark(Mark::Upright { class: "q", x: latency.p50, name: "p50".into() });
        // Names must not lie on each other.
        if latency.p99 > latency.p50 * 1.5 {
            chart = chart.mark(Mark::Upright { class: "q", x: latency.p99, name: "p99".into() });
        }
    }
    chart.draw()
}

fn latency_by_time(recorded: &Recorded<'_>) -> Figure {
    let folded = folded(recorded, |slot| slot.bands.map(u64::from));
    let (mut cells, mut median, mut high) = (Vec::new(), Vec::new(), Vec::new());
    for (at, span, sums) in &folded {
        let most = sums.iter().copied().fold(0.0, f64::max);
        let bands: [u32; BANDS] =
            sums.map(|sum| u32::try_from(crate::units::whole(sum)).unwrap_or(u32::MAX));
        for (band, &count) in sums.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            let level = heat::level(count, most * 1.6).unwrap_or(0);
            let from = band_start(band);
            cells.push((at - span / 2.0, *span, from, band_start(band + 1) - from, level));
        }
        median.push((*at, quantile(&bands, 0.5)));
        high.push((*at, quantile(&bands, 0.99)));
    }
    let y = Axis::log("chunk latency", Unit::Seconds);
    let text = "The stronger the shade, the more of the chunks of that moment took so long.";
    Chart::new("Chunk latency over time", text, time_axis(recorded.report), y)
        .mark(Mark::Cells { cells })
        .line("s3", "median", median)
        .line("s5", "p99", high)
        .draw()
}

fn latency_by_chunk(recorded: &Recorded<'_>) -> Figure {
    let recorder = recorded.recorder;
    let columns = || recorder.columns().iter().enumerate();
    let first = |n: usize| recorder.first_chunk(n) as f64;
    let mean = columns().map(|(n, column)| (first(n), column.mean_seconds())).collect();
    let max = columns().map(|(n, column)| (first(n), column.max_seconds())).collect();
    let x = Axis::new("chunk index", Unit::Count).to(f64::from(recorded.report.chunk_count));
    let text = "Over all clients, from the first chunk of the file to the last.";
    Chart::new("Latency per chunk index", text, x, Axis::new("latency", Unit::Seconds))
        .line("s6", "slowest client", max)
        .line("s1", "mean", mean)
        .wide()
        .draw()
}

/// Clients by chunks: when it was there.
fn arrivals(recorded: &Recorded<'_>) -> Figure {
    let (report, recorder) = (recorded.report, recorded.recorder);
    let cells = recorder.cells();
    let most = cells.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let groups = match report.clients.div_ceil(ROWS_MAX) {
        0 | 1 => String::new(),
        many => format!(" A row is the mean of about {many} clients."),
    };
    let last_chunk = u64::from(report.chunk_count.saturating_sub(1));
    HeatMap {
        title: "Clients by chunks",
        text: format!("When each client had each chunk, by the scale below.{groups}"),
        rows: ("clients", "first".into(), "last".into()),
        columns: ("chunk index", "0".into(), thousands(last_chunk)),
        column_count: recorder.columns().len(),
        cells: &cells,
        most,
        shades: ("0 s".into(), seconds(most)),
    }
    .draw()
}

/// Samples that say something of the relay, thinned to about [`TIME_POINTS`].
fn relay_samples(samples: &[Sample]) -> Vec<(f64, &RelaySample)> {
    let known: Vec<_> =
        samples.iter().filter_map(|s| Some((s.seconds, s.relay.as_ref()?))).collect();
    thin(&known)
}

fn thin<T: Clone>(values: &[T]) -> Vec<T> {
    let every = values.len().div_ceil(TIME_POINTS).max(1);
    let last = values.len().saturating_sub(1);
    let kept = values.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last);
    kept.map(|(_, value)| value.clone()).collect()
}

fn cache(samples: &[Sample]) -> Figure {
    let samples = relay_samples(samples);
    let last = samples.last().map(|(_, relay)| *relay).cloned().unwrap_or_default();
    let hit_rate = samples.windows(2).map(|pair| {
        let ((_, before), (at, after)) = (pair[0], pair[1]);
        let hits = after.cache_hits.saturating_sub(before.cache_hits) as f64;
        let misses = after.cache_misses.saturating_sub(before.cache_misses) as f64;
        (at, hits / (hits + misses))
    });
    let whole = last.cache_hits as f64 / (last.cache_hits + last.cache_misses).max(1) as f64;
    let text = format!(
        "{} hits, {} misses: {}% hits over the run.",
        thousands(last.cache_hits),
        thousands(last.cache_misses),
        trimmed(whole * 100.0)
    );
    let x = Axis::new("since the first connect", Unit::Seconds);
    Chart::new("Cache hits", text, x, Axis::new("hit rate", Unit::Share).to(1.0))
        .mark(Mark::Line { class: "s1", points: hit_rate.collect() })
        .draw()
}

/// Slopes of a counter: (later moment, increase a second).
fn slopes(values: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let pairs = values.windows(2);
    let slope =
        |pair: &[(f64, f64)]| (pair[1].0, (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0));
    pairs.map(slope).collect()
}

fn cpu(samples: &[Sample]) -> Figure {
    // Process times are only sharp enough over a few samples.
    let calm = |values: Vec<(f64, f64)>| {
        let every = values.len().div_ceil(TIME_POINTS / 2).max(1);
        slopes(&values.into_iter().step_by(every).collect::<Vec<_>>())
    };
    let relay = samples.iter().filter_map(|s| Some((s.seconds, s.relay.as_ref()?.cpu_seconds)));
    let loadgen = samples.iter().map(|s| (s.seconds, s.loadgen_cpu_seconds));
    let x = Axis::new("since the first connect", Unit::Seconds);
    let text = "Cores that each process kept busy.";
    Chart::new("Processor", text, x, Axis::new("cores", Unit::Cores))
        .line("s1", "relay", calm(relay.collect()))
        .line("s2", "load generator", calm(loadgen.collect()))
        .draw()
}

fn memory(recorded: &Recorded<'_>) -> Figure {
    let samples = recorded.samples;
    let relay = relay_samples(samples);
    let chunks = relay.iter().map(|(at, relay)| (*at, relay.chunk_bytes_peak as f64)).collect();
    let relay = relay.iter().map(|(at, relay)| (*at, relay.rss_bytes as f64)).collect();
    let loadgen = thin(samples).iter().map(|s| (s.seconds, s.loadgen_rss_bytes as f64)).collect();
    let x = Axis::new("since the first connect", Unit::Seconds);
    let text = "Resident bytes. The load generator's hold the content, once for all clients.";
    let chunks_name = match recorded.report.relay.was_in_use {
        true => "chunks in the relay, the most since its start, which was before this run",
        false => "chunks in the relay, the most so far",
    };
    Chart::new("Memory", text, x, Axis::new("resident", Unit::Bytes))
        .line("s1", "relay", relay)
        .line("s4", chunks_name, chunks)
        .line("s2", "load generator", loadgen)
        .draw()
}
