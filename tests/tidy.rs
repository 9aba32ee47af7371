//! The tree's own rules, as STYLE says them: what may use what, what each file must have, what none
//! may hold. They look at text only; what compiles and what clippy finds is checked there.

mod tidy_support;

use tidy_support::{Source, code, is_below, none_of, root, sources};

/// A file that needs more is two files.
const LINES_MAX: usize = 500;

/// Files and directories without sockets, clocks, threads, metrics or chance of their own.
const PURE: [&str; 22] = [
    "crates/protocol/src/",
    "crates/swarm/src/",
    "crates/protocol/src/time.rs",
    "crates/protocol/src/path.rs",
    "crates/protocol/src/rate.rs",
    "crates/transport/src/datagrams/",
    "crates/server/src/session.rs",
    "crates/server/src/session/",
    "crates/server/src/shard/window_pool.rs",
    "crates/server/src/shard/shaper.rs",
    "crates/server/src/connection/pace.rs",
    "crates/server/src/home/limits.rs",
    "crates/server/src/connection/life.rs",
    "crates/server/src/home/blame.rs",
    "crates/client/src/session.rs",
    "crates/client/src/session/",
    "crates/client/src/connection/upload_limit.rs",
    "crates/client/src/proxy/connect.rs",
    "crates/client/src/proxy/exceptions.rs",
    "crates/client/src/proxy/handshake.rs",
    "crates/client/src/proxy/socks.rs",
    "crates/client/src/proxy/url.rs",
];

/// Among them, tests that need a runtime: a lease is had from a budget, and that rings a shard. And what gives our times
/// to a library by the names that it knows.
const NOT_PURE: [&str; 2] =
    ["crates/server/src/session/fetching/tests.rs", "crates/transport/src/datagrams/instant.rs"];

/// What makes code impure, by its path.
const IMPURE_PATHS: [&str; 11] = [
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "shards::net",
    "shards::clock",
    "shards::task",
    "metrics",
    "rand",
];

/// What makes code impure, by a word.
const IMPURE_WORDS: [&str; 5] = ["async", "await", "monoio", "Instant", "SystemTime"];

/// Crates that only `shards` names.
const RUNTIME_CRATES: [&str; 3] = ["monoio", "crossbeam_channel", "core_affinity"];

/// Our packages, by directory, and which of ours each may depend on: cargo keeps it, this says it. Tests may use more.
const PACKAGES: [(&str, &[&str]); 10] = [
    ("shards", &[]),
    ("crates/units", &[]),
    ("crates/protocol", &[]),
    ("crates/swarm", &["relay-protocol"]),
    ("crates/transport", &["relay-protocol", "shards"]),
    ("crates/program", &["relay-protocol", "relay-units", "shards"]),
    ("crates/client", &["relay-protocol", "relay-transport", "relay-units", "shards"]),
    (
        "crates/server",
        &[
            "relay-program",
            "relay-protocol",
            "relay-swarm",
            "relay-transport",
            "relay-units",
            "shards",
        ],
    ),
    (
        ".",
        &[
            "relay-client",
            "relay-program",
            "relay-protocol",
            "relay-server",
            "relay-swarm",
            "relay-transport",
            "relay-units",
            "shards",
        ],
    ),
    ("loadgen", &["relay", "shards"]),
];

/// Packages that the program `peer` is built of, ours and others', at most.
const PEER_PACKAGES_MAX: usize = 140;

/// What only a relay needs.
const RELAY_ONLY: [&str; 6] =
    ["axum", "hyper", "metrics-exporter-prometheus", "relay-server", "relay-swarm", "tokio"];

/// The metrics that INTERFACE promises.
const METRICS: [&str; 22] = [
    "relay_connections",
    "relay_connections_accepted_total",
    "relay_connections_refused_total",
    "relay_bytes_total",
    "relay_chunks_delivered_total",
    "relay_chunks_fetched_total",
    "relay_cache_hits_total",
    "relay_cache_misses_total",
    "relay_cache_evictions_total",
    "relay_chunk_bytes",
    "relay_chunk_bytes_limit",
    "relay_fetch_seconds",
    "relay_delivery_seconds",
    "relay_hedges_total",
    "relay_chunks_rejected_total",
    "relay_peers_banned_total",
    "relay_inbox_depth_max",
    "relay_doorbell_rings_total",
    "relay_shard_busy_ratio",
    "relay_shard_heartbeat_age_seconds",
    "relay_swarms",
    "relay_peers",
];

fn is_pure(path: &str) -> bool {
    !NOT_PURE.contains(&path)
        && PURE.iter().any(|pure| path == *pure || pure.ends_with('/') && path.starts_with(pure))
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let offences: Vec<_> = code().into_iter().filter(silent).map(|source| source.path).collect();
    none_of("a file opens with `//!`, its purpose and what it does not do", &offences);
}

