//! The trade-off between fetching less and holding no peer up, over lambda: data and picture.
//!
//! `cargo run --example tradeoff [SEEDS]` writes `docs/tradeoff/tradeoff.csv` and `.svg`. A hundred
//! peers, 400 chunks, jitter, and the delays of the relay's shell; beside it what "least recently used" makes of the same job.

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::fmt::Write as _;

use relay::swarm::{Eviction, LAMBDA_DEFAULT};
use sim::fleet::{Choice, Fleet, Summary};

/// One point: means over seeds, and the worst of all.
struct Point {
    label: String,
    cache_percent: u32,
    ratio: f64,
    lambda: f64,
    fetches: f64,
    median: f64,
    worst: f64,
    worst_of_all: f64,
}

/// Ends of the picture's axes.
const FETCHES_MAX: f64 = 10.0;
const STRETCH_MAX: f64 = 3.0;

const LAMBDAS: [f64; 7] = [20.0, 40.0, 80.0, LAMBDA_DEFAULT, 320.0, 640.0, 1280.0];
const CACHES: [(u32, u32, f64); 6] =
    [(2, 8, 10.0), (5, 20, 10.0), (25, 100, 10.0), (2, 8, 1.0), (2, 8, 2.0), (2, 8, 100.0)];

fn measure(label: &str, cache_percent: u32, seeds: u64, fleet: impl Fn(u64) -> Fleet) -> Point {
    let runs: Vec<Summary> = (0..seeds).map(|seed| fleet(seed).run()).collect();
    let mean = |of: fn(&Summary) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let point = Point {
        label: label.to_owned(),
        cache_percent,
        ratio: fleet(0).ratio,
        lambda: fleet(0).lambda,
        fetches: mean(|run| run.fetches_per_chunk),
        median: mean(|run| run.median),
        worst: mean(|run| run.worst),
        worst_of_all: runs.iter().map(|run| run.worst).fold(0.0, f64::max),
    };
    println!("{}", line(&point));
    point
}

fn line(point: &Point) -> String {
    let Point { label, cache_percent, ratio, lambda, fetches, median, worst, worst_of_all } = point;
    format!(
        "{label},{cache_percent},{ratio},{lambda},{fetches:.3},{median:.3},{worst:.3},{worst_of_all:.3}"
    )
}

fn main() -> std::io::Result<()> {
    let seeds = std::env::args().nth(1).map_or(10, |text| text.parse().expect("a number"));
    let header = "policy,cache_percent,rate_ratio,lambda,fetches_per_chunk,stretch_median,\
                  stretch_worst_mean,stretch_worst_of_all_seeds";
    println!("{header}");
    let mut points = Vec::new();
    for (percent, cache, ratio) in CACHES {
        for lambda in LAMBDAS {
            let fleet = |seed| Fleet { ratio, ..Fleet::new(seed, cache, lambda) };
            points.push(measure("demand", percent, seeds, fleet));
        }
    }
    for (percent, cache, ratio) in CACHES {
        for (label, choice) in
            [("lru sequential", Choice::Sequential), ("lru random", Choice::Random)]
        {
            let fleet = |seed| Fleet {
                ratio,
                choice,
                eviction: Eviction::Lru,
                ..Fleet::new(seed, cache, LAMBDA_DEFAULT)
            };
            points.push(measure(label, percent, seeds.min(2), fleet));
        }
    }
    let csv: String = points.iter().map(|point| line(point) + "\n").collect();
    std::fs::create_dir_all("docs/tradeoff")?;
    std::fs::write("docs/tradeoff/tradeoff.csv", format!("{header}\n{csv}"))?;
    std::fs::write("docs/tradeoff/tradeoff.svg", picture(&points))
}

/// Fetches per chunk to the right, stretch upwards, both logarithmic.
fn picture(points: &[Point]) -> String {
    let x = |fetches: f64| 60.0 + fetches.ln() / FETCHES_MAX.ln() * 640.0;
    let y = |stretch: f64| 420.0 - stretch.ln() / STRETCH_MAX.ln() * 380.0;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 480\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"960\" height=\"480\" fill=\"white\"/>\n",
    );
    let mut put = |text: String| writeln!(svg, "{text}").expect("a string takes it");
    for tick in [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0] {
        let at = x(tick);
        put(format!(
            "<path d=\"M{at:.1} 40V420\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"436\" text-anchor=\"middle\">{tick}</text>"
        ));
    }
    for tick in [1.0, 1.1, 1.2, 1.5, 2.0, 3.0] {
        let at = y(tick);
        put(format!(
            "<path d=\"M60 {at:.1}H700\" stroke=\"#ddd\"/><text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            at + 4.0
        ));
    }
    put("<text x=\"380\" y=\"462\" text-anchor=\"middle\">fetches per chunk</text><text x=\"60\" y=\"26\">finish time / own ideal: filled median, hollow worst</text>".to_owned());
    for (at, (percent, _, ratio)) in CACHES.iter().enumerate() {
        let colour = ["#c0392b", "#d68910", "#2471a3", "#1e8449", "#6c3483", "#717d7e"][at];
        let mine = |point: &&Point| point.cache_percent == *percent && point.ratio == *ratio;
        let curve: Vec<&Point> =
            points.iter().filter(mine).filter(|point| point.label == "demand").collect();
        for of in [(|point| point.median) as fn(&Point) -> f64, |point| point.worst] {
            let steps =
                curve.iter().map(|point| format!("{:.1},{:.1} ", x(point.fetches), y(of(point))));
            put(format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
                steps.collect::<String>()
            ));
        }
        for point in points.iter().filter(mine) {
            let (across, median, worst) = (x(point.fetches), y(point.median), y(point.worst));
            let size = if point.lambda == LAMBDA_DEFAULT { 5 } else { 3 };
            if point.label == "demand" {
                put(format!(
                    "<circle cx=\"{across:.1}\" cy=\"{median:.1}\" r=\"{size}\" fill=\"{colour}\"/><circle cx=\"{across:.1}\" cy=\"{worst:.1}\" r=\"{size}\" fill=\"none\" stroke=\"{colour}\"/>"
                ));
            } else {
                let mark = if point.label == "lru random" { "R" } else { "S" };
                put(format!(
                    "<text x=\"{across:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"middle\">{mark}</text>",
                    median + 4.0
                ));
            }
        }
        let label = match *ratio {
            1.0 => "equal rates".to_owned(),
            ratio => format!("rates over a factor of {ratio}"),
        };
        put(format!(
            "<rect x=\"715\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"732\" y=\"{}\">cache {percent}%, {label}</text>",
            60 + 24 * at,
            69 + 24 * at
        ));
    }
    put(format!(
        "<text x=\"715\" y=\"230\">lines: lambda {} to {}</text><text x=\"715\" y=\"250\">large dots: the default, {LAMBDA_DEFAULT}</text><text x=\"715\" y=\"270\">S, R: LRU, sequential and random</text><text x=\"715\" y=\"290\">order (median)</text>",
        LAMBDAS[0], LAMBDAS[6]
    ));
    svg + "</svg>\n"
}
