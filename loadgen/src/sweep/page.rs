//! The page of a sweep: each analysis as pictures, with what the ancestors published beside it.

use super::{
    plan::{Analysis, Cell},
    results::{CellResult, Results},
};
use crate::{
    args::TRANSPORTS,
    page::{
        Figure, Page,
        chart::{Axis, Chart, Mark},
        scale::{Unit, trimmed},
    },
    units::{seconds, size, thousands, whole},
};

/// Colours of lines, in the order in which they come.
const CLASSES: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];

/// What the ancestors published is grey.
const THEIRS: &str = "q";

/// Their average round trips, with 5 clients, 118 kB and chunks of 1 KiB: of control messages over
/// TCP and over UDP.
const THEIR_ROUND_TRIPS: [(&str, f64); 2] = [("udp-data", 0.021), ("udp-control", 0.033)];

/// Their total times by number of clients, with 118 kB.
const THEIR_TIMES: [(f64, f64); 2] = [(5.0, 7.0), (50.0, 34.0)];

/// The same with 100 MB: 24 to 30 minutes for 50 clients.
const THEIR_TIMES_LARGE: [(f64, f64); 2] = [(50.0, 24.0 * 60.0), (50.0, 30.0 * 60.0)];

/// The ancestors: what they were.
const ANCESTORS: &str = "The ancestors are two earlier programs that distributed files as this one does, from \
     peer to server to peer (PSP). The first, here udp-control, has messages over UDP and file bytes over TCP; \
     the second, here udp-data, has messages over TCP and file bytes over UDP. In both, clients choose a random \
     order, and the server keeps the chunks that were used last (LRU).";

/// Draws what is there.
pub(crate) fn draw(analyses: &[Analysis], results: &Results) -> String {
    let all = || analyses.iter().flat_map(|analysis| &analysis.cells);
    let done = all().filter(|cell| results.of(cell).is_some_and(CellResult::is_success)).count();
    let open = all().filter(|cell| results.of(cell).is_none()).count();
    let failed: Vec<(&Cell, &CellResult)> = all()
        .filter_map(|cell| Some((cell, results.of(cell)?)))
        .filter(|(_, result)| !result.is_success())
        .collect();
    let subtitle = "Five analyses that the ancestors' authors made, repeated with this network";
    let mut page = Page::new("The ancestors' experiments, again", subtitle);
    let unexpected = failed.iter().filter(|(cell, _)| !cell.may_fail).count();
    page.verdict(
        unexpected == 0 && open == 0,
        &format!(
            "{done} of {} runs ended with every byte verified{}{}",
            all().count(),
            if failed.is_empty() {
                String::new()
            } else {
                format!(", {} did not end", failed.len())
            },
            if open == 0 { String::new() } else { format!(", {open} are still to be run") }
        ),
    );
    page.text(ANCESTORS);
    page.text(
        "Grey marks are theirs: what they published, and for 118 kB by number of clients what their \
         programs did on a machine with 2 cores. Read them as orders of magnitude: the machines were \
         not ours.",
    );
    for analysis in analyses {
        draw_analysis(&mut page, analysis, results);
    }
    if !failed.is_empty() {
        page.heading("What did not end");
        let line = |(cell, result): &(&Cell, &CellResult)| {
            format!("{}: {}", cell.args.join(" "), result.error.as_deref().unwrap_or("no report"))
        };
        page.list(&failed.iter().map(line).collect::<Vec<_>>());
    }
    page.links("The same figures for machines:", &["results.json".into(), "results.csv".into()]);
    page.finish()
}

