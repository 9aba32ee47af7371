//! What the load generator reads and writes, and would be nowhere: a report without a reader, a file that
//! holds more than it says, names that a digest's line can't hold as they are.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    loadgen,
    support::process::{Ended, run},
};

fn redirected(how: &str, args: &[&str]) -> Ended {
    let program = loadgen();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {how}")]).arg(program.get_program()).args(args);
    run(&mut shell)
}

#[test]
fn a_report_that_is_nowhere_is_a_failure_and_nothing_runs_for_it() {
    let job = ["--clients", "1", "--file", "10K", "--relay-args", "--cores 1"];
    let json = [&job[..], &["--json", "-"]].concat();
    for args in
        [&job[..], &json, &["--help"], &["sweep", "--help"], &["compare", "nginx", "--help"]]
    {
        for how in [">&-", "1</dev/null"] {
            let end = redirected(how, args);
            assert_eq!(end.code, 1, "{args:?} {how}: {}", end.stderr);
            assert!(end.stderr.contains("to stdout"), "{args:?} {how}: {}", end.stderr);
            assert!(!end.stderr.contains("clients have the file"), "{}", end.stderr);
        }
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let report = dir.path().join("report.json");
    let kept = [&job[..], &["--json", report.to_str().expect("text")]].concat();
    assert_eq!(redirected(">&-", &kept).code, 0, "the report is where it was asked for");
    assert!(fs::metadata(&report).is_ok_and(|metadata| metadata.len() > 0));
    let end = redirected("<&- 2>&-", &json);
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert!(end.stdout.starts_with('{'), "{}", end.stdout);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_holds_more_than_the_system_states_is_not_taken_for_an_empty_one() {
    let end = redirected("", &["--clients", "1", "--file", "/proc/cpuinfo", "--relay-args", ""]);
    assert_eq!(end.code, 1, "{}", end.stdout);
    assert!(end.stderr.contains("/proc/cpuinfo holds more"), "{}", end.stderr);
    assert_eq!(redirected("", &["--file", "-"]).code, 2);
}

#[test]
fn a_stored_file_keeps_its_name_and_mode_and_its_digest_line_escapes_the_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("a\\b\nc");
    fs::write(&path, "some bytes").expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let out = dir.path().join("out");
    let mut command = loadgen();
    command.args(["--clients", "1", "--relay-args", "--cores 1", "--store"]);
    let end = run(command.arg(format!("dir:{}", out.display())).arg("--file").arg(&path));
    assert_eq!(end.code, 0, "{}", end.stderr);
    let (first, _) = end.stdout.split_once('\n').expect("a line");
    assert!(first.starts_with('\\') && first.ends_with("  client-0/a\\\\b\\nc"), "{first}");
    let stored = out.join("client-0/a\\b\nc");
    assert_eq!(fs::read(&stored).expect("it is there"), b"some bytes");
    let mode = fs::metadata(&stored).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o100, 0o100, "{mode:o}");
}
