//! The tree's own rules, as STYLE says them: who may know whom, what each file must have, what
//! none may hold. They look at text only; what compiles and what clippy finds is checked there.

mod tidy_support;

use tidy_support::{Source, is_below, root, sources};

/// Where Rust code of ours lies.
const CODE: [&str; 6] = ["src", "shards", "loadgen", "tests", "examples", "benches"];

/// A file that needs more is two files.
const LINES_MAX: usize = 500;

/// Files and directories without sockets, clocks, threads, metrics or chance of their own.
const PURE: [&str; 15] = [
    "src/protocol/",
    "src/swarm/",
    "src/time.rs",
    "src/path.rs",
    "src/transport/datagrams/",
    "src/transport/data/",
    "src/server/window.rs",
    "src/server/window_pool.rs",
    "src/server/session.rs",
    "src/server/session/",
    "src/server/fetching.rs",
    "src/server/fault.rs",
    "src/server/blame.rs",
    "src/peer/session.rs",
    "src/peer/session/",
];

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

/// The same, by a word.
const IMPURE_WORDS: [&str; 5] = ["async", "await", "monoio", "Instant", "SystemTime"];

/// Crates that only `shards` names.
const RUNTIME_CRATES: [&str; 3] = ["monoio", "crossbeam_channel", "core_affinity"];

/// Which modules of `relay` each module may use; itself always.
const DIRECTIONS: [(&str, &[&str]); 13] = [
    ("rng", &[]),
    ("time", &[]),
    ("path", &[]),
    ("buffers", &["path", "units"]),
    ("protocol", &["time"]),
    ("swarm", &["path", "protocol", "time"]),
    ("transport", &["protocol", "rng", "time"]),
    (
        "server",
        &["arguments", "buffers", "config", "path", "protocol", "swarm", "time", "transport"],
    ),
    (
        "peer",
        &["arguments", "buffers", "pages", "path", "protocol", "rng", "time", "transport", "units"],
    ),
    ("units", &[]),
    ("pages", &[]),
    ("arguments", &[]),
    ("serve", &["config", "pages", "peer", "protocol", "server", "time", "units"]),
];

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

fn code() -> Vec<Source> {
    let found = sources(&CODE, ".rs");
    assert!(found.len() > 20, "the sources are where they are looked for: {}", found.len());
    found
}

