//! What one user hands to another by a ticket: a name, a mode, chunks of a size, the relay; from `peer
//! share` to `peer get` and `peer check`.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use relay::protocol::{Ticket, TicketKind};

use crate::programs::{peer, relay};
use crate::support::{
    process::{Ended, RelayProcess, Running, run},
    wait_for,
};

/// A share of a file, once its ticket is printed.
fn share(path: &Path, args: &[&str]) -> (Running, String) {
    let running = Running::start(peer(&["share"]).arg(path).args(args));
    let ticket = wait_for("the ticket", || {
        let stdout = running.stdout();
        stdout.split_once('\n').map(|(line, _)| line.to_owned())
    });
    (running, ticket)
}

/// A directory with a file of so many bytes.
fn file(name: &str, len: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join(name);
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    fs::write(&path, bytes).expect("a file can be written");
    (dir, path)
}

fn failed(end: &Ended, says: &[&str]) {
    assert_eq!(end.code, 1, "{}", end.stderr);
    for text in says {
        assert!(end.stderr.contains(text), "{text} is not in {}", end.stderr);
    }
}

#[test]
fn a_file_of_any_name_arrives_and_its_owner_is_told_what_others_call_it() {
    let relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr.to_string();
    let (from, to) = (tempfile::tempdir(), tempfile::tempdir());
    let (from, to) = (from.expect("a directory"), to.expect("a directory"));
    let longest = "n".repeat(255);
    let names: [(&[u8], &str); 9] = [
        ("می\u{200c}خواهم.txt".as_bytes(), "می\u{200c}خواهم.txt"),
        ("👨\u{200d}👩\u{200d}👧".as_bytes(), "👨\u{200d}👩\u{200d}👧"),
        (longest.as_bytes(), &longest),
        (b"caf\xe9", "caf%E9"),
        (b"caf\xe8", "caf%E8"),
        (b"-rf", "%2Drf"),
        (b"a\\b ", "a%5Cb%20"),
        (b"x.part", "x%2Epart"),
        ("\u{3164}".as_bytes(), "%E3%85%A4"),
    ];
    let shares: Vec<_> = names
        .iter()
        .filter_map(|(name, called)| {
            let path = from.path().join(OsStr::from_bytes(name));
            // Some file systems take text only.
            fs::write(&path, name).ok()?;
            Some((share(&path, &["--relay", &addr]), *name, *called))
        })
        .collect();
    assert!(shares.len() >= names.len() - 2, "only bytes that are no text may be refused");
    for ((running, ticket), name, called) in shares {
        let end = run(peer(&["get", &ticket]).current_dir(to.path()));
        assert_eq!(end.code, 0, "{called}: {}", end.stderr);
        assert_eq!(fs::read(to.path().join(called)).ok().as_deref(), Some(name), "{called}");
        let is_told = running.stderr().contains(&format!("calls the file {called}: its own name"));
        assert_eq!(is_told, name != called.as_bytes(), "{}", running.stderr());
    }
    let left = fs::read_dir(to.path()).expect("readable").count();
    assert_eq!(left, fs::read_dir(from.path()).expect("readable").count(), "no two became one");
}

#[test]
fn whatever_a_ticket_calls_its_file_the_user_may_choose_a_name() {
    let (dir, path) = file("x", 300_000);
    let relay = RelayProcess::start(relay(), &[]);
    let (_share, ticket) = share(&path, &["--relay", &relay.addr.to_string()]);
    let ticket: Ticket = ticket.parse().expect("a ticket");
    let named = |name: &str| {
        Ticket::new(ticket.relay.clone(), ticket.key, name).expect("it fits").to_string()
    };
    for (number, name) in ["../x", "-", "", "a\nb", "\u{3164}"].iter().enumerate() {
        let end = run(peer(&["get", &named(name)]).current_dir(dir.path()));
        assert_eq!(end.code, 2, "{name:?}: {}", end.stderr);
        let chosen = dir.path().join(format!("{number}{}", "z".repeat(250)));
        let end = run(peer(&["get", &named(name), "-o"]).arg(&chosen));
        assert_eq!(end.code, 0, "{name:?}: {}", end.stderr);
        assert!(fs::read(chosen).expect("it is there") == fs::read(&path).expect("readable"));
    }
    let odd = dir.path().join("a\\b\nc");
    let end = run(peer(&["get", &named("x"), "-o"]).arg(&odd));
    let line = format!("\\{}  {}/a\\\\b\\nc\n", ticket.key.id, dir.path().display());
    assert_eq!(end.stdout, line, "as b3sum escapes it");
}

