//! What is said about a run on its page, in words and in figures. Draws nothing.

use crate::{
    page::{Tile, scale::trimmed},
    report::{IN_USE, Recorded, Report},
    units::{rate, seconds, size, thousands},
};

/// Of fewer than so many, a hundredth is none.
const PERCENT: u64 = 100;

pub(super) fn verdict(report: &Report) -> String {
    let (verified, all) = (report.clients_verified as u64, report.clients as u64);
    let (verified, all) = (thousands(verified), thousands(all));
    match report.errors.first() {
        _ if report.is_success() => {
            format!("{verified} of {all} clients ended with the file, every byte verified")
        }
        Some(error) => {
            format!("The job failed: {verified} of {all} clients ended with the file. {error}")
        }
        None => format!("The job failed: {verified} of {all} clients ended with the file"),
    }
}

pub(super) fn tiles(report: &Report) -> Vec<Tile> {
    let relay = &report.relay;
    let phases = match report.seeding_seconds {
        0.0 => String::new(),
        seeding => {
            let exchange = seconds(report.exchange_seconds);
            format!(": {} seeding, {exchange} exchange", seconds(seeding))
        }
    };
    let client = &report.client_seconds;
    let each = rate(report.goodput_bytes_per_second / report.clients.max(1) as f64);
    let latency = &report.chunk_latency_seconds;
    vec![
        Tile::new(
            "Wall time",
            seconds(report.wall_seconds),
            format!("from the first connect of all to the last byte verified{phases}"),
        ),
        Tile::new("Goodput", rate(report.goodput_bytes_per_second), format!("{each} to each")),
        Tile::new(
            "Slowest client",
            seconds(client.max),
            format!("from its own connect; median {}", seconds(client.p50)),
        ),
        Tile::new(
            "Chunk latency, median",
            seconds(latency.p50),
            format!("p99 {}", seconds(latency.p99)),
        ),
        Tile::new(
            "Into the relay",
            format!("{}×", trimmed(relay.ingress_amplification)),
            "the content's size",
        ),
        Tile::new(
            "Relay's memory, at most",
            relay.rss_peak(),
            format!("chunks took at most {}", relay.chunk_peak()),
        ),
    ]
}

/// The numbers in words.
pub(super) fn words(recorded: &Recorded<'_>) -> Vec<String> {
    let report = recorded.report;
    let (relay, loadgen, latency) = (&report.relay, &report.loadgen, &report.chunk_latency_seconds);
    let delivered: u64 = recorded.recorder.band_counts().iter().sum();
    let mut lines = vec![clients_in_words(report)];
    lines.push(format!(
        "{} took {} on average; half took at most {}{}, the slowest {}.",
        if report.order == "relay" {
            "A chunk, from the moment its client was ready for it until it was verified,"
        } else {
            "A chunk, from request to verified,"
        },
        seconds(latency.mean),
        seconds(latency.p50),
        // Of fewer, one in a hundred is the slowest.
        if delivered < PERCENT {
            String::new()
        } else {
            format!(", 1 of 100 more than {}", seconds(latency.p99))
        },
        seconds(latency.max)
    ));
    let (origin, peers, cache) = sources(recorded);
    let total = (origin + peers + cache).max(1.0);
    let percent = |part: f64| format!("{}%", trimmed(part / total * 100.0));
    lines.push(format!(
        "Of what clients received, {} came from the relay's cache; {} the relay had fetched from the \
         origin just for that delivery, {} from other clients.",
        percent(cache), percent(origin), percent(peers)
    ));
    lines.push(format!(
        "The relay took in {} and gave out {}: {} deliveries found their chunk cached, {} chunks had \
         to be fetched, {} were evicted, {} were asked of a second holder since the first took long, {} peers \
         were banned.",
        size(relay.ingress_bytes), size(relay.egress_bytes), thousands(relay.cache_hits),
        thousands(relay.cache_misses), thousands(relay.cache_evictions), thousands(relay.hedges),
        thousands(relay.peers_banned)
    ));
    lines.push(format!(
        "The relay used {} of CPU on {} event loops, the load generator {} on {}; the run was bound \
         by {}.",
        seconds(relay.cpu_seconds), relay.shards, seconds(loadgen.cpu_seconds), loadgen.shards,
        match report.bound_by.as_str() {
            "loadgen" => "the load generator",
            "relay" => "the relay",
            _ => "neither of them",
        }
    ));
    if relay.was_in_use {
        lines.push(format!("Of the relay: {IN_USE}."));
    }
    lines.extend(report.errors.iter().skip(1).take(20).cloned());
    lines
}

