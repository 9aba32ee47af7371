//! What people see of a running relay, over HTTP: `/api/v1`, the page's files and its events, who
//! may see them, and that all of it is bounded.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use serde_json::Value;

use crate::programs::relay;
use crate::support::{
    PATIENCE,
    file::TestFile,
    honest::{Download, Origin},
    http,
    process::{RelayProcess, drivers},
    wait_for, wait_until,
    wire::{Wire, hello, origin_hello},
};

/// Pages that may be open at once.
const WATCHERS_MAX: usize = 16;

pub(super) fn json(addr: SocketAddr, path: &str) -> Value {
    let answer = http::get(addr, path).expect("answered");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(unchunked(&answer.body)).expect("JSON")
}

/// Bodies here come whole: nothing is to be put together.
fn unchunked(body: &str) -> &str {
    body.trim()
}

/// A page that is open.
pub(super) struct Events {
    lines: BufReader<TcpStream>,
    status: u16,
}

impl Events {
    pub(super) fn open(addr: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(addr).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let request = format!("GET /api/v1/events HTTP/1.0\r\nHost: {addr}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut lines = BufReader::new(stream);
        let mut first = String::new();
        lines.read_line(&mut first).expect("an answer");
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { lines, status: status.expect("a status") }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("a frame comes") > 0, "it ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    /// The first frame of which this is so.
    pub(super) fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.next()).filter(&is_so))
    }
}

pub(super) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {value}"))
}

#[test]
fn swarms_shards_and_peers_are_told_as_json_and_agree_with_the_metrics() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver, "--cache", "8M"]);
        let empty = json(relay.http, "/api/v1/swarms");
        assert_eq!(
            (number(&empty, "/total"), empty["swarms"].as_array().map(Vec::len)),
            (0, Some(0))
        );
        let file = Arc::new(TestFile::new(1, 1 << 20, 16));
        let _origin = Origin::start(relay.addr, &file);
        let mut client = Download::join(relay.addr, file.key()).expect("it may join");
        let _idle = Wire::join(relay.addr, hello(file.key())).expect("it may join");
        while !client.is_complete() {
            client.step().expect("chunks come");
        }
        relay.wait_metric("relay_chunks_delivered_total", &[], 16.0);
        let swarms = json(relay.http, "/api/v1/swarms");
        let swarm = &swarms["swarms"][0];
        let id = swarm["id"].as_str().expect("an id");
        assert_eq!(id, blake3::hash(&file.bytes).to_hex().as_str(), "what b3sum prints");
        for (key, value) in [
            ("size_bytes", 1 << 20),
            ("chunk_size_bytes", 1 << 16),
            ("chunk_count", 16),
            ("peers", 3),
        ] {
            assert_eq!(swarm[key], value, "{key} in {swarm}");
        }
        assert_eq!(swarm["peers_whole"], 2);
        assert_eq!(swarm["phase"], "exchanging");
        for path in [id.to_owned(), swarm["name"].as_str().expect("a name").to_owned()] {
            let detail = json(relay.http, &format!("/api/v1/swarms/{path}"));
            let peers = detail["peers_list"].as_array().expect("a list");
            let held: Vec<_> = peers.iter().map(|peer| number(peer, "/chunks_held")).collect();
            assert_eq!(held, [16, 16, 0], "{detail}");
            assert_eq!(peers[0]["state"], "whole");
            assert_eq!(peers[2]["waits_for"], "credit", "it has granted nothing: {detail}");
            assert!(peers.iter().all(|peer| {
                peer["remote"].as_str().is_some_and(|remote| remote.starts_with("127.0.0.1:"))
            }));
        }
        let detail = json(relay.http, &format!("/api/v1/swarms/{id}?offset=1&limit=1"));
        assert_eq!(detail["peers_list"].as_array().map(Vec::len), Some(1));
        assert_eq!((number(&detail, "/total"), number(&detail, "/next_offset")), (3, 2));
        let shards = json(relay.http, "/api/v1/shards");
        let list = shards["shards"].as_array().expect("a list");
        let page = http::metrics(relay.http);
        let sum =
            |key: &str| list.iter().map(|shard| shard[key].as_u64().expect("a count")).sum::<u64>();
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        for (key, name, labels) in [
            ("connections", "relay_connections", &[][..]),
            ("chunks_delivered", "relay_chunks_delivered_total", &[]),
            ("data_out_bytes", "relay_bytes_total", &["direction=\"out\"", "kind=\"data\""]),
        ] {
            assert_eq!(sum(key) as f64, http::metric(&page, name, labels), "{key}");
        }
        assert_eq!(number(&shards, "/totals/chunk_bytes_limit"), 8 << 20);
    }
}

