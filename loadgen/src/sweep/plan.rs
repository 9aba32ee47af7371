//! Which runs a sweep has. Pure: the same scale and seed give the same flags, which are the keys
//! of what is kept.

use std::time::Duration;

use crate::args::TRANSPORTS;

/// The ancestors' file, of those that they could distribute: 118 kB in chunks of 1 KiB.
const THEIR_FILE: &str = "118kB";
const THEIR_CHUNK: &str = "1K";

/// How many chunks they cached, as far as they say.
const THEIR_CACHES: [u64; 10] = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000];

/// For runs of the ancestors' own policy, which fetches chunks again and again and may never end.
const PATIENCE_THEIRS: Duration = Duration::from_secs(60);
const PATIENCE_THEIRS_QUICK: Duration = Duration::from_secs(6);

/// For random order in their own setting: nearly every delivery needs a fetch of its own, ten million
/// of them, so it takes some minutes on a machine with 2 cores, and it ends.
const PATIENCE_THEIR_SETTING: Duration = Duration::from_secs(900);

/// For all others.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// Two minutes.
    Quick,
    /// Everything.
    Full,
}

/// One of the ancestors' questions.
#[derive(Clone, Debug)]
pub(crate) struct Analysis {
    pub(crate) name: &'static str,
    pub(crate) cells: Vec<Cell>,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// What it belongs to within its analysis: a line of a picture.
    pub(crate) series: String,
    /// Its place on that line: clients, cache bytes, whatever the analysis asks for.
    pub(crate) x: f64,
    pub(crate) args: Vec<String>,
    /// Whether its latency by chunk is wanted.
    pub(crate) wants_figures: bool,
    /// Whether it is a result that it does not end.
    pub(crate) may_fail: bool,
    pub(crate) patience: Duration,
}

/// The flags of one run.
#[derive(Clone, Debug)]
struct Setting<'a> {
    clients: u32,
    file: &'a str,
    chunk: Option<&'a str>,
    order: &'a str,
    transport: &'a str,
    cache: Option<u64>,
    eviction: &'a str,
}

impl Setting<'_> {
    fn cell(&self, series: impl Into<String>, x: f64, seed: u64) -> Cell {
        let mut args = Vec::new();
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--clients", self.clients.to_string());
        flag("--file", self.file.into());
        if let Some(chunk) = self.chunk {
            flag("--chunk", chunk.into());
        }
        flag("--order", self.order.into());
        flag("--transport", self.transport.into());
        if let Some(cache) = self.cache {
            flag("--cache", cache.to_string());
        }
        // Given, it makes each run start a relay of its own.
        flag("--eviction", self.eviction.into());
        flag("--seed", seed.to_string());
        let (wants_figures, may_fail, patience) = (false, false, PATIENCE);
        Cell { series: series.into(), x, args, wants_figures, may_fail, patience }
    }
}

const OURS: Setting<'_> = Setting {
    clients: 100,
    file: "100M",
    chunk: None,
    order: "relay",
    transport: "tcp",
    cache: None,
    eviction: "demand",
};

const THEIRS: Setting<'_> =
    Setting { file: THEIR_FILE, chunk: Some(THEIR_CHUNK), order: "random", ..OURS };

/// What each (order, eviction) is called.
const POLICIES: [(&str, &str, &str); 3] = [
    ("relay order, demand", "relay", "demand"),
    ("relay order, LRU", "relay", "lru"),
    ("random order, LRU", "random", "lru"),
];

/// All of them.
pub(crate) fn analyses(scale: Scale, seed: u64) -> Vec<Analysis> {
    let mut analyses = vec![
        Analysis { name: "round-trips", cells: round_trips(scale, seed) },
        Analysis { name: "clients", cells: clients(scale, seed) },
        Analysis { name: "small-cache", cells: small_cache(scale, seed) },
        Analysis { name: "cache", cells: cache(scale, seed) },
        Analysis { name: "orders", cells: orders(scale, seed) },
    ];
    if scale == Scale::Full {
        analyses.push(Analysis { name: "theirs", cells: theirs(seed) });
    }
    analyses
}

/// 1 and 2: round trips by transport, of their job and of ours.
fn round_trips(scale: Scale, seed: u64) -> Vec<Cell> {
    let file = if scale == Scale::Quick { "10M" } else { "100M" };
    let (mut cells, mut place) = (Vec::new(), 0.0);
    for &transport in TRANSPORTS {
        place += 1.0;
        let theirs = Setting { clients: 5, transport, ..THEIRS }.cell("their job", place, seed);
        cells.push(Cell { wants_figures: true, ..theirs });
        // The order is the clients' own, so that there is a request to count from.
        let ours = Setting { file, transport, order: "random", ..OURS };
        cells.push(Cell { wants_figures: true, ..ours.cell("the main job", place, seed) });
    }
    cells
}

/// 3: total time by number of clients.
fn clients(scale: Scale, seed: u64) -> Vec<Cell> {
    let (counts, file) = match scale {
        Scale::Quick => (&[5, 10, 50, 100][..], "10M"),
        Scale::Full => (&[5, 10, 50, 100, 1000][..], "100M"),
    };
    let mut cells = Vec::new();
    for &clients in counts {
        let x = f64::from(clients);
        cells.push(Setting { clients, ..THEIRS }.cell("118 kB", x, seed));
        cells.push(Setting { clients, file, ..OURS }.cell(file, x, seed));
    }
    cells
}

