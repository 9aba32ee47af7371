//! Relays behind proxies, with the real programs: SOCKS 5 and CONNECT of HTTP, made by hand and as people install them;
//! who looks names up, user names and passwords, refusals, exceptions.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
};

use relay::protocol::Ticket;
use tempfile::TempDir;

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::{
    process::{Ended, RelayProcess, Running, run},
    tool,
    tunnel::{Answer, Speaks, Tunnel},
    wait_until,
};

const CONTENT: &[u8] = b"what is shared\n";

/// A name that no look-up finds: only a proxy can lead there.
const UNKNOWN: &str = "relay.invalid";

/// A directory with a file, and a relay.
struct Stage {
    dir: TempDir,
    relay: RelayProcess,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        fs::write(dir.path().join("file"), CONTENT).expect("a file can be written");
        Self { dir, relay: RelayProcess::start(relay(), &[]) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A share without a proxy.
    fn share(&self) -> (Running, Ticket) {
        share(&self.path("file"), self.relay.addr, &self.path("state"), &[])
    }

    /// A share through a proxy, of a relay by this name.
    fn share_through(&self, proxy: &str, relay: &str) -> (Running, String) {
        let mut command = peer(&["share", "--relay", relay, "--proxy", proxy]);
        command.env("XDG_STATE_HOME", self.path("state"));
        let sharing = Running::start(command.arg(self.path("file")));
        wait_until("the ticket", || sharing.stdout().ends_with('\n'));
        let ticket = sharing.stdout().trim().to_owned();
        (sharing, ticket)
    }

    /// A get of the file, with the state of another user.
    fn get(&self, ticket: &str, more: &[&str]) -> Command {
        let mut command = peer(&["get", ticket, "--force", "-o", &self.text("got")]);
        command.env("XDG_STATE_HOME", self.path("state of the getter")).args(more);
        command
    }

    /// That it brings the file; what it says.
    fn assert_gets(&self, command: &mut Command) -> String {
        let ended = run(command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(fs::read(self.path("got")).expect("it is there"), CONTENT);
        ended.stderr
    }
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' in: {text}");
    }
}

/// What a program says that has failed, or was used wrongly, and never shows a password.
fn refused(code: i32, ended: &Ended) -> &str {
    assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{}", ended.stderr);
    for word in ["panicked", "hunter2"] {
        assert!(!ended.stderr.contains(word), "{}", ended.stderr);
    }
    &ended.stderr
}

#[test]
fn a_relay_is_shared_through_and_got_from_behind_each_kind_of_proxy() {
    let stage = Stage::new();
    let leads = Answer::Leads(stage.relay.addr);
    let login = Some(("me", "hun@ter2"));
    let basic = "Basic bWU6aHVuQHRlcjI=";
    for (speaks, begin) in [
        (Speaks::Socks(None), "socks5h://"),
        (Speaks::Socks(login), "socks5h://me:hun%40ter2@"),
        (Speaks::Http(None), "http://"),
        (Speaks::Http(Some(basic)), "http://me:hun%40ter2@"),
    ] {
        let tunnel = Tunnel::start(speaks, leads);
        let proxy = format!("{begin}{}", tunnel.addr);
        let (sharing, ticket) = stage.share_through(&proxy, UNKNOWN);
        let name = format!("{UNKNOWN}:7440");
        assert_eq!(tunnel.asked(), [name.clone(), name.clone()], "asked, and shared");
        stage.assert_gets(&mut stage.get(&ticket, &["--proxy", &proxy]));
        assert_eq!(tunnel.asked(), [name], "{begin}");
        end(sharing);
    }
}

#[test]
fn a_name_is_looked_up_here_for_a_proxy_that_is_to_get_addresses() {
    let stage = Stage::new();
    let tunnel = Tunnel::start(Speaks::Socks(None), Answer::Leads(stage.relay.addr));
    let proxy = format!("socks5://{}", tunnel.addr);
    let port = stage.relay.addr.port();
    let (sharing, ticket) = stage.share_through(&proxy, &format!("localhost:{port}"));
    let addresses = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    let asked = tunnel.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| addresses.contains(asked)), "{asked:?}");
    stage.assert_gets(&mut stage.get(&ticket, &["--proxy", &proxy]));
    end(sharing);
    tunnel.asked();
    let mut command = peer(&["share", "--proxy", &proxy, "--relay", UNKNOWN, &stage.text("file")]);
    says(refused(1, &run(&mut command)), &["could not find the address", UNKNOWN]);
    assert!(tunnel.asked().is_empty(), "the name is for this machine to look up");
}

