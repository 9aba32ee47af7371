//! Tokens that may only publish or only get, and a relay that is open to all who get: with the real programs, and
//! with hellos made by hand that claim more than their token is good for.

use std::{fs, net::SocketAddr, path::PathBuf};

use relay::protocol::{
    Claims, FailureCode, Hello, Message, RelayAddr, Ticket, Token, limits::BINDING_BYTES,
};
use tempfile::TempDir;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    process::{Ended, RelayProcess, Running, run},
    wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

/// The protocol's default.
const CHUNK_SIZE_LOG2: u8 = 18;

/// Four chunks, the last of them short.
const SIZE_BYTES: usize = (3 << CHUNK_SIZE_LOG2) + 5;

/// What a relay says to a peer that may only get, and comes first.
const NOT_PUBLISHED: &str = "no peer that may publish this file has shared it here yet";

/// A directory with a file to share, and files of tokens.
struct Stage {
    dir: TempDir,
    file: TestFile,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let file = TestFile::new(seed, SIZE_BYTES, CHUNK_SIZE_LOG2);
        fs::write(dir.path().join("movie.mkv"), &file.bytes).expect("a file can be written");
        Self { dir, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A file with this line of a token.
    fn token(&self, line: &str) -> String {
        let name = format!("{} token", line.replace(':', " "));
        // A program that was started with it may be reading it.
        if !self.path(&name).exists() {
            fs::write(self.path(&name), format!("{line}\n")).expect("a file can be written");
        }
        self.text(&name)
    }

    /// A relay that knows a token of each role.
    fn relay_on(&self, addr: SocketAddr, more: &[&str]) -> RelayProcess {
        let tokens = "publish:publisher\nget:getter\nboth\n";
        fs::write(self.path("tokens"), tokens).expect("a file can be written");
        let tokens = self.text("tokens");
        let args = [&["--token-file", &tokens], more].concat();
        RelayProcess::start_on(relay(), addr, &args)
    }

    fn relay(&self, more: &[&str]) -> RelayProcess {
        self.relay_on(SocketAddr::from(([127, 0, 0, 1], 0)), more)
    }

    fn ticket(&self, relay: &RelayProcess) -> String {
        let addr = RelayAddr::new(&relay.addr.ip().to_string(), relay.addr.port());
        let addr = addr.expect("an address is one");
        Ticket::new(addr, self.file.key(), "movie.mkv").expect("it fits").to_string()
    }

    /// A share that has begun.
    fn share(&self, relay: &RelayProcess, token: &str) -> Running {
        let (path, addr, token) =
            (self.text("movie.mkv"), relay.addr.to_string(), self.token(token));
        let args = ["share", &path, "--relay", &addr, "--token-file", &token];
        let running = Running::start(&mut peer(&args));
        wait_until("the ticket", || running.stdout().ends_with('\n'));
        running
    }

    /// A get on its way, of a copy with this name.
    fn get(&self, relay: &RelayProcess, name: &str, token: Option<&str>) -> Running {
        let (ticket, copy) = (self.ticket(relay), self.text(name));
        let mut command = peer(&["get", &ticket, "-o", &copy]);
        if let Some(token) = token {
            command.args(["--token-file", &self.token(token)]);
        }
        Running::start(&mut command)
    }

    fn check_copy(&self, name: &str, end: &Ended) {
        assert_eq!(end.code, 0, "{}", end.stderr);
        assert!(fs::read(self.path(name)).expect("it is there") == self.file.bytes);
    }
}

/// What the relay says to a hello with this token: the failure, or that it takes the peer.
fn answer(addr: SocketAddr, hello: &Hello, token: Option<&str>) -> Option<(FailureCode, String)> {
    let (mut wire, _) = Wire::greet(addr).expect("a relay");
    let token = token.and_then(Token::from_line);
    let proof = token.map(|token| wire.proof(&token));
    wire.send(&Message::Hello(Hello { proof, ..hello.clone() })).expect("sent");
    match wire.hear().expect("it answers") {
        Heard::Control(Message::Accepted(_)) => None,
        Heard::Control(Message::Failure(failure)) => Some((failure.code, failure.text)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_may_only_get_waits_for_the_publisher_and_is_told_why() {
    let stage = Stage::new(1);
    let relay = stage.relay(&[]);
    let mut waiting = stage.get(&relay, "first", Some("get:getter"));
    wait_until("the reason", || waiting.stderr().contains(NOT_PUBLISHED));
    relay.wait_metric("relay_connections_refused_total", &["reason=\"not_published\""], 1.0);
    assert!(waiting.is_alive());
    assert!(relay.metric("relay_swarms", &[]) < 0.5);
    let _share = stage.share(&relay, "publish:publisher");
    stage.check_copy("first", &waiting.wait());
    // The line of the relay's file may be handed out as it is, or its token alone.
    for (name, token) in [("second", "get:getter"), ("third", "getter"), ("fourth", "both")] {
        stage.check_copy(name, &stage.get(&relay, name, Some(token)).wait());
    }
}

#[test]
fn a_peer_that_may_only_get_gives_up_at_its_time_out_and_says_why() {
    let stage = Stage::new(2);
    let relay = stage.relay(&[]);
    let (ticket, token) = (stage.ticket(&relay), stage.token("get:getter"));
    let args = ["get", &ticket, "-o", "-", "--token-file", &token, "--timeout", "2s"];
    let end = run(&mut peer(&args));
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains(NOT_PUBLISHED), "{}", end.stderr);
}

#[test]
fn a_line_for_the_other_role_fails_at_once() {
    let stage = Stage::new(3);
    let [publish, get] = ["publish:publisher", "get:getter"].map(|line| stage.token(line));
    let movie = stage.text("movie.mkv");
    // No relay is asked: there is none.
    let share = ["share", &movie, "--relay", "127.0.0.1:1", "--token-file", &get];
    let end = run(&mut peer(&share));
    assert_eq!(end.code, 2);
    assert!(end.stderr.contains("may only get files (get:)"), "{}", end.stderr);
    let relay = stage.relay(&[]);
    let ticket = stage.ticket(&relay);
    let end = run(&mut peer(&["get", &ticket, "-o", "-", "--token-file", &publish]));
    assert_eq!(end.code, 2);
    assert!(end.stderr.contains("may only publish files (publish:)"), "{}", end.stderr);
    for secret in ["publisher", "getter"] {
        assert!(!end.stderr.replace(&publish, "").contains(secret), "{}", end.stderr);
    }
    // A check needs no relay where the file is right, and says why it asks none where it is not.
    let end = run(&mut peer(&["check", &movie, &ticket, "--token-file", &publish]));
    assert_eq!(end.code, 0, "{}", end.stderr);
    let mut bytes = stage.file.bytes.clone();
    bytes[0] ^= 1;
    fs::write(stage.path("movie.mkv"), bytes).expect("a file can be written");
    let end = run(&mut peer(&["check", &movie, &ticket, "--token-file", &publish]));
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("may only publish"), "{}", end.stderr);
}

#[test]
fn the_relay_refuses_what_a_token_is_not_good_for() {
    let stage = Stage::new(4);
    let relay = stage.relay(&[]);
    // Without the word the peer does not know what its token is good for: the relay says so before it hashes.
    let (movie, addr) = (stage.text("movie.mkv"), relay.addr.to_string());
    let token = stage.token("getter");
    let end = run(&mut peer(&["share", &movie, "--relay", &addr, "--token-file", &token]));
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("publish none"), "{}", end.stderr);
    assert!(!end.stderr.contains("sharing"), "{}", end.stderr);
    let end = stage.get(&relay, "copy", Some("publisher")).wait();
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("get none"), "{}", end.stderr);
    // A wrong one stays wrong, with any word before it.
    for wrong in ["other", "get:other"] {
        let end = stage.get(&relay, "copy", Some(wrong)).wait();
        assert_eq!(end.code, 1);
        assert!(end.stderr.contains("does not know the token"), "{}", end.stderr);
    }
    relay.wait_metric("relay_connections_refused_total", &["reason=\"token\""], 4.0);
}