/// Policies by cache size, (place, bytes); the ancestors' own may take for ever.
fn by_policy(scale: Scale, seed: u64, setting: &Setting<'_>, caches: &[(f64, u64)]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, order, eviction) in POLICIES {
        for &(x, cache) in caches {
            let cell = Setting { order, eviction, cache: Some(cache), ..setting.clone() };
            let cell = cell.cell(name, x, seed);
            let may_fail = eviction == "lru";
            let patience = match scale {
                _ if !may_fail => PATIENCE,
                Scale::Quick => PATIENCE_THEIRS_QUICK,
                Scale::Full => PATIENCE_THEIRS,
            };
            cells.push(Cell { may_fail, patience, ..cell });
        }
    }
    cells
}

/// 4, at their chunk size: 100 to 1,000 chunks of 1 KiB.
fn small_cache(scale: Scale, seed: u64) -> Vec<Cell> {
    let (chunks, file, clients) = match scale {
        Scale::Quick => (&[100, 400, 1000][..], "1M", 20),
        Scale::Full => (&THEIR_CACHES[..], "4M", 100),
    };
    let caches: Vec<(f64, u64)> =
        chunks.iter().map(|&chunks: &u64| (chunks as f64, chunks << 10)).collect();
    let setting = Setting { clients, file, chunk: Some(THEIR_CHUNK), ..OURS };
    by_policy(scale, seed, &setting, &caches)
}

/// 4, at our chunk size: 1% to 100% of the file.
fn cache(scale: Scale, seed: u64) -> Vec<Cell> {
    let (percents, file, mebibytes) = match scale {
        Scale::Quick => (&[2, 10, 100][..], "20M", 20),
        Scale::Full => (&[1, 2, 5, 10, 25, 50, 100][..], "100M", 100),
    };
    let bytes = |percent: u64| (mebibytes << 20) * percent / 100;
    let caches: Vec<(f64, u64)> =
        percents.iter().map(|&percent| (percent as f64 / 100.0, bytes(percent))).collect();
    by_policy(scale, seed, &Setting { file, ..OURS }, &caches)
}

/// 5: who chooses the order, with room for everything and for a tenth.
fn orders(scale: Scale, seed: u64) -> Vec<Cell> {
    let (file, mebibytes) = if scale == Scale::Quick { ("20M", 20u64) } else { ("100M", 100) };
    let mut cells = Vec::new();
    for (name, cache) in [("the whole file", mebibytes << 20), ("a tenth", (mebibytes << 20) / 10)]
    {
        for (place, order) in [(1.0, "sequential"), (2.0, "random"), (3.0, "relay")] {
            let setting = Setting { file, order, cache: Some(cache), ..OURS };
            cells.push(setting.cell(name, place, seed));
        }
    }
    cells
}

/// What they wanted and could not run: 100 clients, 100 MB, 1 KiB chunks, 100 to 1,000 of them
/// cached.
fn theirs(seed: u64) -> Vec<Cell> {
    let run = |name: &str, order, eviction, chunks: u64| {
        let cache = Some(chunks << 10);
        let setting = Setting { file: "100MB", order, eviction, cache, ..THEIRS };
        let cell = setting.cell(name, chunks as f64, seed);
        let may_fail = order == "random";
        let patience = if may_fail { PATIENCE_THEIR_SETTING } else { PATIENCE };
        Cell { may_fail, patience, ..cell }
    };
    let mut cells = Vec::new();
    for (name, order, eviction) in [
        ("relay order, demand", "relay", "demand"),
        ("sequential order, demand", "sequential", "demand"),
        ("sequential order, LRU", "sequential", "lru"),
    ] {
        cells.extend(THEIR_CACHES.map(|chunks| run(name, order, eviction, chunks)));
    }
    // As they did it, at both ends of their range: by theory a chunk that hardly fits is fetched
    // nearly once for each client whatever the policy, and each such run takes minutes.
    for (name, eviction) in [("random order, demand", "demand"), ("random order, LRU", "lru")] {
        cells.extend([100, 1000].map(|chunks| run(name, "random", eviction, chunks)));
    }
    cells
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn every_run_is_one_that_the_command_line_takes() {
        for scale in [Scale::Quick, Scale::Full] {
            for cell in analyses(scale, 7).iter().flat_map(|analysis| &analysis.cells) {
                let words = std::iter::once("loadgen".to_owned()).chain(cell.args.iter().cloned());
                let args = Args::try_parse_from(words).unwrap();
                args.check().unwrap();
            }
        }
    }

    #[test]
    fn the_full_sweep_has_what_the_ancestors_could_not_run() {
        let all = analyses(Scale::Full, 1);
        let theirs = all.iter().find(|analysis| analysis.name == "theirs").unwrap();
        for (order, cache) in ["sequential", "random", "relay"]
            .into_iter()
            .flat_map(|o| [(o, "102400"), (o, "1024000")])
        {
            let flags = ["--clients", "100", "--file", "100MB", "--chunk", "1K", "--order", order];
            let has = |cell: &Cell| {
                let flags = flags.into_iter().chain(["--cache", cache]).collect::<Vec<_>>();
                flags.chunks(2).all(|flag| cell.args.windows(2).any(|args| args == flag))
            };
            assert!(theirs.cells.iter().any(has), "{order}, {cache}");
        }
        let clients = all.iter().find(|analysis| analysis.name == "clients").unwrap();
        for count in [5.0, 10.0, 50.0, 100.0, 1000.0] {
            assert_eq!(clients.cells.iter().filter(|cell| cell.x == count).count(), 2);
        }
    }

    #[test]
    fn equal_flags_are_equal_runs_and_no_analysis_asks_twice() {
        for analysis in analyses(Scale::Full, 1) {
            let mut keys: Vec<_> = analysis.cells.iter().map(|cell| cell.args.join(" ")).collect();
            let count = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count, "{}", analysis.name);
        }
    }
}