#[test]
fn check_asks_through_the_proxy_where_a_file_differs() {
    let stage = Stage::new();
    let tunnel = Tunnel::start(Speaks::Socks(None), Answer::Leads(stage.relay.addr));
    let proxy = format!("socks5h://{}", tunnel.addr);
    let (sharing, ticket) = stage.share_through(&proxy, UNKNOWN);
    tunnel.asked();
    fs::write(stage.path("other"), CONTENT.to_ascii_uppercase()).expect("a file can be written");
    let mut check = peer(&["check", &stage.text("other"), &ticket, "--proxy", &proxy]);
    says(refused(1, &run(&mut check)), &["chunk 0"]);
    assert_eq!(tunnel.asked(), [format!("{UNKNOWN}:7440")]);
    let mut check = peer(&["check", &stage.text("file"), &ticket, "--proxy", "hunter2"]);
    says(refused(2, &run(&mut check)), &["--proxy", "socks5h://"]);
    end(sharing);
}

#[test]
fn the_environment_names_a_proxy_and_its_exceptions() {
    let stage = Stage::new();
    let tunnel = Tunnel::start(Speaks::Socks(None), Answer::Leads(stage.relay.addr));
    let proxy = format!("socks5h://{}", tunnel.addr);
    let (sharing, by_address) = stage.share();
    let by_address = by_address.to_string();
    let (other, by_name) = stage.share_through(&proxy, UNKNOWN);
    let asked = |expected: usize| {
        let asked = tunnel.asked();
        assert_eq!(asked.len(), expected, "{asked:?}");
    };
    asked(2);
    for (name, is_asked) in [("PEER_PROXY", 1), ("ALL_PROXY", 0), ("all_proxy", 0)] {
        // A relay on this machine is behind no proxy, unless the user says so.
        stage.assert_gets(stage.get(&by_address, &[]).env(name, &proxy));
        asked(is_asked);
        stage.assert_gets(stage.get(&by_name, &[]).env(name, &proxy));
        asked(1);
    }
    // What is not needed may be wrong, and a variable without a value is not set.
    stage.assert_gets(stage.get(&by_address, &[]).env("ALL_PROXY", "hunter2"));
    stage.assert_gets(stage.get(&by_address, &[]).env("ALL_PROXY", "").env("PEER_PROXY", ""));
    let ended = run(stage.get(&by_name, &[]).env("ALL_PROXY", "https://me:hunter2@proxy:1"));
    says(refused(2, &ended), &["ALL_PROXY", "http://", "NO_PROXY"]);
    for list in ["127.0.0.0/8", "x, 127.0.0.1", "*", &stage.relay.addr.to_string()] {
        let mut command = stage.get(&by_address, &["--proxy", &proxy]);
        let said = stage.assert_gets(command.env("NO_PROXY", list));
        says(&said, &["NO_PROXY", "without the proxy socks5h://"]);
        asked(0);
    }
    for list in [".invalid", "relay.invalid:7440", "INVALID"] {
        let mut command = stage.get(&by_name, &["--timeout", "1s"]);
        let ended = run(command.env("ALL_PROXY", &proxy).env("no_proxy", list));
        says(refused(1, &ended), &["could not find the address", UNKNOWN]);
        asked(0);
    }
    end(sharing);
    end(other);
}

#[test]
fn refusals_say_what_to_do_and_those_that_stay_end_it_at_once() {
    let stage = Stage::new();
    let (sharing, ticket) = stage.share();
    let ticket = ticket.to_string();
    let leads = Answer::Leads(stage.relay.addr);
    let socks = Speaks::Socks(None);
    let http = Speaks::Http(None);
    let relay = stage.relay.addr.to_string();
    // A patience of a minute: those that are tried again would take as long.
    for (speaks, answer, begin, parts) in [
        (socks, Answer::Refuses(2), "socks5://", &["does not allow it", "ask its operator"][..]),
        (socks, Answer::Refuses(7), "socks5h://", &["makes no connections"]),
        (socks, Answer::Refuses(99), "socks5h://", &["answers with 99"]),
        (http, Answer::Refuses(403), "http://", &["403 So", "allow CONNECT"]),
        (http, Answer::Refuses(407), "http://", &["wants a user name"]),
        (Speaks::Socks(Some(("me", "x"))), leads, "socks5://", &["wants a user name"]),
        (
            Speaks::Socks(Some(("me", "x"))),
            leads,
            "socks5h://me:hunter2@",
            &["refuses the user name"],
        ),
        (Speaks::Http(Some("Basic x")), leads, "http://", &["wants a user name"]),
        (Speaks::Http(Some("Basic x")), leads, "http://me:hunter2@", &["refuses the user name"]),
    ] {
        let tunnel = Tunnel::start(speaks, answer);
        let proxy = format!("{begin}{}", tunnel.addr);
        let ended = run(&mut stage.get(&ticket, &["--proxy", &proxy]));
        let shown = format!("the proxy {}", proxy.replace("me:hunter2@", ""));
        says(refused(1, &ended), &[&relay, &shown]);
        says(&ended.stderr, parts);
        assert!(tunnel.asked().len() <= 1, "{begin}: once is enough");
    }
    for (speaks, answer, begin, parts) in [
        (socks, Answer::Refuses(1), "socks5h://", &["does not say why"][..]),
        (socks, Answer::Refuses(4), "socks5h://", &["does not reach the relay's machine"]),
        (socks, Answer::Refuses(5), "socks5://", &["refuses the proxy's connection", "port"]),
        (http, Answer::Refuses(502), "http://", &["502 So", "check the relay's address"]),
        (socks, Answer::Closes, "socks5://", &["closed the connection", "another kind"]),
    ] {
        let tunnel = Tunnel::start(speaks, answer);
        let proxy = format!("{begin}{}", tunnel.addr);
        let ended = run(&mut stage.get(&ticket, &["--proxy", &proxy, "--timeout", "2s"]));
        says(refused(1, &ended), &[&relay, &proxy]);
        says(&ended.stderr, parts);
        assert!(tunnel.asked().len() > 1, "{begin}: it may go better");
    }
    // What breaks behind a proxy is told with both names.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let leads = Answer::Leads(silent.local_addr().expect("it has an address"));
    crate::support::in_background(move || silent.incoming().for_each(drop));
    let tunnel = Tunnel::start(socks, leads);
    let proxy = format!("socks5h://{}", tunnel.addr);
    let ended = run(&mut stage.get(&ticket, &["--proxy", &proxy, "--timeout", "1s"]));
    says(refused(1, &ended), &[&format!("the relay at {relay} (through the proxy {proxy})")]);
    // Nothing listens there, as it is bound and not listened on.
    let unused = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let unused = unused.expect("a socket");
    unused.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = unused.local_addr().expect("it has one").as_socket().expect("an address");
    let proxy = format!("http://me:hunter2@{addr}");
    let ended = run(&mut stage.get(&ticket, &["--proxy", &proxy, "--timeout", "1s"]));
    says(refused(1, &ended), &["could not connect to the proxy", &addr.to_string()]);
    end(sharing);
}