fn draw_analysis(page: &mut Page, analysis: &Analysis, results: &Results) {
    match analysis.name {
        "round-trips" => {
            page.heading("1 and 2: round trips");
            page.text(
                "From asking for a chunk until it is verified. Clients choose a random order, as \
                 theirs did, and keep as much asked for as the relay's window takes, so that the round \
                 trip is mostly waiting for one's turn.",
            );
            page.figures(&[round_trips(analysis, results), by_chunk(analysis, results)]);
        }
        "clients" => {
            page.heading("3: total time by number of clients");
            page.text(
                "118 kB in chunks of 1 KiB is their job. With 100 clients their server crashed, and so \
                 it did with files of 1 MB and more on that machine; 24 to 30 minutes for 50 clients \
                 and 100 MB are their author's figures.",
            );
            page.figures(&[
                by_clients(analysis, results, "From the first connect", "/wall_seconds", true),
                by_clients(
                    analysis,
                    results,
                    "From the last seeded chunk",
                    "/exchange_seconds",
                    false,
                ),
            ]);
        }
        "small-cache" | "cache" | "theirs" => {
            page.heading(match analysis.name {
                "small-cache" => "4: cache size, chunks of 1 KiB",
                "cache" => "4: cache size, chunks of our size",
                _ => "Their own setting: 100 MB to 100 clients in chunks of 1 KiB",
            });
            page.text(&setting_of(analysis, results));
            page.figures(&[
                by_cache(analysis, results, "Total time", Unit::Seconds, wall),
                by_cache(analysis, results, "Hit rate", Unit::Share, CellResult::hit_rate),
                by_cache(analysis, results, "Fetched, times the content", Unit::Count, |result| {
                    result.number("/relay/ingress_amplification")
                }),
            ]);
        }
        _ => {
            page.heading("5: who chooses the order");
            page.text(&setting_of(analysis, results));
            page.figures(&[orders(analysis, results)]);
        }
    }
    table(page, analysis, results);
}

fn wall(result: &CellResult) -> f64 {
    result.number("/wall_seconds")
}

/// What all runs of an analysis have in common, as the first one that is there says.
fn setting_of(analysis: &Analysis, results: &Results) -> String {
    // One that failed may have no figures.
    let mut there = analysis.cells.iter().filter_map(|cell| results.of(cell));
    let Some(result) = there.find(|result| result.number("/clients").is_finite()) else {
        return "Nothing of it was run to its end yet.".into();
    };
    format!(
        "{} clients, {}. A run that did not end within its time limit has no mark.",
        trimmed(result.number("/clients")),
        size(whole(result.number("/file_size_bytes")))
    )
}

/// Names of an analysis's lines, in their order.
fn series(analysis: &Analysis) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for cell in &analysis.cells {
        if !names.contains(&cell.series.as_str()) {
            names.push(&cell.series);
        }
    }
    names
}

/// (x, figure) of one line, of the runs that ended well.
fn points(
    analysis: &Analysis,
    results: &Results,
    series: &str,
    figure: impl Fn(&CellResult) -> f64,
) -> Vec<(f64, f64)> {
    let cells = analysis.cells.iter().filter(|cell| cell.series == series);
    let point = |cell: &Cell| {
        let result = results.of(cell).filter(|result| result.is_success());
        (cell.x, result.map_or(f64::NAN, &figure))
    };
    cells.map(point).collect()
}

/// Each series as a line with a dot for each run.
fn draw_series(
    mut chart: Chart,
    analysis: &Analysis,
    results: &Results,
    figure: impl Fn(&CellResult) -> f64,
) -> Chart {
    let unit = chart.y.unit;
    for (name, class) in series(analysis).into_iter().zip(CLASSES) {
        let points = points(analysis, results, name, &figure);
        let says = |&(x, y): &(f64, f64)| (x, y, format!("{name}: {}", unit.write(y)));
        let dots = points.iter().map(says).collect();
        chart = chart.line(class, name, points).mark(Mark::Dots { class, dots });
    }
    chart
}

/// Places by name instead of by value.
fn named_axis(label: &str, names: &[&str]) -> Axis {
    let axis = Axis::new(label, Unit::Count).to(names.len() as f64 + 1.0);
    let names = names.iter().enumerate().map(|(n, name)| (n as f64 + 1.0, (*name).to_owned()));
    Axis { names: names.collect(), ..axis }
}

fn theirs(dots: impl Iterator<Item = (f64, f64)>) -> Mark {
    let says = |(x, y): (f64, f64)| (x, y, format!("the ancestors: {}", seconds(y)));
    Mark::Dots { class: THEIRS, dots: dots.map(says).collect() }
}