#[test]
fn what_is_not_there_and_what_makes_no_sense_is_said_so() {
    let relay = RelayProcess::start(relay(), &[]);
    let status = |path: &str| http::get(relay.http, path).expect("answered").status;
    assert_eq!(status(&format!("/api/v1/swarms/{}", "0".repeat(64))), 404);
    assert_eq!(status("/api/v1/swarms/%00..%2f"), 404);
    assert_eq!(status("/api/v1/swarms?limit=-1"), 400);
    assert_eq!(status("/api/v1/swarms?offset=18446744073709551615&limit=0"), 200);
    assert_eq!(status("/api/v1/nothing"), 404);
}

#[test]
fn events_tell_all_once_then_what_changed_and_who_died() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let file = Arc::new(TestFile::new(2, 1 << 20, 16));
        let mut page = Events::open(relay.http, "");
        assert_eq!(page.status, 200);
        assert_eq!(page.next()["whole"], true, "the first frame tells everything");
        let _origin = Origin::start(relay.addr, &file);
        let mut client = Download::join(relay.addr, file.key()).expect("it may join");
        while client.have_count() < 4 {
            client.step().expect("chunks come");
        }
        let frame = page.until("two rows", |frame| {
            frame["swarms"][0]["rows_order"].as_array().is_some_and(|rows| rows.len() == 2)
        });
        assert_eq!(frame["whole"], false, "what changed");
        while !client.is_complete() {
            client.step().expect("chunks come");
        }
        page.until("two whole peers", |frame| frame["swarms"][0]["whole"] == 2);
        // One that dies with nothing, and one that leaves with everything.
        let dying = Wire::join(relay.addr, hello(file.key())).expect("it may join");
        page.until("a third row", |frame| frame["swarms"][0]["peers"] == 3);
        dying.reset();
        drop(client);
        let states = |frame: &Value| -> Vec<String> {
            let rows = frame["swarms"][0]["rows"].as_array().cloned().unwrap_or_default();
            rows.iter().filter_map(|row| Some(row["state"].as_str()?.to_owned())).collect()
        };
        let mut seen = Vec::new();
        wait_until("one dead, one left", || {
            seen.extend(states(&page.next()));
            ["dead", "left"].iter().all(|state| seen.iter().any(|seen| seen == state))
        });
        // A page that is opened now shows them as well.
        let mut second = Events::open(relay.http, "");
        let whole = second.next();
        let mut states = states(&whole);
        states.sort_unstable();
        assert_eq!(states, ["dead", "left", "whole"], "{whole}");
        assert_eq!(whole["swarms"][0]["dead"], 1);
    }
}

#[test]
fn the_first_frame_knows_what_every_shard_knows() {
    let relay = RelayProcess::start(relay(), &["--cores", "3", "--oversubscribe"]);
    let files: Vec<_> = (50..56).map(|seed| TestFile::new(seed, 1 << 14, 14)).collect();
    let _origins: Vec<_> = files
        .iter()
        .map(|file| Wire::join(relay.addr, origin_hello(file.key())).expect("it may join"))
        .collect();
    relay.wait_metric("relay_peers", &[], 6.0);
    for _ in 0..3 {
        let frame = Events::open(relay.http, "").next();
        assert_eq!(frame["silent_shards"], serde_json::json!([]), "{frame}");
        assert_eq!(number(&frame, "/totals/peers"), 6);
        assert_eq!(frame["swarms"].as_array().map(Vec::len), Some(6), "{frame}");
    }
}