#[test]
fn a_token_for_getting_begins_no_swarm_whatever_its_hello_claims() {
    let stage = Stage::new(5);
    for more in [&[][..], &["--open-get"]] {
        let relay = stage.relay(more);
        let key = stage.file.key();
        let everything = Hello { claims: Claims::Everything, ..hello(key) };
        let tokens = match more {
            [] => vec![Some("getter")],
            _ => vec![Some("getter"), None],
        };
        for &token in &tokens {
            let (code, _) = answer(relay.addr, &origin_hello(key), token).expect("refused");
            assert_eq!(code, FailureCode::TokenRefused, "{token:?}");
            for claim in [&hello(key), &everything] {
                let told = answer(relay.addr, claim, token);
                assert_eq!(told, Some((FailureCode::NotPublished, NOT_PUBLISHED.into())));
            }
        }
        assert!(relay.metric("relay_swarms", &[]) < 0.5);
        // A proof for another connection is none.
        let token = Token::from_line("publisher").expect("a token");
        let stale = token.proof(&[0; BINDING_BYTES]);
        let mut stale = Hello { proof: Some(stale), ..origin_hello(key) };
        assert!(Wire::join(relay.addr, stale.clone()).is_err());
        stale.proof = None;
        assert!(Wire::join(relay.addr, stale).is_err());
        // When the publisher is there they are taken, and still can't publish.
        let publisher = Wire::join_with_token(relay.addr, origin_hello(key), &token);
        let _publisher = publisher.expect("it may publish");
        for &token in &tokens {
            assert_eq!(answer(relay.addr, &everything, token), None);
            let told = answer(relay.addr, &origin_hello(key), token);
            assert!(told.is_some_and(|(code, _)| code == FailureCode::TokenRefused));
        }
    }
}