fn round_trips(analysis: &Analysis, results: &Results) -> Figure {
    // Theirs had two transports: both have their place, whether ours are there or not.
    let mut names = TRANSPORTS.to_vec();
    names.extend(THEIR_ROUND_TRIPS.iter().map(|their| their.0).filter(|n| !TRANSPORTS.contains(n)));
    let place = |name: &str| names.iter().position(|n| *n == name).map_or(0.0, |n| n as f64 + 1.0);
    let y = Axis::log("average round trip", Unit::Seconds);
    let text = "Average over all chunks and clients, by transport.";
    let mut chart = Chart::new("Round trip", text, named_axis("transport", &names), y);
    for (name, class) in series(analysis).into_iter().zip(CLASSES) {
        let mean = |result: &CellResult| result.number("/chunk_latency_seconds/mean");
        let dots = points(analysis, results, name, mean);
        let dots = dots.into_iter().map(|(x, y)| (x, y, format!("{name}: {}", seconds(y))));
        chart = chart.named(class, name).mark(Mark::Dots { class, dots: dots.collect() });
    }
    chart
        .named(THEIRS, "the ancestors, 5 clients, 118 kB")
        .mark(theirs(THEIR_ROUND_TRIPS.iter().map(|&(name, y)| (place(name), y))))
        .draw()
}

fn by_chunk(analysis: &Analysis, results: &Results) -> Figure {
    let first = series(analysis).first().copied().unwrap_or_default();
    let x = Axis::new("chunk index", Unit::Count);
    let text = "Average over 5 clients of 118 kB, by transport.";
    let y = Axis::new("average round trip", Unit::Seconds);
    let mut chart = Chart::new("Round trip per chunk index", text, x, y);
    let cells = analysis.cells.iter().filter(|cell| cell.series == first);
    for ((cell, class), transport) in cells.zip(CLASSES).zip(TRANSPORTS) {
        let points = results.of(cell).map(|result| result.by_chunk.clone()).unwrap_or_default();
        chart = chart.line(class, transport, points);
    }
    chart.draw()
}

fn by_clients(
    analysis: &Analysis,
    results: &Results,
    title: &str,
    figure: &str,
    with_theirs: bool,
) -> Figure {
    let x = Axis::log("clients", Unit::Count);
    let y = Axis::log("seconds", Unit::Seconds);
    let text = "Until the last client has all of it, verified.";
    let chart = Chart::new(title, text, x, y);
    let value = |result: &CellResult| result.number(figure);
    let chart = draw_series(chart, analysis, results, value);
    if !with_theirs {
        return as_table_if_hidden(&chart, analysis, results, value);
    }
    chart
        .named(THEIRS, "the ancestors: 118 kB, and 100 MB (24 to 30 minutes)")
        .mark(Mark::Line { class: THEIRS, points: THEIR_TIMES.to_vec() })
        .mark(Mark::Line { class: THEIRS, points: THEIR_TIMES_LARGE.to_vec() })
        .mark(theirs(THEIR_TIMES.into_iter().chain(THEIR_TIMES_LARGE)))
        .draw()
}

fn by_cache(
    analysis: &Analysis,
    results: &Results,
    title: &str,
    unit: Unit,
    figure: impl Fn(&CellResult) -> f64,
) -> Figure {
    let x = match analysis.name {
        "cache" => Axis::log("cache, as a share of the file", Unit::Share),
        _ => Axis::new("chunks of 1 KiB in the cache", Unit::Count),
    };
    let y = match unit {
        Unit::Share => Axis::new("", unit).to(1.0),
        _ => Axis::log("", unit),
    };
    let text = "By size of the cache.";
    let mut chart = Chart::new(title, text, x, y);
    // Three pictures of an analysis: the last one below the others.
    chart.is_wide = unit == Unit::Count;
    let chart = draw_series(chart, analysis, results, &figure);
    as_table_if_hidden(&chart, analysis, results, figure)
}