#[test]
fn a_proxy_that_can_not_be_used_is_wrong_usage() {
    let stage = Stage::new();
    let (sharing, ticket) = stage.share();
    let ticket = ticket.to_string();
    for (proxy, part) in [
        ("", "socks5://"),
        ("hunter2", "socks5://"),
        ("https://me:hunter2@proxy:1", "http://"),
        ("http://me:hunter2@proxy", "port"),
        ("socks5://me:hunter2%zz@proxy", "%25"),
    ] {
        let ended = run(&mut stage.get(&ticket, &["--proxy", proxy]));
        says(refused(2, &ended), &["--proxy", part]);
    }
    let proxy = "socks5h://me:hunter2@proxy.invalid";
    for transport in ["udp-data", "udp-control"] {
        let ended = run(&mut stage.get(&ticket, &["--proxy", proxy, "--transport", transport]));
        says(refused(2, &ended), &["--proxy", "--transport", transport, "leave out"]);
        let mut command = peer(&["share", "--relay", UNKNOWN, "--transport", transport]);
        let ended = run(command.arg(stage.path("file")).env("ALL_PROXY", proxy));
        says(
            refused(1, &ended),
            &["ALL_PROXY is not used", transport, "could not find the address"],
        );
        assert_eq!(ended.stderr.matches("ALL_PROXY").count(), 1, "{}", ended.stderr);
    }
    let help = run(peer(&["get", "--help"]).env("PEER_PROXY", "socks5://me:hunter2@proxy"));
    assert!(help.stdout.contains("PEER_PROXY") && !help.stdout.contains("hunter2"));
    end(sharing);
}

/// A port that was free a moment ago, for programs that can't choose one.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// Starts a proxy that is not ours, and gets the file through it.
fn gets_through(stage: &Stage, command: &mut Command, proxies: &[String], port: u16) {
    let running = Running::start(command);
    wait_until("the proxy", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let relay = format!("localhost:{}", stage.relay.addr.port());
    for proxy in proxies {
        let (sharing, ticket) = stage.share_through(proxy, &relay);
        stage.assert_gets(&mut stage.get(&ticket, &["--proxy", proxy]));
        end(sharing);
    }
    running.kill();
}

#[test]
fn microsocks_leads_to_a_relay() {
    let Some(program) = tool(&["microsocks"], "microsocks") else { return };
    let stage = Stage::new();
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", "me", "-P", "hunter2"]);
    let url = |scheme: &str| format!("{scheme}://me:hunter2@127.0.0.1:{port}");
    gets_through(&stage, &mut command, &[url("socks5"), url("socks5h")], port);
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
    gets_through(&stage, &mut command, &[format!("socks5h://127.0.0.1:{port}")], port);
}

#[test]
fn tinyproxy_leads_to_a_relay() {
    let Some(program) = tool(&["tinyproxy"], "tinyproxy") else { return };
    let stage = Stage::new();
    let port = free_port();
    let settings = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nBasicAuth me hunter2\nConnectPort {}\n",
        stage.relay.addr.port()
    );
    fs::write(stage.path("settings"), settings).expect("a file can be written");
    let mut command = Command::new(program);
    command.arg("-d").arg("-c").arg(stage.path("settings"));
    gets_through(&stage, &mut command, &[format!("http://me:hunter2@127.0.0.1:{port}")], port);
}