/// When how many clients had the file: as many as there are, not hundredths of fewer.
fn clients_in_words(report: &Report) -> String {
    let client = &report.client_seconds;
    let count = report.clients_verified as u64;
    let part = |percent: u64, at: f64| {
        let part = (count * percent).div_ceil(PERCENT);
        (part < count).then(|| format!("{} after {}", thousands(part), seconds(at)))
    };
    let parts = [part(50, client.p50), part(90, client.p90), part(99, client.p99)];
    let mut parts: Vec<String> = parts.into_iter().flatten().collect();
    // With few clients these are the same.
    parts.dedup_by(|a, b| a.split(' ').next() == b.split(' ').next());
    let last = match count {
        0 => return "No client had the file.".into(),
        1 => format!("the only one after {}", seconds(client.max)),
        _ => format!("the last one after {}", seconds(client.max)),
    };
    parts.push(last);
    let how = if count > 1 { ", each counted from its own connect" } else { "" };
    format!("Of {} that had the file: {}{how}.", clients(count), parts.join(", "))
}

fn clients(count: u64) -> String {
    if count == 1 { "1 client".into() } else { format!("{} clients", thousands(count)) }
}

/// (what, clients, chunks); empty where it is not known.
pub(super) fn times(report: &Report) -> Vec<Vec<String>> {
    let (client, chunk) = (&report.client_seconds, &report.chunk_latency_seconds);
    let row = |name: &str, client: Option<f64>, chunk: Option<f64>| {
        let text = |value: Option<f64>| value.map_or_else(String::new, seconds);
        vec![name.to_owned(), text(client), text(chunk)]
    };
    vec![
        row("mean", None, Some(chunk.mean)),
        row("p50", Some(client.p50), Some(chunk.p50)),
        row("p90", Some(client.p90), None),
        row("p99", Some(client.p99), Some(chunk.p99)),
        row("p99.9", None, Some(chunk.p999)),
        row("max", Some(client.max), Some(chunk.max)),
    ]
}

/// Bytes of deliveries that needed a fetch from the origin, or from a client, and of the others.
pub(super) fn sources(recorded: &Recorded<'_>) -> (f64, f64, f64) {
    let slots = recorded.recorder.slots().1;
    let origin: u64 = slots.iter().map(|slot| slot.origin_bytes).sum();
    let peers: u64 = slots.iter().map(|slot| slot.peer_bytes).sum();
    let delivered = recorded.report.relay.egress_bytes;
    (origin as f64, peers as f64, delivered.saturating_sub(origin + peers) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::ClientSeconds;

    #[test]
    fn clients_are_counted_and_not_told_in_hundredths_of_fewer() {
        let seconds = ClientSeconds { p50: 0.2, p90: 0.3, p99: 0.399, max: 0.399 };
        let say = |clients_verified| {
            clients_in_words(&Report {
                clients_verified,
                client_seconds: seconds,
                ..Report::default()
            })
        };
        let of_fifty = "Of 50 clients that had the file: 25 after 200 ms, 45 after 300 ms, the last one \
                        after 399 ms, each counted from its own connect.";
        assert_eq!(say(50), of_fifty);
        assert_eq!(say(1), "Of 1 client that had the file: the only one after 399 ms.");
        assert!(say(2).starts_with("Of 2 clients that had the file: 1 after 200 ms, the last"));
        assert!(
            say(1000).contains(": 500 after 200 ms, 900 after 300 ms, 990 after 399 ms, the last")
        );
        assert_eq!(say(0), "No client had the file.");
    }
}
