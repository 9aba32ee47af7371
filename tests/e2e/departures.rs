//! What is told of peers that have gone: one that got the file left with it, however soon it went and whether
//! or not a page was open; one that did not is dead, and one that lied is banned.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use relay::protocol::{Message, RelayAddr, Ticket};
use rustix::process::Signal;
use serde_json::Value;

use super::page::{Events, json, number};
use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin},
    pause,
    process::{RelayProcess, Running, run},
    wait_for, wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

/// A get as a user runs it, to its end.
fn get(relay: SocketAddr, file: &TestFile, dir: &Path, name: &str) {
    let address = RelayAddr::new(&relay.ip().to_string(), relay.port()).expect("an address");
    let ticket = Ticket::new(address, file.key(), name).expect("a short name").to_string();
    let mut command = crate::programs::peer(&[]);
    command.args(["get", &ticket]).current_dir(dir);
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("the program can be started").success(), "the get of {name}");
}

/// What the relay tells of the file, once so many have gone.
fn told_of(relay: &RelayProcess, file: &TestFile, gone: usize) -> Value {
    let path = format!("/api/v1/swarms/{}", blake3::hash(&file.bytes).to_hex());
    wait_for("those who have gone", || {
        let told = json(relay.http, &path);
        (told["gone"].as_array().is_some_and(|list| list.len() >= gone)).then_some(told)
    })
}

fn states(told: &Value) -> Vec<(&str, u64)> {
    let gone = told["gone"].as_array().expect("a list");
    gone.iter()
        .map(|gone| (gone["state"].as_str().expect("a state"), number(gone, "/chunks_held")))
        .collect()
}

#[test]
fn who_got_the_file_left_with_it_whether_or_not_anybody_watched() {
    for is_watched in [true, false] {
        let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe"]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = Arc::new(TestFile::new(71, 3 << 20, 14));
        let _origin = Origin::start(relay.addr, &file);
        let mut page = is_watched.then(|| Events::open(relay.http, ""));
        if let Some(page) = &mut page {
            page.until("the origin", |frame| frame["swarms"][0]["peers"] == 1);
        }
        for name in ["one", "two", "three"] {
            get(relay.addr, &file, dir.path(), name);
        }
        let told = told_of(&relay, &file, 3);
        assert_eq!(states(&told), [("left", 192); 3], "watched: {is_watched}: {told}");
        assert_eq!((number(&told, "/peers_dead"), number(&told, "/peers_left")), (0, 3));
        let remotes = told["gone"].as_array().expect("a list").iter();
        let is_local = |gone: &Value| {
            gone["remote"].as_str().is_some_and(|remote| remote.starts_with("127.0.0.1:"))
        };
        assert!(remotes.clone().all(is_local), "{told}");
        if let Some(page) = &mut page {
            let frame = page.until("all of them", |frame| frame["swarms"][0]["left"] == 3);
            assert_eq!(number(&frame, "/swarms/0/dead"), 0, "{frame}");
        }
    }
}

#[test]
fn who_left_a_file_before_it_was_shared_again_is_told_all_the_same() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = TestFile::new(74, 1 << 16, 16);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shared");
    std::fs::write(&path, &file.bytes).expect("written");
    let share = |args: &[&str]| {
        let mut command = crate::programs::peer(&["share"]);
        command.arg(&path).args(["--relay", &relay.addr.to_string()]).args(args);
        let running = Running::start(&mut command);
        let ticket = wait_for("the ticket", || running.stdout().lines().next().map(str::to_owned));
        (running, ticket)
    };
    for (name, is_watched) in [("one", true), ("two", false)] {
        let _page = is_watched.then(|| Events::open(relay.http, ""));
        let (running, ticket) = share(&["--once"]);
        let mut command = crate::programs::peer(&[]);
        let got = run(command.args(["get", &ticket, "-o"]).arg(dir.path().join(name)));
        assert_eq!((got.code, running.wait().code), (0, 0), "{}", got.stderr);
        wait_until("its end", || relay.metric("relay_swarms", &[]) == 0.0);
    }
    let _running = share(&[]);
    // Two that shared it and two that got it.
    let told = told_of(&relay, &file, 4);
    assert_eq!(states(&told), [("left", 1); 4], "{told}");
    assert_eq!((number(&told, "/peers_left"), number(&told, "/peers_dead")), (0, 0), "{told}");
}

