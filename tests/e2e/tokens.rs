//! The token of the HTTP service: what wants it, what does not, and what wrong ones come to.

use std::time::Duration;

use shards::clock;

use crate::programs::relay;
use crate::support::{
    http,
    process::{RelayProcess, run},
    wait_until,
};

/// A directory with a file that holds the token `secret`, and the file's path.
fn token_file() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "secret\n").expect("written");
    let path = path.display().to_string();
    (dir, path)
}

fn status(relay: &RelayProcess, path: &str, header: &str) -> u16 {
    http::get_with(relay.http, path, header).expect("answered").status
}

#[test]
fn http_wants_its_token_if_there_is_one_and_probes_do_not() {
    let (_dir, path) = token_file();
    let relay = RelayProcess::start(relay(), &["--http-token-file", &path]);
    for path in ["/metrics", "/", "/api/v1/swarms", "/api/v1/shards"] {
        assert_eq!(status(&relay, path, ""), 401, "{path}");
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("Authorization: {scheme} secret\r\n");
            assert_eq!(status(&relay, path, &header), 200, "{path} {scheme}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        let answer = http::get(relay.http, path).expect("answered");
        assert_eq!((answer.status, answer.body.trim()), (200, "ok"), "{path}");
        assert_eq!(status(&relay, path, "Authorization: Bearer other\r\n"), 200, "{path}");
    }
    assert_eq!(status(&relay, "/metrics", "Authorization: Basic secret\r\n"), 401);
}

#[test]
fn probes_want_the_token_where_somebody_says_so() {
    let (_dir, path) = token_file();
    let args = ["--http-token-file", &path, "--http-probes-need-token"];
    let relay = RelayProcess::start_guarded(relay(), &args);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(status(&relay, path, ""), 401, "{path}");
        assert_eq!(status(&relay, path, "Authorization: Bearer wrong\r\n"), 401, "{path}");
        assert_eq!(status(&relay, path, "Authorization: Bearer secret\r\n"), 200, "{path}");
    }
}

#[test]
fn wrong_tokens_are_counted_logged_once_and_answered_later_each_time() {
    let (_dir, path) = token_file();
    let relay = RelayProcess::start(relay(), &["--http-token-file", &path]);
    let time = |header: &str, expected: u16| {
        let began = clock::now();
        assert_eq!(status(&relay, "/metrics", header), expected, "{header}");
        clock::now() - began
    };
    let times: Vec<Duration> =
        (0..5).map(|guess| time(&format!("Authorization: Bearer {guess}\r\n"), 401)).collect();
    // Each waits twice as long as the one before, from a tenth of a second on.
    assert!(times[4] >= Duration::from_millis(1500), "{times:?}");
    assert!(times[4] > times[0], "{times:?}");
    // A client that knows it is not slowed down, nor is one that has none.
    assert!(time("Authorization: Bearer secret\r\n", 200) < Duration::from_secs(3));
    assert!(time("", 401) < Duration::from_secs(3));
    let form = http::post_form(relay.http, "/login", "token=wrong").expect("answered");
    assert_eq!(form.status, 401);
    let metrics = http::get_with(relay.http, "/metrics", "Authorization: bearer secret\r\n");
    let metrics = metrics.expect("answered").body;
    assert!(metrics.contains("\nrelay_http_tokens_refused_total 6\n"), "{metrics}");
    wait_until("the log to say so", || relay.log().contains("wrong token"));
    let lines = relay.log().lines().filter(|line| line.contains("wrong token")).count();
    assert_eq!(lines, 1, "a line a minute: {}", relay.log());
    assert!(relay.log().contains("127.0.0.1"), "{}", relay.log());
}

#[test]
fn a_token_that_is_too_long_is_wrong_usage_of_every_program() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [tokens, file] = ["tokens", "film.mkv"].map(|name| dir.path().join(name));
    std::fs::write(&tokens, "x".repeat(100_000)).expect("written");
    std::fs::write(&file, "content").expect("written");
    let [tokens, file] = [tokens, file].map(|path| path.display().to_string());
    let usual = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut commands = ["--token-file", "--http-token-file"].map(|option| {
        let mut command = relay();
        command.args(usual).args([option, &tokens]);
        command
    });
    let mut share = crate::programs::peer(&[]);
    share.args(["share", &file, "--relay", "127.0.0.1:1", "--token-file", &tokens]);
    for command in commands.iter_mut().chain([&mut share]) {
        let ended = run(command);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        for part in ["100000 bytes", "at most 1024", "token-file", &tokens] {
            assert!(ended.stderr.contains(part), "'{part}' in: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("xxx"), "a token is never printed");
    }
}
