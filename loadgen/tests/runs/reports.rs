//! What `--report` leaves: a page that needs nothing else, and the same figures for machines.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{Relay, command, run};

/// Whether a page would ask another machine for anything: it may link only to files beside it.
fn assert_self_contained(html: &str, dir: &Path) {
    for foreign in ["http://", "https://", "<script", "<link", "<img", "<iframe", "url(", "@import"]
    {
        assert!(!html.contains(foreign), "the page has {foreign}");
    }
    assert!(html.contains("default-src 'none'"));
    for attribute in ["href=\"", "src=\""] {
        for rest in html.split(attribute).skip(1) {
            let name = rest.split('"').next().expect("there is always a first");
            assert!(dir.join(name).is_file(), "the page names {name}, which is not there");
        }
    }
}

#[test]
fn a_report_is_a_page_that_needs_nothing_else_and_figures_that_agree_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made/on/the/way");
    let run = run(&[
        "--clients",
        "6",
        "--file",
        "300K",
        "--chunk",
        "4K",
        "--report",
        out.to_str().unwrap(),
        "--relay-args",
        "--cores 1",
    ]);
    run.assert_success();
    assert!(run.stderr.contains("index.html"), "{}", run.stderr);
    let html = fs::read_to_string(out.join("index.html")).unwrap();
    assert_self_contained(&html, &out);
    assert!(html.matches("<svg").count() >= 9, "{}", html.matches("<svg").count());
    assert!(!html.contains("NaN") && !html.contains("inf\""));

    let report: Value =
        serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report, run.report);
    let figures: Value =
        serde_json::from_slice(&fs::read(out.join("figures.json")).unwrap()).unwrap();
    for (name, columns) in [
        ("clients", "client,seconds_at_1_of_32,"),
        ("timeline", "seconds,slot_seconds,verified_bytes,origin_bytes,peer_bytes,chunks,"),
        ("latencies", "from_seconds,to_seconds,chunks"),
        ("chunks", "first_chunk,latency_mean_seconds,latency_max_seconds"),
        ("arrivals", "group,chunk_0,"),
        ("processes", "seconds,clients_done,verified_bytes,loadgen_cpu_seconds,"),
    ] {
        let csv = fs::read_to_string(out.join(format!("{name}.csv"))).unwrap();
        assert!(csv.starts_with(columns), "{name}: {csv}");
        assert_eq!(csv.lines().count() - 1, figures[name]["rows"].as_array().unwrap().len());
    }
    // Every chunk of every client is in the figures, whatever its way.
    let sum = |table: &str, column: &str| {
        let columns = figures[table]["columns"].as_array().unwrap();
        let column = columns.iter().position(|name| name == column).unwrap();
        let rows = figures[table]["rows"].as_array().unwrap();
        rows.iter().map(|row| row[column].as_f64().unwrap()).sum::<f64>()
    };
    assert_eq!(sum("timeline", "verified_bytes"), 6.0 * 300.0 * 1024.0);
    assert_eq!(sum("timeline", "chunks"), 6.0 * 75.0);
    assert_eq!(sum("latencies", "chunks"), 6.0 * 75.0);
    // Each byte was supplied at least once by the origin, and what was supplied the relay took in.
    assert!(sum("timeline", "origin_bytes") >= 300.0 * 1024.0);
    let supplied = sum("timeline", "origin_bytes") + sum("timeline", "peer_bytes");
    assert_eq!(supplied, run.number("/relay/ingress_bytes"));
    assert_eq!(figures["clients"]["rows"].as_array().unwrap().len(), 6);
    let last = figures["processes"]["rows"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last[1], 6.0);
}

#[test]
fn what_a_relay_did_before_the_run_is_told_as_that_and_not_as_the_runs() {
    let relay = Relay::start("127.0.0.1:0", &["--cores", "1", "--cache", "4M"]);
    let earlier = run(&["--clients", "4", "--file", "3M", "--relay", &relay.address]);
    earlier.assert_success();
    assert!(!earlier.stdout.contains("before this run"), "{}", earlier.stdout);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let job = ["--clients", "3", "--file", "200K", "--relay", &relay.address, "--report", out];
    let run = run(&job);
    run.assert_success();
    // Counters are differences: this file has but one chunk, which can't have been evicted twice.
    assert!(run.number("/relay/cache_evictions") <= 2.0, "{}", run.report);
    let peak = earlier.number("/relay/chunk_bytes_peak");
    assert!(run.number("/relay/chunk_bytes_peak") >= peak, "peaks are since its start");
    assert_eq!(run.number("/relay/chunk_bytes_peak_before"), peak);
    assert_eq!(run.report["relay"]["was_in_use"], true);
    let html = fs::read_to_string(dir.path().join("index.html")).unwrap();
    for text in [&run.stdout, &html] {
        assert!(text.contains("3 MiB (before this run)"), "{text}");
        assert!(text.contains("it was in use before this run"), "{text}");
    }
}

#[test]
fn a_page_has_a_picture_for_a_narrow_screen_and_says_what_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let job = ["--clients", "5", "--file", "100K", "--report", out, "--relay-args", "--cores 1"];
    run(&job).assert_success();
    let html = fs::read_to_string(dir.path().join("index.html")).unwrap();
    let count = |what: &str| html.matches(what).count();
    assert_eq!(count("<div class=\"tight\"><svg"), count("<div class=\"roomy\"><svg"));
    assert!(count("<div class=\"tight\"><svg") >= 9);
    assert!(html.contains("Of 5 clients that had the file: 3 after "), "as many as there are");
    assert!(!html.contains("99 of 100"), "there are but 5");
    assert!(
        html.contains("from the first connect of all") && html.contains("from its own connect")
    );
    assert!(html.contains("chunk latency (logarithmic)"));
    // One kind of unit.
    for decimal in [" kB", " MB", " GB"] {
        assert!(!html.contains(decimal), "the page has{decimal}");
    }
}

#[test]
fn a_report_that_cant_be_written_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    let output = command(&["--clients", "2", "--file", "1K", "--report", file.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--report") && text.contains(file.to_str().unwrap()), "{text}");
    assert!(!text.contains("seed "), "nothing ran: {text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn a_failed_run_has_its_page_too_and_what_it_says_of_files_is_only_text() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // No program can write a file where a directory of that name stands; the name is in the error.
    let store = dir.path().join("<b>&'store\"");
    fs::create_dir_all(store.join("client-0/file-0.bin")).unwrap();
    let run = run(&[
        "--clients",
        "2",
        "--file",
        "10K",
        "--chunk",
        "4K",
        "--report",
        out.to_str().unwrap(),
        "--store",
        &format!("dir:{}", store.display()),
        "--seeding",
        "origin",
        "--relay-args",
        "--cores 1",
    ]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let html = fs::read_to_string(out.join("index.html")).unwrap();
    assert!(html.contains("The job failed"));
    assert!(html.contains("&lt;b&gt;&amp;&#39;store&quot;"), "{html}");
    assert!(!html.contains("<b>"));
    assert_self_contained(&html, &out);
}