#[test]
fn a_page_that_is_open_while_the_relay_does_not_run_sees_who_died_meanwhile() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(75, 1 << 18, 14));
    let mut page = Events::open(relay.http, "");
    let _origin = Origin::start(relay.addr, &file);
    let mut client = Download::join(relay.addr, file.key()).expect("it may join");
    while client.have_count() < 4 {
        client.step().expect("chunks come");
    }
    page.until("both", |frame| frame["swarms"][0]["peers"] == 2);
    relay.signal(Signal::STOP);
    client.into_wire().reset();
    // Longer than shards publish without being asked again.
    pause(Duration::from_secs(6));
    relay.signal(Signal::CONT);
    let is_dead = |row: &Value| row["state"] == "dead";
    page.until("its row", |frame| {
        frame["swarms"][0]["rows"].as_array().is_some_and(|rows| rows.iter().any(is_dead))
    });
}

#[test]
fn all_who_leave_a_file_at_once_left_with_it_and_their_rows_are_full() {
    const CLIENTS: usize = 12;
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe"]);
    let file = Arc::new(TestFile::new(72, 11 << 14, 14));
    let mut page = Events::open(relay.http, "");
    page.next();
    let mut publisher = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut clients: Vec<Download> = (0..CLIENTS)
        .map(|_| Download::join(relay.addr, file.key()).expect("it may join"))
        .collect();
    page.until("everybody", |frame| frame["swarms"][0]["peers"] == CLIENTS + 1);
    publisher.send(&Message::Leaving).expect("sent");
    let origin = Origin::serve(publisher, &file);
    for client in &mut clients {
        while !client.is_complete() {
            client.step().expect("chunks come");
        }
    }
    // None of them says farewell.
    drop(clients);
    drop(origin);
    let frame = page.until("its end", |frame| frame["swarms"][0]["left"] == CLIENTS);
    assert_eq!(number(&frame, "/swarms/0/dead"), 0, "{frame}");
    // A page that is opened now shows full rows.
    let frame = Events::open(relay.http, "").next();
    let rows = frame["swarms"][0]["rows"].as_array().expect("rows");
    let left = rows.iter().filter(|row| row["state"] == "left" && row["origin"] == false);
    let bits: Vec<_> = left.map(|row| row["bits"].as_str().expect("bits")).collect();
    assert_eq!(bits, ["/wc="; CLIENTS], "{frame}");
}

#[test]
fn who_died_is_dead_and_who_lied_is_banned_whatever_it_claimed() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(73, 1 << 20, 16));
    let mut liar = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut client = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    client.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 }).expect("sent");
    loop {
        match liar.hear().expect("it is asked") {
            Heard::Control(Message::ManifestRequest) => {
                file.manifest.parts(0).for_each(|part| liar.send(&part).expect("sent"));
            }
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let wrong: Vec<u8> = file.chunk(chunk).iter().map(|byte| !byte).collect();
                liar.send_chunk(fetch_id, chunk, &wrong).expect("sent");
                break;
            }
            _ => {}
        }
    }
    liar.hear_end();
    let told = told_of(&relay, &file, 1);
    assert_eq!(states(&told), [("banned", 16)], "{told}");
    let origin = Origin::start(relay.addr, &file);
    let mut other = Download::join(relay.addr, file.key()).expect("it may join");
    while other.have_count() < 5 {
        other.step().expect("chunks come");
    }
    other.into_wire().reset();
    let told = told_of(&relay, &file, 2);
    let (state, held) = states(&told)[1];
    assert_eq!(state, "dead", "{told}");
    assert!((5..16).contains(&held), "{told}");
    assert_eq!((number(&told, "/peers_dead"), number(&told, "/peers_banned")), (1, 1), "{told}");
    assert!(origin.is_serving());
}