#[test]
fn no_file_is_longer_than_a_reader_likes() {
    let lines = |source: &Source| source.text.lines().count();
    let offences: Vec<_> = code()
        .iter()
        .filter(|source| lines(source) > LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path, lines(source)))
        .collect();
    none_of("files are split before 500 lines", &offences);
}

#[test]
fn pure_modules_know_no_world() {
    let mut offences = Vec::new();
    for source in code().iter().filter(|source| is_pure(&source.path)) {
        for path in source.paths() {
            if IMPURE_PATHS.iter().any(|impure| is_below(&path, impure)) {
                offences.push(format!("{} names {path}", source.path));
            }
        }
        for word in source.words() {
            if IMPURE_WORDS.contains(&word.as_str()) {
                offences.push(format!("{} says {word}", source.path));
            }
        }
    }
    offences.dedup();
    none_of("pure modules take time and events as arguments", &offences);
}

#[test]
fn only_the_runtime_names_the_crates_that_it_is_made_of() {
    let mut offences = Vec::new();
    for source in code().iter().filter(|source| !source.path.starts_with("shards/")) {
        for path in source.paths() {
            let first = path.split("::").next().unwrap_or(&path);
            if RUNTIME_CRATES.contains(&first) {
                offences.push(format!("{} names {path}", source.path));
            }
        }
    }
    offences.dedup();
    none_of("only shards names the runtime's crates", &offences);
}

/// Names in a manifest's table of dependencies.
fn dependencies(package: &str) -> Vec<String> {
    let path = root().join(package).join("Cargo.toml");
    let text = std::fs::read_to_string(path).expect("a manifest can be read");
    // The workspace's table is only a list of versions.
    let from = text.find("\n[dependencies]\n").expect("a package has dependencies");
    let table = text[from..].lines().skip(2).take_while(|line| !line.starts_with('['));
    let names = table.filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn packages_depend_on_each_other_in_one_direction() {
    let ours = |name: &str| name.starts_with("relay") || ["shards", "loadgen"].contains(&name);
    let mut offences = Vec::new();
    for (package, allowed) in PACKAGES {
        let found = dependencies(package);
        let unexpected =
            found.iter().filter(|name| ours(name) && !allowed.contains(&name.as_str()));
        offences.extend(unexpected.map(|name| format!("{package} depends on {name}")));
        let runtime = ["monoio", "crossbeam-channel", "core_affinity"];
        for name in runtime.iter().filter(|name| found.iter().any(|other| other == *name)) {
            if package != "shards" {
                offences.push(format!("{package} depends on {name}"));
            }
        }
    }
    none_of("what may use what", &offences);
    let crates = std::fs::read_dir(root().join("crates")).expect("the crates are there");
    let known = PACKAGES.iter().filter(|(package, _)| package.starts_with("crates/"));
    assert_eq!(crates.count(), known.count(), "every crate is in the table");
}

#[test]
fn a_peer_is_built_of_little_and_nothing_that_only_a_relay_needs() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = "tree --locked --offline --package relay --no-default-features --edges normal --prefix none";
    let mut tree = std::process::Command::new(cargo);
    let tree = tree.args(args.split(' ')).current_dir(root()).output().expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    let mut packages: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    packages.sort_unstable();
    packages.dedup();
    let offences: Vec<String> = packages
        .iter()
        .filter(|name| RELAY_ONLY.contains(name))
        .map(|name| format!("the peer needs {name}"))
        .collect();
    none_of("a peer does without what serves HTTP, metrics and swarms", &offences);
    println!("{} packages", packages.len());
    assert!(packages.contains(&"relay-client"), "{text}");
    assert!(packages.len() <= PEER_PACKAGES_MAX, "{} packages", packages.len());
}

/// Where metrics have their names.
const METRIC_FILES: [&str; 2] =
    ["crates/server/src/observe/metrics.rs", "crates/server/src/observe/metrics"];

#[test]
fn only_one_place_spells_metric_names() {
    let mut offences = Vec::new();
    let places = ["src", "crates", "shards/src", "loadgen/src"];
    for source in sources(&places, ".rs") {
        if METRIC_FILES.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for text in source.strings() {
            if text.starts_with("relay_") {
                offences.push(format!("{} spells {text}", source.path));
            }
        }
    }
    none_of("metric names are spelled in crates/server/src/observe/metrics", &offences);
}

#[test]
fn every_promised_metric_exists() {
    let metrics = sources(&METRIC_FILES, ".rs");
    let spelled: Vec<_> = metrics.iter().flat_map(Source::strings).collect();
    let mut offences: Vec<_> = METRICS
        .iter()
        .filter(|name| !spelled.iter().any(|text| text == *name))
        .map(|name| (*name).to_owned())
        .collect();
    if !spelled.iter().any(|text| text == "relay_build_info") {
        offences.push("relay_build_info".into());
    }
    if !metrics.iter().any(|source| source.code().contains("metrics_process::Collector")) {
        offences.push("the process_* metrics".into());
    }
    none_of("metrics promised to those who scrape", &offences);
}