/// Fails with all of them, so that one run shows everything.
fn none_of(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

fn is_pure(path: &str) -> bool {
    PURE.iter().any(|pure| path == *pure || pure.ends_with('/') && path.starts_with(pure))
}

/// The module of `relay` that a file belongs to.
fn module(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    Some(rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs"))
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
fn modules_use_each_other_in_one_direction() {
    let mut offences = Vec::new();
    for source in sources(&["src"], ".rs") {
        let Some(own) = module(&source.path) else { continue };
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(module, _)| *module == own) else {
            continue;
        };
        for path in source.paths() {
            let Some(rest) = path.strip_prefix("crate::") else { continue };
            let other = rest.split("::").next().unwrap_or(rest);
            let is_module = DIRECTIONS.iter().any(|(module, _)| *module == other);
            if is_module && other != own && !allowed.contains(&other) {
                offences.push(format!("{} uses {path}", source.path));
            }
        }
    }
    offences.dedup();
    none_of("server, peer -> transport, swarm -> protocol -> time, and not back", &offences);
}

#[test]
fn crates_use_each_other_in_one_direction() {
    let mut offences = Vec::new();
    for source in code() {
        let in_shards = source.path.starts_with("shards/");
        let in_relay = source.path.starts_with("src/") || source.path.starts_with("tests/");
        for path in source.paths() {
            let first = path.split("::").next().unwrap_or(&path);
            let is_upward = in_shards && ["relay", "loadgen"].contains(&first)
                || in_relay && first == "loadgen";
            let is_runtime = !in_shards && RUNTIME_CRATES.contains(&first);
            if is_upward || is_runtime {
                offences.push(format!("{} names {path}", source.path));
            }
        }
    }
    offences.dedup();
    none_of("loadgen -> relay -> shards, and only shards names the runtime's crates", &offences);
}

#[test]
fn manifests_keep_the_same_direction() {
    let depends = |package: &str, on: &str| {
        let path = root().join(package).join("Cargo.toml");
        let text = std::fs::read_to_string(path).expect("a manifest can be read");
        // The workspace's table is only a list of versions.
        let from = text.find("[dependencies]").expect("a package has dependencies");
        text[from..]
            .lines()
            .any(|line| line.split(['.', ' ', '=']).next().is_some_and(|name| name == on))
    };
    for runtime in ["monoio", "crossbeam-channel", "core_affinity"] {
        assert!(depends("shards", runtime), "shards is where {runtime} is used");
        assert!(!depends(".", runtime), "relay does not depend on {runtime}");
        assert!(!depends("loadgen", runtime), "loadgen does not depend on {runtime}");
    }
    assert!(!depends("shards", "relay") && !depends("shards", "loadgen"));
    assert!(!depends(".", "loadgen"));
}

#[test]
fn only_one_file_spells_metric_names() {
    let mut offences = Vec::new();
    let places = ["src", "shards/src", "loadgen/src"];
    for source in sources(&places, ".rs") {
        if source.path == "src/server/metrics.rs" {
            continue;
        }
        for text in source.strings() {
            if text.starts_with("relay_") {
                offences.push(format!("{} spells {text}", source.path));
            }
        }
    }
    none_of("metric names are spelled in src/server/metrics.rs", &offences);
}

#[test]
fn every_promised_metric_exists() {
    let metrics = sources(&["src/server/metrics.rs"], ".rs");
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
    let metrics = sources(&["src/server/metrics.rs"], ".rs");
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
    for source in sources(&["src/protocol"], ".rs") {
        if source.path == "src/protocol/limits.rs" {
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
    none_of("wire limits are spelled in src/protocol/limits.rs", &offences);
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
            if places.iter().any(|place| line.contains(place.as_str())) {
                offences.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none_of("paths of one machine mean nothing on another", &offences);
}

/// What is written for people. What has changed since tells of what was.
fn documents() -> Vec<Source> {
    let mut found = sources(&["."], ".md");
    found.retain(|document| document.path != "CHANGELOG.md");
    assert!(found.len() >= 6, "documents are where they are looked for: {}", found.len());
    found
}

#[test]
fn every_file_that_the_documents_name_exists() {
    const PLACES: [&str; 12] = [
        "src/",
        "shards/",
        "loadgen/",
        "tests/",
        "dashboards/",
        ".ci/",
        "bench/",
        "benches/",
        "docs/",
        "examples/",
        "fuzz/",
        "packaging/",
    ];
    let mut offences = Vec::new();
    for document in documents() {
        for named in document.text.split('`').skip(1).step_by(2) {
            // A script may be named with what it is given, a file with a line of it.
            let path = named.split([' ', '\n', ':']).next().unwrap_or(named);
            let is_path = PLACES.iter().any(|place| named.starts_with(place))
                && !path.contains(['*', '{', '$']);
            if is_path && !root().join(path).exists() {
                offences.push(format!("{} names {path}", document.path));
            }
        }
        let beside = root().join(&document.path);
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or(link);
            let is_elsewhere =
                path.is_empty() || path.contains("://") || path.starts_with("../../");
            if !is_elsewhere && !beside.with_file_name(path).exists() {
                offences.push(format!("{} links to {path}", document.path));
            }
        }
    }
    none_of("documents name files that are there", &offences);
}

#[test]
fn every_target_that_the_documents_name_exists() {
    let packages = ["", "shards/", "loadgen/"];
    let is_there = |paths: &[String]| {
        let mut all =
            packages.iter().flat_map(|package| paths.iter().map(move |path| (package, path)));
        all.any(|(package, path)| root().join(format!("{package}{path}")).exists())
    };
    let mut offences = Vec::new();
    for document in documents() {
        let words: Vec<&str> = document
            .text
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| "`'\"(),.;".contains(c)))
            .collect();
        for pair in words.windows(2) {
            let name = pair[1];
            let paths = match pair[0] {
                "--test" => vec![format!("tests/{name}.rs"), format!("tests/{name}/main.rs")],
                "--bench" => vec![format!("benches/{name}.rs")],
                "--example" => vec![format!("examples/{name}.rs")],
                // Programs with `src/main.rs` are called as their packages are.
                "--bin" if name == "relay" || name == "loadgen" => continue,
                "--bin" => vec![format!("src/bin/{name}.rs")],
                _ => continue,
            };
            // A placeholder is in capitals.
            if name.chars().any(char::is_lowercase) && !is_there(&paths) {
                offences.push(format!("{} says {} {name}", document.path, pair[0]));
            }
        }
    }
    none_of("documents name targets that are there", &offences);
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let code = code();
    let exists =
        |name: &str| code.iter().any(|source| source.text.contains(&format!("fn {name}(")));
    let mut offences = Vec::new();
    for document in documents() {
        for named in document.text.split('`').skip(1).step_by(2) {
            // Tests are named by sentences.
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_test = named.matches('_').count() >= 5 && named.chars().all(is_word);
            if is_test && !named.starts_with("relay_") && !exists(named) {
                offences.push(format!("{} names {named}", document.path));
            }
        }
    }
    none_of("documents name tests that are there", &offences);
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
