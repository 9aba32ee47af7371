//! The HTTP side under attack: clients that dawdle, flood, never read, or ask what they should not. The
//! honest are answered beside it, and it costs a bounded amount.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
};

use crate::support::{
    PATIENCE, http, in_background,
    process::{RelayProcess, descriptors, resident_bytes_peak},
    wait_until,
};

/// Connections that the service has at once.
const CONNECTIONS_MAX: usize = 64;

/// A relay that has opened all that it opens by itself, so that the rest can be counted.
fn relay() -> RelayProcess {
    let relay = RelayProcess::start(crate::programs::relay(), &["--cores", "2"]);
    let answers = |path| http::get(relay.http, path).is_ok_and(|answer| answer.status == 200);
    wait_until("the relay to be ready", || answers("/readyz") && answers("/healthz"));
    relay
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Everything that comes until the other end closes, if it does.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it is not closed: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer to these bytes, as they are.
fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes()).expect("sent");
    rest(&mut stream)
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no HTTP: {answer:?}"))
}

fn is_healthy(addr: SocketAddr) -> bool {
    http::get(addr, "/healthz").is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_thousand_idle_connections_keep_nobody_from_an_answer() {
    let relay = relay();
    let before = descriptors(relay.id());
    let idle: Vec<_> = (0..1_000).map(|_| connect(relay.http)).collect();
    for path in ["/healthz", "/readyz", "/metrics", "/", "/api/v1/shards"] {
        assert_eq!(http::get(relay.http, path).expect("answered").status, 200, "{path}");
    }
    let open = descriptors(relay.id()) - before;
    assert!(open <= CONNECTIONS_MAX + 2, "{open} descriptors for HTTP");
    let resident = resident_bytes_peak(relay.id());
    assert!(resident < 1 << 28, "{resident} bytes are resident");
    drop(idle);
    // A client that asks is not taken for idle, however many ask at once.
    let asking: Vec<_> = (0..200).map(|_| in_background(move || is_healthy(relay.http))).collect();
    assert!(asking.into_iter().all(|asks| asks.join().expect("it ends")), "all are answered");
}

#[test]
fn who_dawdles_is_ended() {
    let relay = relay();
    let before = descriptors(relay.id());
    let host = format!("Host: {}\r\n", relay.http);
    // A letter now and then never makes a request.
    let slow = in_background(move || {
        let mut stream = connect(relay.http);
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").expect("sent");
        while stream.write_all(b"x").is_ok() {
            crate::support::pause(std::time::Duration::from_millis(500));
        }
    });
    let mut silent = connect(relay.http);
    let mut half_closed = connect(relay.http);
    half_closed.write_all(b"GET /healthz HT").expect("sent");
    half_closed.shutdown(Shutdown::Write).expect("shut down");
    let mut body = connect(relay.http);
    let head = format!(
        "POST /login HTTP/1.1\r\n{host}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 100\r\n\r\ntoken="
    );
    body.write_all(head.as_bytes()).expect("sent");
    let mut idle = connect(relay.http);
    idle.write_all(format!("GET /healthz HTTP/1.1\r\n{host}\r\n").as_bytes()).expect("sent");
    for stream in [&mut silent, &mut half_closed, &mut body, &mut idle] {
        rest(stream);
        assert!(is_healthy(relay.http));
    }
    slow.join().expect("it was cut off");
    wait_until("all to be closed", || descriptors(relay.id()) <= before);
}

#[test]
fn who_takes_no_answer_is_ended_and_leaves_its_place() {
    let relay = relay();
    let before = descriptors(relay.id());
    let request = format!("GET /page.js HTTP/1.1\r\nHost: {}\r\n\r\n", relay.http);
    // All places at once: were there more, each would have its full time before the next began.
    let deaf: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = connect(relay.http);
            stream.set_nonblocking(true).expect("a socket");
            // More answers than the kernel keeps for one connection; what it does not take is not sent.
            for _ in 0..500 {
                if stream.write_all(request.as_bytes()).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    wait_until("somebody else to be answered", || is_healthy(relay.http));
    wait_until("all to be closed", || descriptors(relay.id()) <= before);
    drop(deaf);
    assert!(resident_bytes_peak(relay.id()) < 1 << 28);
}

#[test]
fn heads_without_end_are_refused_before_they_are_large() {
    let relay = relay();
    let line = "x".repeat(1 << 20);
    for (what, text) in [
        ("the request's line", format!("GET /{line} HTTP/1.1\r\n\r\n")),
        ("a header", format!("GET / HTTP/1.1\r\nX: {line}\r\n\r\n")),
        ("headers", format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000))),
    ] {
        let mut stream = connect(relay.http);
        // It may be closed while there is more to send.
        stream.write_all(text.as_bytes()).ok();
        let answer = rest(&mut stream);
        // What was refused may be lost with the connection, as more was under way.
        assert!(answer.is_empty() || [414, 431].contains(&status(&answer)), "{what}: {answer}");
        assert!(is_healthy(relay.http));
    }
    let few = format!("GET /healthz HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(status(&ask(relay.http, &few)), 431);
    assert!(resident_bytes_peak(relay.id()) < 1 << 28);
}

#[test]
fn what_is_no_request_for_anything_here_is_refused_as_http_has_it() {
    let relay = relay();
    let one = |line: &str| {
        status(&ask(
            relay.http,
            &format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        ))
    };
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/metrics", "/healthz", "/", "/api/v1/swarms", "/api/v1/events"] {
            assert_eq!(one(&format!("{method} {path}")), 405, "{method} {path}");
        }
    }
    assert_eq!(one("GET /login"), 405);
    for path in [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.js/../page.css",
        "/assets/page.html",
        "/api/v1/swarms/../shards",
        "/api/v1/swarms/..%2fshards",
        "/api/v1/swarms/%00",
    ] {
        assert_eq!(one(&format!("GET {path}")), 404, "{path}");
    }
    for query in ["offset=-1", "limit=x", "limit=99999999999999999999999"] {
        assert_eq!(one(&format!("GET /api/v1/swarms?{query}")), 400, "{query}");
    }
    for nonsense in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = ask(relay.http, nonsense);
        assert!(answer.is_empty() || status(&answer) >= 400, "{nonsense:?}: {answer}");
    }
    assert!(is_healthy(relay.http));
}