/// The chart, or the same as a table where its lines would hide each other.
fn as_table_if_hidden(
    chart: &Chart,
    analysis: &Analysis,
    results: &Results,
    figure: impl Fn(&CellResult) -> f64,
) -> Figure {
    if !chart.hides_lines() {
        return chart.draw();
    }
    let names = series(analysis);
    let lines: Vec<Vec<(f64, f64)>> =
        names.iter().map(|name| points(analysis, results, name, &figure)).collect();
    let mut places: Vec<f64> = lines.iter().flatten().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let cell = |line: &Vec<(f64, f64)>, place: f64| {
        let value = line.iter().find(|point| point.0 == place).map(|point| point.1);
        let value = value.filter(|value| value.is_finite());
        value.map_or_else(String::new, |value| chart.y.unit.write(value))
    };
    let row = |&place: &f64| {
        let cells = lines.iter().map(|line| cell(line, place));
        std::iter::once(chart.x.unit.write(place)).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = places.iter().map(row).collect();
    let mut head = vec![chart.x.label.as_str()];
    head.extend(names);
    let text = format!("{} A table, since as lines they would hide each other.", chart.text);
    Figure { is_wide: chart.is_wide, ..Figure::of_table(&chart.title, &text, &head, &rows) }
}

fn orders(analysis: &Analysis, results: &Results) -> Figure {
    let names = ["sequential", "random", "relay"];
    let text =
        "Until the last client has all of it, with a cache for the whole file and for a tenth.";
    let x = named_axis("order", &names);
    let y = Axis::new("seconds", Unit::Seconds);
    let mut chart = Chart::new("Total time by order", text, x, y).wide();
    let width = 0.3;
    for (n, (name, class)) in series(analysis).into_iter().zip(CLASSES).enumerate() {
        let bars = points(analysis, results, name, wall).into_iter().map(|(x, y)| {
            let left = x + (n as f64 - 1.0) * width;
            (left, left + width * 0.94, y, format!("{name}: {}", seconds(y)))
        });
        chart = chart.named(class, &format!("cache for {name}"));
        chart = chart.mark(Mark::Bars { class, bars: bars.collect() });
    }
    chart.draw()
}

/// Every run in figures.
fn table(page: &mut Page, analysis: &Analysis, results: &Results) {
    let head = ["run", "wall", "exchange", "chunk, mean", "p99", "hits", "fetched", "relay CPU"];
    let row = |cell: &Cell| {
        let result = results.of(cell)?;
        let time = |pointer: &str| match result.number(pointer) {
            value if value.is_finite() && result.is_success() => seconds(value),
            _ => String::new(),
        };
        let hits = result.hit_rate();
        let fetched = result.number("/relay/ingress_amplification");
        Some(vec![
            cell.args.join(" "),
            if result.is_success() { time("/wall_seconds") } else { "not done".into() },
            time("/exchange_seconds"),
            time("/chunk_latency_seconds/mean"),
            time("/chunk_latency_seconds/p99"),
            if hits.is_finite() { Unit::Share.write(hits) } else { String::new() },
            if fetched.is_finite() { format!("{} times", trimmed(fetched)) } else { String::new() },
            time("/relay/cpu_seconds"),
        ])
    };
    let rows: Vec<Vec<String>> = analysis.cells.iter().filter_map(row).collect();
    page.table(&format!("All {} runs in figures", thousands(rows.len() as u64)), &head, &rows);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::plan, *};

    #[test]
    fn a_sweep_is_drawn_however_little_of_it_is_there() {
        for scale in [plan::Scale::Quick, plan::Scale::Full] {
            let analyses = plan::analyses(scale, 1);
            let mut results = Results::default();
            let page = draw(&analyses, &results);
            assert!(page.contains("are still to be run") && !page.contains("NaN"));
            for (n, cell) in analyses.iter().flat_map(|analysis| &analysis.cells).enumerate() {
                let report = match n % 4 {
                    0 => serde_json::Value::Null,
                    _ => json!({ "wall_seconds": 0.5, "exchange_seconds": 0.0, "clients": 5,
                                 "file_size_bytes": 1, "goodput_bytes_per_second": 2,
                                 "chunk_latency_seconds": { "mean": 0.001, "p99": 0.002 },
                                 "relay": { "cache_hits": 0, "cache_misses": 0,
                                            "ingress_amplification": 1.0 } }),
                };
                let error = (n % 3 == 0).then(|| "<timed> out".to_owned());
                results.add(cell, CellResult { report, error, by_chunk: vec![(0.0, 0.1)] });
            }
            let page = draw(&analyses, &results);
            assert!(!page.contains("<timed>") && !page.contains("NaN"));
            assert!(
                page.contains("the ancestors: 34 s") && page.contains("peer to server to peer")
            );
            assert!(page.contains("seconds (logarithmic)"));
            // All runs came to the same: one line would hide the others.
            assert!(page.contains("as lines they would hide each other"));
            assert!(page.contains("118 kB in chunks of 1 KiB"));
        }
    }
}