#[test]
fn dashboards_and_code_know_the_same_metrics() {
    let is_name = |text: &str| {
        text.strip_prefix("relay_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    };
    let metrics = sources(&METRIC_FILES, ".rs");
    let mut of_code: Vec<String> =
        metrics.iter().flat_map(Source::strings).filter(|text| is_name(text)).collect();
    of_code.sort_unstable();
    of_code.dedup();
    let mut of_dashboards = Vec::new();
    for file in sources(&["dashboards/grafana.json", "dashboards/rules.yml"], "") {
        // What rules record begins with the level that it is of, as in `instance:relay_..`.
        let names = file.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        for name in names.filter(|name| is_name(name)) {
            let of =
                |suffix: &str| name.strip_suffix(suffix).filter(|base| base.ends_with("_seconds"));
            let base = of("_bucket").or(of("_sum")).or(of("_count")).unwrap_or(name);
            of_dashboards.push(base.to_owned());
        }
    }
    of_dashboards.sort_unstable();
    of_dashboards.dedup();
    let unknown = of_dashboards.iter().filter(|name| !of_code.contains(name));
    let unseen = of_code.iter().filter(|name| !of_dashboards.contains(name));
    let offences: Vec<String> = unknown
        .map(|name| format!("dashboards name {name}, which the relay does not have"))
        .chain(unseen.map(|name| format!("{name} is on no dashboard and in no rule")))
        .collect();
    none_of("dashboards and code know the same metrics", &offences);
}

#[test]
fn only_one_file_spells_wire_limits() {
    let mut offences = Vec::new();
    for source in sources(&["crates/protocol/src"], ".rs") {
        // How much may be under way on a path, or go at once, is no limit of the wire.
        let elsewhere = ["crates/protocol/src/path.rs", "crates/protocol/src/rate.rs"];
        let is_elsewhere = elsewhere.contains(&source.path.as_str());
        if is_elsewhere || source.path == "crates/protocol/src/limits.rs" {
            continue;
        }
        for line in source.code().lines() {
            let Some((_, declared)) = line.split_once("const ") else { continue };
            let Some((name, value)) = declared.split_once('=') else { continue };
            let name = name.split(':').next().unwrap_or(name).trim();
            let is_limit = ["_MAX", "_MIN", "_DEFAULT", "_TIMEOUT"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            let is_literal = value.trim().starts_with(|char: char| char.is_ascii_digit());
            if is_limit && is_literal {
                offences.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    none_of("wire limits are spelled in crates/protocol/src/limits.rs", &offences);
}

#[test]
fn no_test_is_ignored_and_no_lint_is_silenced_without_a_reason() {
    let mut offences = Vec::new();
    for source in code() {
        let code: String = source.code().split_whitespace().collect();
        // What several test crates share is not used whole by each of them.
        let is_shared = source.path.contains("tests/") && source.path.ends_with("mod.rs");
        for (forbidden, what) in [
            ("#[ignore", "ignores a test"),
            ("dbg!(", "prints for debugging"),
            ("#[allow(", "silences a lint: use #[expect(.., reason = \"..\")]"),
            ("#![allow(", "silences a lint: use #[expect(.., reason = \"..\")]"),
        ] {
            if code.contains(forbidden) && !(is_shared && what.contains("lint")) {
                offences.push(format!("{} {what}", source.path));
            }
        }
    }
    none_of("tests run, lints speak", &offences);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Put together here, so that this file does not hold them.
    let places: Vec<String> =
        ["work", "root", "home"].iter().map(|place| format!("/{place}/")).collect();
    let mut offences = Vec::new();
    for source in sources(&["."], "") {
        for (number, line) in source.text.lines().enumerate() {
            // A directory of ours has such a name.
            let line = line.replace("server/src/home/", "");
            if places.iter().any(|place| line.contains(place.as_str())) {
                offences.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none_of("paths of one machine mean nothing on another", &offences);
}

#[test]
fn the_rules_see_what_they_look_for() {
    let text = "//! use std::fs;\nuse std::{net::{A, B}, time::Duration as D};\n\
                /* std::thread */ fn f() { let c = '\"'; g::h(\"relay_x // \\\" y\"); r#\"a\"b\"# }\n";
    let source = Source { path: "x.rs".into(), text: text.into() };
    let paths = source.paths();
    for path in ["std::net::A", "std::net::B", "std::time::Duration", "g::h"] {
        assert!(paths.iter().any(|found| found == path), "{path} in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains("fs") || path.contains("thread")), "{paths:?}");
    assert_eq!(source.strings(), ["relay_x // \\\" y", "a\"b"]);
    assert_eq!(source.code().lines().count(), text.lines().count());
}