#[test]
fn heads_only_and_requests_in_a_row_are_answered_as_they_should_be() {
    let relay = relay();
    let host = "Host: localhost\r\n";
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/shards"] {
        let request = format!("HEAD {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = ask(relay.http, &request);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!((status(head), body), (200, ""), "{path}");
        assert!(head.to_ascii_lowercase().contains("content-length: "), "{path}: {head}");
    }
    let last = format!("GET /nowhere HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    let row = format!("GET /healthz HTTP/1.1\r\n{host}\r\n").repeat(3) + &last;
    let answers = ask(relay.http, &row);
    let statuses: Vec<&str> =
        answers.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
    assert_eq!(statuses, ["200", "200", "200", "404"]);
}

#[test]
fn pages_of_other_sites_and_other_names_get_nothing() {
    let relay = relay();
    let with = |path: &str, lines: &str| {
        status(&ask(relay.http, &format!("GET {path} HTTP/1.0\r\n{lines}\r\n")))
    };
    for path in ["/", "/api/v1/swarms", "/api/v1/events"] {
        for lines in [
            "Host: rebound.example\r\n",
            "Host: 127.0.0.1.rebound.example\r\n",
            "Host: localhost\r\nHost: rebound.example\r\n",
            "Host: localhost\r\nOrigin: https://rebound.example\r\n",
            "Host: localhost\r\nOrigin: null\r\n",
            "Host: localhost:1\r\nOrigin: http://localhost:2\r\n",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        ] {
            assert_eq!(with(path, lines), 403, "{path} with {lines}");
        }
        let whole = format!("http://rebound.example{path}");
        assert_eq!(with(&whole, "Host: localhost\r\n"), 403, "{whole}");
    }
    let linked = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(with("/", linked), 200, "a link may lead here");
    let own = "Host: localhost:1\r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-origin\r\n";
    assert_eq!(with("/api/v1/swarms", own), 200);
    assert_eq!(with("/metrics", "Host: rebound.example\r\n"), 200, "scrapers use any name");
}
