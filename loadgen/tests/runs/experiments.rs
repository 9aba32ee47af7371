//! `sweep` goes on where it was ended and leaves results; `compare` compares, or says what it lacks.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::support::command;

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
}

/// `flag` says where to.
fn sweep(flag: &str, dir: &Path) -> (Output, usize) {
    let out = dir.to_str().expect("a temporary directory has a plain name");
    let output = command(&["sweep", "--quick", "--only", "round-trips", flag, out])
        .output()
        .expect("the program can be started");
    let runs = text(&output).lines().filter(|line| line.starts_with('[')).count();
    println!("{}", text(&output));
    (output, runs)
}

#[test]
fn a_sweep_keeps_what_is_done_and_runs_only_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (output, runs) = sweep("--report", dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(runs >= 2, "{runs} runs");
    let path = dir.path().join("results.json");
    let mut kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(kept["runs"].as_object().unwrap().len(), runs);
    let (_, again) = sweep("--out", dir.path());
    assert_eq!(again, 0, "all of it was there, by the old name of the option, too");
    for variable in ["LOADGEN_REPORT", "LOADGEN_OUT"] {
        let mut command = command(&["sweep", "--quick", "--only", "round-trips"]);
        let output = command.env(variable, dir.path()).output().unwrap();
        let said = text(&output);
        assert!(said.contains(dir.path().to_str().unwrap()) && !said.contains('['), "{said}");
    }
    // As if it had been ended before its last run; the others are not touched.
    let all = kept["runs"].as_object_mut().unwrap();
    let theirs = all.keys().find(|flags| flags.contains("118kB")).unwrap().clone();
    all.remove(&theirs);
    for run in all.values_mut() {
        run["report"]["wall_seconds"] = 12_345.0.into();
    }
    fs::write(&path, kept.to_string()).unwrap();
    let (_, again) = sweep("--report", dir.path());
    assert_eq!(again, 1);
    let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(whole["runs"][&theirs]["report"]["clients_verified"] == 5, "{theirs}");
    assert!(!whole["runs"][&theirs]["by_chunk"].as_array().unwrap().is_empty());
    let csv = fs::read_to_string(dir.path().join("results.csv")).unwrap();
    assert!(csv.starts_with("analysis,series,x,flags,error,hit_rate,clients,"), "{csv}");
    assert_eq!(csv.lines().count() - 1, runs);
    assert!(csv.contains("12345"), "{csv}");
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("33 ms"), "theirs are beside ours");
    assert!(page.contains("The ancestors are two earlier programs"), "they have a name");
    assert!(page.contains("average round trip (logarithmic)"));
    assert!(!page.contains("://") && !page.contains("<script") && !page.contains("NaN"));
}

#[test]
fn a_sweep_of_nothing_and_one_into_a_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (args, reason) in [
        (&["sweep", "--quick", "--only", "nothing", "--out", file][..], "no analysis"),
        (&["sweep", "--quick", "--out", file], file),
    ] {
        let output = command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output).contains(reason), "{}", text(&output));
    }
    let output = command(&["--clients", "2", "sweep"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "flags alone are a run: {}", text(&output));
}

#[test]
fn a_comparison_has_both_sides_or_says_what_to_install() {
    let args =
        ["compare", "nginx", "--clients", "4", "--file", "1M", "--rounds", "2", "--json", "-"];
    let output = command(&args).output().unwrap();
    let said = text(&output);
    if said.contains("not installed") {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("--nginx"), "{said}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["wall_ratio"].as_f64().unwrap() > 0.0);
    for side in report["sides"].as_array().unwrap() {
        assert!(!side["congestion"].as_str().unwrap().is_empty());
        let rounds = side["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        assert!(rounds.iter().all(|round| round["wall_seconds"].as_f64().unwrap() > 0.0));
    }
}

#[test]
fn an_opponent_that_is_not_there_or_not_known_is_named() {
    let output = command(&["compare", "nginx", "--nginx", "/no/such/nginx"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/no/such/nginx"), "{}", text(&output));
    let output = command(&["compare", "pigeon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("nginx"), "{}", text(&output));
    // What is no web server at all: it ends at once, and the error says so.
    let output = command(&["compare", "nginx", "--nginx", "/bin/false", "--file", "1K"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("nginx ended"), "{}", text(&output));
}