#[test]
fn where_getting_is_open_only_a_publisher_needs_a_token() {
    let stage = Stage::new(6);
    let relay = stage.relay(&["--open-get"]);
    let waiting = stage.get(&relay, "first", None);
    wait_until("the reason", || waiting.stderr().contains(NOT_PUBLISHED));
    let (movie, addr) = (stage.text("movie.mkv"), relay.addr.to_string());
    let end = run(&mut peer(&["share", &movie, "--relay", &addr]));
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("--token-file"), "{}", end.stderr);
    let _share = stage.share(&relay, "publish:publisher");
    stage.check_copy("first", &waiting.wait());
    stage.check_copy("second", &stage.get(&relay, "second", Some("get:getter")).wait());
    let end = stage.get(&relay, "third", Some("other")).wait();
    assert_eq!(end.code, 1);
    assert!(end.stderr.contains("does not know the token"), "{}", end.stderr);
    // Statistics are of all files: who asks for them needs a token.
    let observer = Hello { key: None, ..hello(stage.file.key()) };
    let (code, _) = answer(relay.addr, &observer, None).expect("refused");
    assert_eq!(code, FailureCode::TokenRefused);
    assert_eq!(answer(relay.addr, &observer, Some("getter")), None);
}

#[test]
fn getting_can_not_be_open_where_no_token_is_wanted() {
    let mut command = relay();
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--open-get"]);
    let end = run(&mut command);
    assert_eq!(end.code, 2);
    assert!(end.stderr.contains("--token-file"), "{}", end.stderr);
}

#[test]
fn a_relay_serves_its_own_file_though_no_users_token_may_publish() {
    let stage = Stage::new(7);
    let (token, movie) = (stage.token("get:getter"), stage.text("movie.mkv"));
    let relay = RelayProcess::start(relay(), &["--token-file", &token, "--serve", &movie]);
    stage.check_copy("copy", &stage.get(&relay, "copy", Some("get:getter")).wait());
}

#[test]
fn peers_that_come_back_before_the_publisher_finish_when_it_is_back() {
    let stage = Stage::new(8);
    let mut first = stage.relay(&[]);
    // A publisher that answers nothing, so that nobody is whole when the relay goes.
    let token = Token::from_line("publisher").expect("a token");
    let origin = origin_hello(stage.file.key());
    let publisher = Wire::join_with_token(first.addr, origin, &token).expect("it may publish");
    let names = ["first", "second", "third"];
    let gets = names.map(|name| stage.get(&first, name, Some("get:getter")));
    first.wait_metric("relay_peers", &[], 4.0);
    first.kill();
    drop(publisher);
    let second = stage.relay_on(first.addr, &[]);
    let reason = ["reason=\"not_published\""];
    second.wait_metric("relay_connections_refused_total", &reason, 6.0);
    let _share = stage.share(&second, "publish:publisher");
    for (name, get) in names.into_iter().zip(gets) {
        stage.check_copy(name, &get.wait());
    }
}

#[test]
fn a_peer_that_may_only_publish_is_sent_no_file_bytes_whatever_it_says_that_it_lacks() {
    let stage = Stage::new(9);
    let relay = stage.relay(&[]);
    let _share = stage.share(&relay, "both");
    for (line, is_served) in [("publisher", false), ("both", true)] {
        let (mut wire, _) = Wire::greet(relay.addr).expect("a relay");
        let proof = wire.proof(&Token::from_line(line).expect("a token"));
        let claims = Claims::Everything;
        let hello = Hello { proof: Some(proof), claims, ..origin_hello(stage.file.key()) };
        wire.send(&Message::Hello(hello)).expect("sent");
        assert!(matches!(wire.hear().expect("it answers"), Heard::Control(Message::Accepted(_))));
        let granted_bytes = 1 << 30;
        wire.send(&Message::Progress { received_bytes: 0, granted_bytes }).expect("sent");
        for chunk in 0..stage.file.key().chunk_count() {
            wire.send(&Message::Lacking { chunk }).expect("sent");
        }
        // The relay has had its turns when it answers the last of these.
        let mut is_sent_bytes = false;
        for token in 0..20 {
            wire.send(&Message::Ping { token }).expect("sent");
            loop {
                match wire.hear().expect("it answers") {
                    Heard::Control(Message::Pong { token: answered }) if answered == token => break,
                    Heard::Control(Message::Failure(failure)) => panic!("{failure:?}"),
                    Heard::Control(_) => {}
                    _ => is_sent_bytes = true,
                }
            }
            crate::support::pause(std::time::Duration::from_millis(20));
        }
        assert_eq!(is_sent_bytes, is_served, "{line}");
    }
}