#[test]
fn the_executable_bit_travels_with_the_ticket_and_the_umask_is_minded() {
    let relay = RelayProcess::start(relay(), &[]);
    let addr = relay.addr.to_string();
    let (dir, path) = file("tool", 100_000);
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let mut tickets = Vec::new();
    for (shared, is_executable) in [(0o755, true), (0o600, false), (0o700, true)] {
        mode(&path, shared);
        let (running, ticket) = share(&path, &["--relay", &addr]);
        let parsed: Ticket = ticket.parse().expect("a ticket");
        assert_eq!(parsed.kind, TicketKind::of_file(is_executable));
        let info = run(&mut peer(&["info", &ticket])).stdout;
        assert_eq!(info.contains("mode   executable"), is_executable, "{info}");
        tickets.push((running, ticket, is_executable));
    }
    assert_eq!(tickets[0].1, tickets[2].1, "who else may execute it is not told");
    for (n, (umask, plain, executable)) in
        [("022", 0o644, 0o755), ("077", 0o600, 0o700), ("027", 0o640, 0o750)].iter().enumerate()
    {
        for (_, ticket, is_executable) in &tickets {
            let copy = dir.path().join(format!("{n}-{is_executable}"));
            // What an earlier get left has no such bit.
            fs::write(dir.path().join(format!("{n}-{is_executable}.part")), "x").expect("writable");
            let mut get = Command::new("sh");
            get.args(["-c", &format!("umask {umask}; exec \"$0\" get \"$1\" -o \"$2\" --force")]);
            get.arg(env!("CARGO_BIN_EXE_peer")).arg(ticket).arg(&copy);
            fs::remove_file(&copy).ok();
            let end = run(&mut get);
            assert_eq!(end.code, 0, "{}", end.stderr);
            let found = fs::metadata(&copy).expect("it is there").permissions().mode() & 0o777;
            // The partial file was made under this process' own mask.
            let bits = if *is_executable { executable & 0o111 } else { plain & 0o111 };
            assert_eq!(found & 0o111, bits, "{umask}: {found:o}");
        }
        let fresh = dir.path().join(format!("{n}-fresh"));
        let mut get = Command::new("sh");
        get.args(["-c", &format!("umask {umask}; exec \"$0\" get \"$1\" -o \"$2\"")]);
        get.arg(env!("CARGO_BIN_EXE_peer")).arg(&tickets[0].1).arg(&fresh);
        assert_eq!(run(&mut get).code, 0);
        let found = fs::metadata(&fresh).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(found, *executable, "{umask}: {found:o}");
    }
}

