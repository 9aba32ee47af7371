//! Results that would be nowhere: no program says that all went well when its output could not be written, or
//! when it read less than there is.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    process::{Ended, NO_STATE, RELAY_STATE, RelayProcess, Running, run, with_state},
    wait_for,
};

const RELAY: &str = env!("CARGO_BIN_EXE_relay");
const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// A program that is started as a shell's redirections say.
fn redirected(how: &str, program: &str, args: &[&str]) -> Ended {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {how}"), program]).args(args);
    shell.env("PEER_PLAIN", "1");
    run(with_state(&mut shell, if program == RELAY { RELAY_STATE } else { NO_STATE }))
}

fn share(path: &Path, relay: &RelayProcess) -> (Running, String) {
    let mut command = crate::programs::peer(&["share"]);
    let running = Running::start(command.arg(path).args(["--relay", &relay.addr.to_string()]));
    let ticket = wait_for("the ticket", || {
        running.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    (running, ticket)
}

/// Ways to have a stdout that takes nothing.
fn nowhere() -> Vec<&'static str> {
    let full = Path::new("/dev/full").exists().then_some(">/dev/full");
    [Some(">&-"), Some("1</dev/null"), full].into_iter().flatten().collect()
}

#[test]
fn a_program_whose_results_are_nowhere_has_failed() {
    let relay = RelayProcess::start(crate::programs::relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("x");
    fs::write(&path, vec![7; 300_000]).expect("writable");
    let (_share, ticket) = share(&path, &relay);
    let (path, addr) = (path.to_str().expect("text"), relay.addr.to_string());
    let copy = dir.path().join("copy");
    let copy = copy.to_str().expect("text");
    let listen = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    for how in nowhere() {
        for args in [
            &["get", &ticket, "-o", "-"][..],
            &["get", &ticket, "-o", copy, "--json"],
            &["share", path, "--relay", &addr],
            &["check", path, &ticket, "--json"],
            &["info", &ticket],
            &["man"],
            &["get", "--help"],
            &["--version"],
        ] {
            let end = redirected(how, PEER, args);
            assert_eq!(end.code, 1, "{args:?} {how}: {}", end.stderr);
            assert!(end.stderr.contains("stdout") || args[0] == "get", "{args:?}: {}", end.stderr);
            assert!(!end.stderr.is_empty() && !end.stderr.contains("panicked"), "{args:?}");
        }
        for args in [&listen[..], &["man"], &["--help"]] {
            let end = redirected(how, RELAY, args);
            assert_eq!(end.code, 1, "{args:?} {how}: {}", end.stderr);
            assert!(end.stderr.contains("to stdout"), "{args:?}: {}", end.stderr);
        }
    }
}

#[test]
fn who_wants_no_results_gets_the_file_all_the_same() {
    let relay = RelayProcess::start(crate::programs::relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("x");
    fs::write(&path, vec![7; 300_000]).expect("writable");
    let (_share, ticket) = share(&path, &relay);
    let copy = dir.path().join("copy");
    let copy = copy.to_str().expect("text");
    for how in ["<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let end = redirected(how, PEER, &["get", &ticket, "-o", copy, "--force"]);
        assert_eq!(end.code, 0, "{how}: {}", end.stderr);
        assert!(fs::read(copy).expect("it is there") == fs::read(&path).expect("readable"));
        fs::remove_file(copy).expect("it is there");
    }
    let streamed = redirected("<&- 2>&-", PEER, &["get", &ticket, "-o", "-"]);
    assert_eq!((streamed.code, streamed.stdout.len()), (0, 300_000));
    assert_eq!(
        redirected(">&- 2>&-", PEER, &["check", path.to_str().expect("text"), &ticket]).code,
        0
    );
    // A relay whose stdout has no reader does its work, too.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&- 2>&-", RELAY]);
    let silent = RelayProcess::start(shell, &[]);
    let (_share, ticket) = share(&path, &silent);
    assert_eq!(redirected("", PEER, &["get", &ticket, "-o", copy]).code, 0);
}

#[test]
#[cfg(target_os = "linux")]
fn what_holds_more_or_less_than_the_system_states_is_not_shared() {
    let relay = RelayProcess::start(crate::programs::relay(), &[]);
    let addr = relay.addr.to_string();
    let made =
        ["/proc/cpuinfo", "/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"];
    for path in made.iter().filter(|path| File::open(path).is_ok()) {
        let end = redirected("", PEER, &["share", path, "--relay", &addr]);
        assert_eq!((end.code, end.stdout.as_str()), (1, ""), "{path}: {}", end.stderr);
        for part in [*path, "that the system states", "copy it"] {
            assert!(end.stderr.contains(part), "{part}: {}", end.stderr);
        }
    }
    let serve = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--serve", "/proc/cpuinfo"];
    let end =
        run(crate::programs::relay().args(serve).env("RELAY_PLAIN", "1").stdin(Stdio::null()));
    assert_eq!((end.code, end.stdout.as_str()), (1, ""), "{}", end.stderr);
}