#[test]
fn pages_that_are_open_at_once_are_bounded_and_closed_ones_make_room() {
    let relay = RelayProcess::start(relay(), &[]);
    let mut pages: Vec<_> = (0..WATCHERS_MAX).map(|_| Events::open(relay.http, "")).collect();
    for page in &mut pages {
        assert_eq!(page.status, 200);
        page.next();
    }
    assert_eq!(Events::open(relay.http, "").status, 503);
    pages.pop();
    wait_until("room for another page", || Events::open(relay.http, "").status == 200);
}

#[test]
fn a_page_that_reads_nothing_holds_up_nobody() {
    let relay = RelayProcess::start(relay(), &[]);
    let deaf = Events::open(relay.http, "");
    let mut page = Events::open(relay.http, "");
    for _ in 0..12 {
        page.next();
    }
    drop(deaf);
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_the_policy_forbids_it() {
    let relay = RelayProcess::start(relay(), &[]);
    let files = [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/map.js", "text/javascript"),
    ];
    for (path, kind) in files {
        let answer = http::get(relay.http, path).expect("answered");
        assert_eq!(answer.status, 200, "{path}");
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none';"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        for outside in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
        ] {
            assert!(!answer.body.contains(outside), "{path} has {outside}");
        }
    }
}

#[test]
fn names_that_are_not_of_this_machine_see_no_page() {
    let relay = RelayProcess::start(relay(), &[]);
    let named = |path: &str, host: &str| {
        let mut stream = TcpStream::connect(relay.http).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").expect("sent");
        let mut first = String::new();
        BufReader::new(stream).read_line(&mut first).expect("an answer");
        first.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).expect("a status")
    };
    for path in ["/", "/api/v1/swarms", "/api/v1/events"] {
        assert_eq!(named(path, "rebound.example"), 403, "{path}");
        assert_eq!(named(path, "localhost:7441"), 200, "{path}");
    }
    assert_eq!(named("/metrics", "relay.example"), 200, "scrapers may call it as they like");
}

#[test]
fn a_browser_gets_in_with_the_token_once_and_a_cookie_that_scripts_cannot_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "se&cr=et\n").expect("written");
    let path = path.display().to_string();
    let relay = RelayProcess::start(relay(), &["--http-token-file", &path]);
    for path in
        ["/", "/page.js", "/api/v1/swarms", "/api/v1/swarms/x", "/api/v1/events", "/nowhere"]
    {
        let answer = http::get(relay.http, path).expect("answered");
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.body.contains("<form"), "a program is not sent a form");
    }
    let page = http::get_with(relay.http, "/", "Accept: text/html\r\n").expect("answered");
    assert_eq!(page.status, 401);
    assert!(page.body.contains("<form method=\"post\" action=\"/login\">"), "{}", page.body);
    let wrong = http::post_form(relay.http, "/login", "token=wrong").expect("answered");
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.body.contains("not this relay") && !wrong.head.contains("set-cookie"),
        "{}",
        wrong.head
    );
    let right = http::post_form(relay.http, "/login", "token=se%26cr%3Det").expect("answered");
    assert_eq!(right.status, 303, "{}", right.body);
    let cookie =
        right.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("se&cr"), "the token itself stays out of the cookie");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap_or_default());
    for path in ["/", "/page.js", "/api/v1/swarms", "/metrics"] {
        let answer = http::get_with(relay.http, path, &cookie).expect("answered");
        assert_eq!(answer.status, 200, "{path}");
    }
    let mut events = Events::open(relay.http, &cookie);
    assert_eq!(events.status, 200);
    events.next();
    assert_eq!(Events::open(relay.http, "Authorization: Bearer se&cr=et\r\n").status, 200);
    let long = format!("token={}", "x".repeat(10_000));
    assert_eq!(http::post_form(relay.http, "/login", &long).expect("answered").status, 413);
}