#[test]
fn a_file_is_shared_as_its_old_ticket_says_though_the_relay_recommends_other_chunks() {
    let mut first = RelayProcess::start(relay(), &[]);
    let addr = first.addr.to_string();
    let (dir, path) = file("movie", 700_000);
    let (running, ticket) = share(&path, &["--relay", &addr]);
    drop(running);
    first.kill();
    let second = RelayProcess::start_on(relay(), first.addr, &["--cache", "1M"]);
    let (_other, another) = share(&path, &["--relay", &addr]);
    assert_ne!(another, ticket, "the relay recommends other chunks now");
    let get = |timeout: &str| {
        let copy = dir.path().join("copy");
        run(peer(&["get", &ticket, "--timeout", timeout, "-o"]).arg(copy))
    };
    failed(&get("3s"), &["the ticket is of chunks of 256 KiB", "128 KiB", "--ticket"]);
    let (again, same) = share(&path, &["--ticket", &ticket]);
    assert_eq!(same, ticket);
    let end = get("60s");
    assert_eq!(end.code, 0, "{}", end.stderr);
    fs::remove_file(dir.path().join("copy")).expect("it is there");
    drop(again);
    let changed = dir.path().join("changed");
    for (len, why) in [(700_001, "700001 bytes"), (700_000, "its content differs")] {
        fs::write(&changed, vec![1; len]).expect("writable");
        let end = run(peer(&["share", "--ticket", &ticket]).arg(&changed));
        failed(&end, &["is not the ticket's file", why]);
    }
    drop(second);
    let _third = RelayProcess::start_on(relay(), first.addr, &["--cache", "256K"]);
    let too_large = "takes chunks of at most 64 KiB";
    failed(&run(peer(&["share", "--ticket", &ticket]).arg(&path)), &[too_large, "--cache"]);
    failed(&get("1s"), &["chunks of 256 KiB are too large", "at most 64 KiB"]);
    let chunk = ["share", "--relay", &addr, "--chunk", "128K"];
    failed(&run(peer(&chunk).arg(&path)), &[too_large, "--chunk"]);
    let (_small, small) = share(&path, &["--relay", &addr, "--chunk", "16K"]);
    let small: Ticket = small.parse().expect("a ticket");
    assert_eq!(small.key.chunk_size_log2, 14);
}

#[test]
fn who_shares_by_an_address_of_his_own_machine_is_told_that_others_cannot_use_the_ticket() {
    let (_dir, path) = file("x", 10);
    let serve = path.to_str().expect("temporary paths are text").to_owned();
    let relay = RelayProcess::start(relay(), &["--serve", &serve]);
    assert!(relay.log().contains("no other machine finds this relay"), "{}", relay.log());
    let addr = format!("localhost:{}", relay.addr.port());
    let (running, _) = share(&path, &["--relay", &addr]);
    let told = running.stderr();
    assert!(
        told.contains("only this machine can use the ticket") && told.contains(&addr),
        "{told}"
    );
    let (quiet, _) = share(&path, &["--relay", &addr, "--quiet"]);
    assert_eq!(quiet.stderr(), "");
}

#[test]
fn check_needs_the_relay_only_to_say_where_a_file_differs() {
    let mut relay = RelayProcess::start(relay(), &[]);
    let (dir, path) = file("x", 300_000);
    let (running, ticket) = share(&path, &["--relay", &relay.addr.to_string()]);
    drop(running);
    let other = dir.path().join("other");
    fs::write(&other, vec![1; 300_000]).expect("writable");
    let check = |path: &Path| run(peer(&["check"]).arg(path).arg(&ticket));
    let nobody = check(&other);
    failed(
        &nobody,
        &["is not the ticket's file", "its content differs", "no peer that has the file"],
    );
    assert_eq!(check(&path).code, 0);
    relay.kill();
    failed(&check(&other), &["is not the ticket's file", "its content differs", "refused"]);
    assert_eq!(check(&path).code, 0, "what is right needs no relay");
}

#[test]
fn what_is_wrong_with_a_ticket_is_told_without_the_ticket() {
    let long = format!("relay1{}", "abcdefgh".repeat(30));
    for command in ["get", "info"] {
        let end = run(&mut peer(&[command, &long]));
        assert_eq!(end.code, 2, "{}", end.stderr);
        assert!(end.stderr.contains("the ticket is damaged"), "{}", end.stderr);
        assert!(!end.stderr.contains(&long[..40]), "{}", end.stderr);
    }
}
