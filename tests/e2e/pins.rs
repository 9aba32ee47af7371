//! Which relay a peer believes, with the real programs: the one that the ticket or `--relay` names by its pin, the one
//! that was met before, or one that an authority vouches for. An impostor is refused, and the user hears what to do.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use relay::{
    protocol::{PREAMBLE_BYTES, Pin, Ticket},
    transport::exercise::relay_identity,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::sealed::{end, share};
use crate::programs::{peer, relay};
use crate::support::{
    http,
    process::{Ended, RelayProcess, Running, run},
    proxy::{Handlers, Proxy},
};

const CONTENT: &[u8] = b"what is shared\n";

/// A directory with a file, a relay's key, and the state of peers.
struct Stage {
    dir: TempDir,
    relay: RelayProcess,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        fs::write(dir.path().join("file"), CONTENT).expect("a file can be written");
        let identity = dir.path().join("identity").display().to_string();
        let relay = RelayProcess::start(relay(), &["--identity-file", &identity]);
        Self { dir, relay }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn addr(&self) -> String {
        self.relay.addr.to_string()
    }

    /// Ends the relay, and starts one with another key where it was.
    fn replace_relay(&mut self, identity: &str) {
        self.relay.signal(Signal::TERM);
        self.relay.wait_exit();
        let identity = self.text(identity);
        let args = ["--identity-file", &identity];
        self.relay = RelayProcess::start_on(relay(), self.relay.addr, &args);
    }

    fn share(&self, relay: SocketAddr, more: &[&str]) -> (Running, Ticket) {
        share(&self.path("file"), relay, &self.path("state"), more)
    }

    /// A share that does not get as far as to a ticket.
    fn failed_share(&self, relay: &str, more: &[&str]) -> String {
        let mut command = peer(&["share", "--relay", relay]);
        command.env("XDG_STATE_HOME", self.path("state")).arg(self.path("file"));
        refused(&run(command.args(more)))
    }

    /// A get of the file, with the state of another user.
    fn get(&self, ticket: &Ticket, more: &[&str]) -> Ended {
        let mut command = peer(&["get", &ticket.to_string(), "--force", "-o"]);
        command.env("XDG_STATE_HOME", self.path("state of the getter"));
        let ended = run(command.arg(self.path("got")).args(more));
        if ended.code == 0 {
            assert_eq!(fs::read(self.path("got")).expect("it is there"), CONTENT);
        }
        ended
    }

    fn known_relays(&self) -> String {
        fs::read_to_string(self.path("state/relay/known_relays")).unwrap_or_default()
    }
}

/// What a program says that has failed.
fn refused(ended: &Ended) -> String {
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended.stderr.clone()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' in: {text}");
    }
}

/// Sits between peers and a relay, with a key of its own.
fn impostor(relay: SocketAddr) -> (Proxy, Pin) {
    let pass = || Handlers { up: Box::new(|_| ()), down: Box::new(|_| ()) };
    (Proxy::start(relay, pass), relay_identity().pin())
}

/// The same ticket, that sends its reader elsewhere.
fn sent_to(ticket: &Ticket, addr: SocketAddr) -> Ticket {
    let mut ticket = ticket.clone();
    ticket.relay = addr.to_string().parse().expect("an address");
    ticket
}

#[test]
fn a_ticket_names_the_relays_pin_and_no_other_relay_is_believed() {
    let stage = Stage::new();
    let (sharing, ticket) = stage.share(stage.relay.addr, &[]);
    assert_eq!(ticket.pin, Some(stage.relay.pin), "as the relay printed it");
    let told = http::get(stage.relay.http, "/api/v1").expect("it answers").body;
    says(&told, &[&stage.relay.pin.to_string()]);
    let (between, pin) = impostor(stage.relay.addr);
    let ended = stage.get(&sent_to(&ticket, between.addr), &[]);
    let (ours, theirs) = (stage.relay.pin.to_string(), pin.to_string());
    says(&refused(&ended), &["impostor", &ours, &theirs, "new ticket", &between.addr.to_string()]);
    let mut check =
        peer(&["check", &stage.text("other"), &sent_to(&ticket, between.addr).to_string()]);
    fs::write(stage.path("other"), CONTENT.to_ascii_uppercase()).expect("a file can be written");
    says(&refused(&run(&mut check)), &["impostor", &ours]);
    assert_eq!(stage.get(&ticket, &[]).code, 0, "the relay itself");
    assert!(
        !stage.path("state of the getter").exists(),
        "a ticket says all: nothing is remembered"
    );
    end(sharing);
}

#[test]
fn a_relay_that_starts_again_with_its_key_serves_the_tickets_that_are_out() {
    let mut stage = Stage::new();
    let (sharing, ticket) = stage.share(stage.relay.addr, &[]);
    stage.replace_relay("identity");
    assert_eq!(stage.get(&ticket, &[]).code, 0, "the share is back, too");
    end(sharing);
    stage.replace_relay("another identity");
    says(&refused(&stage.get(&ticket, &["--timeout", "5s"])), &["impostor", "a new key"]);
}

#[test]
fn a_pin_that_the_publisher_gives_decides_and_nothing_is_remembered() {
    let stage = Stage::new();
    let (between, pin) = impostor(stage.relay.addr);
    let wanted = format!("{}#{}", between.addr, stage.relay.pin);
    let said = stage.failed_share(&wanted, &["--secret-file", &stage.text("secret")]);
    says(&said, &["--relay names", &stage.relay.pin.to_string(), &pin.to_string()]);
    let right = format!("{}#{}", stage.addr(), stage.relay.pin);
    let mut command = peer(&["share", "--once", "--relay", &right]);
    command.env("XDG_STATE_HOME", stage.path("state")).env_remove("PEER_PLAIN");
    let sharing = Running::start(command.arg(stage.path("file")));
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    let ticket: Ticket = sharing.stdout().trim().parse().expect("a ticket");
    assert_eq!(ticket.relay.to_string(), stage.addr());
    assert_eq!(stage.get(&ticket, &[]).code, 0);
    assert_eq!(sharing.wait().code, 0);
    assert_eq!(stage.known_relays(), "");
}

#[test]
fn a_relay_is_remembered_and_one_with_another_key_is_refused_until_the_user_says_so() {
    let mut stage = Stage::new();
    let old = stage.relay.pin;
    let (sharing, _) = stage.share(stage.relay.addr, &[]);
    says(&sharing.stderr(), &["for the first time", &old.to_string()]);
    end(sharing);
    assert_eq!(stage.known_relays(), format!("{} {old}\n", stage.addr()));
    let (again, _) = stage.share(stage.relay.addr, &[]);
    assert!(!again.stderr().contains("first time"), "{}", again.stderr());
    end(again);
    stage.replace_relay("another identity");
    let new = stage.relay.pin.to_string();
    let file = stage.text("state/relay/known_relays");
    let said = stage.failed_share(&stage.addr(), &[]);
    let given = format!("--relay {}#{new}", stage.addr());
    says(&said, &["impostor", &old.to_string(), &new, &file, "line 1", "remove line 1", &given]);
    // Both ways that the message names.
    let mut command = peer(&["share", "--plain", "--relay", &format!("{}#{new}", stage.addr())]);
    let sharing = Running::start(command.arg(stage.path("file")));
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    end(sharing);
    fs::write(&file, "").expect("it is ours");
    end(stage.share(stage.relay.addr, &[]).0);
    assert_eq!(stage.known_relays(), format!("{} {new}\n", stage.addr()));
}

#[test]
fn a_get_by_a_ticket_without_a_pin_knows_its_relay_from_then_on() {
    let mut stage = Stage::new();
    let (sharing, ticket) = stage.share(stage.relay.addr, &["--plain"]);
    assert!(ticket.pin.is_none() && ticket.to_string().starts_with("relay1"));
    let ended = stage.get(&ticket, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    says(&ended.stderr, &["for the first time", &stage.relay.pin.to_string()]);
    end(sharing);
    stage.replace_relay("another identity");
    let said = refused(&stage.get(&ticket, &["--timeout", "5s"]));
    says(&said, &["impostor", "known_relays, line 1"]);
}

#[test]
fn state_that_can_not_be_kept_is_a_warning_and_state_that_can_not_be_trusted_an_error() {
    let stage = Stage::new();
    let file = stage.text("file");
    for (variable, place) in
        [("XDG_STATE_HOME", "/proc"), ("XDG_STATE_HOME", "relative"), ("HOME", "")]
    {
        let mut command = peer(&["share", "--plain", "--relay", &stage.addr(), &file]);
        command.env_remove("XDG_STATE_HOME").env_remove("HOME").env(variable, place);
        if variable == "HOME" {
            command.env("XDG_STATE_HOME", "");
        }
        let sharing = Running::start(&mut command);
        crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
        says(&sharing.stderr(), &["warning", "can't be remembered", &stage.relay.pin.to_string()]);
        end(sharing);
    }
    let known = stage.path("state/relay/known_relays");
    fs::create_dir_all(known.parent().expect("it has one")).expect("a directory");
    fs::write(&known, "nonsense\n").expect("written");
    says(&stage.failed_share(&stage.addr(), &[]), &["line 1 of", "HOST:PORT PIN"]);
    // A relay without a place for its key says what to set.
    let mut command = relay();
    command.env_remove("HOME").env("XDG_STATE_HOME", "").args(["--listen", "127.0.0.1:0"]);
    let ended = run(&mut command);
    assert_eq!(ended.code, 2);
    says(&ended.stderr, &["the relay's key", "XDG_STATE_HOME", "--identity-file"]);
    let mut command = relay();
    command.env_remove("HOME").env("XDG_STATE_HOME", "");
    let first = RelayProcess::start(command, &["--ephemeral-identity"]);
    let second = RelayProcess::start(relay(), &["--ephemeral-identity"]);
    assert_ne!(first.pin, second.pin, "each run has its own");
}

#[test]
fn what_the_relay_serves_has_its_pin_and_doctor_names_it_without_making_one() {
    let stage = Stage::new();
    let mut doctor = relay();
    let (fresh, file) = (stage.text("fresh"), stage.text("file"));
    let usual = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--identity-file", &fresh];
    let said = run(doctor.arg("doctor").args(usual));
    says(&said.stdout, &["the first start makes a key"]);
    assert!(!Path::new(&fresh).exists());
    let mut command = relay();
    command.env_remove("RELAY_PLAIN");
    let secret = stage.text("secret");
    let args = ["--identity-file", &fresh, "--serve", &file, "--secret-file", &secret];
    let serving = RelayProcess::start(command, &args);
    let ticket: Ticket = serving.tickets[0]
        .split(' ')
        .next()
        .expect("a ticket, then its file")
        .parse()
        .expect("one");
    assert_eq!(ticket.pin, Some(serving.pin));
    assert_eq!(stage.get(&ticket, &[]).code, 0);
    let said = run(relay().arg("doctor").args(usual));
    says(&said.stdout, &[&serving.pin.to_string()]);
}

fn pem(what: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {what}-----\n{base64}\n-----END {what}-----\n")
}

/// A proof is bound to a session, and the impostor has one with each side.
#[test]
fn a_proof_of_one_session_is_of_no_use_in_another() {
    let stage = Stage::new();
    fs::write(stage.path("token"), "the token\n").expect("a file can be written");
    let token = stage.text("token");
    let guarded = RelayProcess::start(relay(), &["--token-file", &token]);
    let (between, _) = impostor(guarded.addr);
    let share = |addr: SocketAddr| {
        let args =
            ["share", &stage.text("file"), "--relay", &addr.to_string(), "--token-file", &token];
        Running::start(&mut peer(&args))
    };
    let ended = share(between.addr).wait();
    says(&refused(&ended), &["token"]);
    let refusals = ["reason=\"token\""];
    guarded.wait_metric("relay_connections_refused_total", &refusals, 1.0);
    let sharing = share(guarded.addr);
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    end(sharing);
}

/// Files in PEM: an authority, and a relay's certificate and key that it vouches for under this name.
fn authority(dir: &Path, host: &str) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("signed");
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([host.to_owned()]).expect("a name");
    let certificate = params.signed_by(&own, &issuer).expect("signed");
    let pems = [
        ("ca.pem", pem("CERTIFICATE", authority.der())),
        ("cert.pem", pem("CERTIFICATE", certificate.der())),
        ("key.pem", pem("PRIVATE KEY", &own.serialize_der())),
    ];
    pems.map(|(name, pem)| {
        let path = dir.join(name);
        fs::write(&path, pem).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("it is ours");
        path.display().to_string()
    })
}

#[test]
fn an_authority_says_which_relay_it_is_by_its_name() {
    let stage = Stage::new();
    let [ca, certificate, key] = authority(stage.dir.path(), "localhost");
    let vouched = RelayProcess::start(relay(), &["--tls-cert", &certificate, "--tls-key", &key]);
    let (by_name, by_address) =
        (format!("localhost:{}", vouched.addr.port()), vouched.addr.to_string());
    let said = stage.failed_share(&by_address, &["--tls-ca", &ca, "--plain"]);
    says(&said, &["certificate", "--tls-ca", "127.0.0.1"]);
    let said = stage.failed_share(&stage.addr(), &["--tls-ca", &ca, "--plain"]);
    says(&said, &["certificate", "--tls-ca"]);
    let mut command = peer(&["share", "--relay", &by_name, "--tls-ca", &ca]);
    command.env("XDG_STATE_HOME", stage.path("state")).env_remove("PEER_PLAIN");
    let sharing = Running::start(command.arg(stage.path("file")));
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    let ticket: Ticket = sharing.stdout().trim().parse().expect("a ticket");
    assert_eq!(ticket.pin, Some(vouched.pin));
    assert_eq!(stage.known_relays(), "", "the authority says it next time, too");
    assert_eq!(stage.get(&ticket, &[]).code, 0, "by the pin alone");
    // A pin that the publisher gives is believed, and no authority beside it.
    let wrong = format!("{by_name}#{}", stage.relay.pin);
    says(&stage.failed_share(&wrong, &["--tls-ca", &ca, "--plain"]), &["--relay names"]);
    // A ticket of before the relay had this key.
    let old = ticket.with_pin(Some(stage.relay.pin));
    says(&refused(&stage.get(&old, &[])), &["impostor"]);
    let ended = stage.get(&old, &["--tls-ca", &ca]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    end(sharing);
    let ended =
        run(peer(&["share", "--relay", &by_name, "--tls-ca", &stage.text("file")]).arg(&ca));
    assert_eq!(ended.code, 2);
    says(&ended.stderr, &["--tls-ca", "no certificate"]);
}

#[test]
fn the_systems_authorities_vouch_for_a_relay_that_is_not_known() {
    let stage = Stage::new();
    let [ca, certificate, key] = authority(stage.dir.path(), "localhost");
    let vouched = RelayProcess::start(relay(), &["--tls-cert", &certificate, "--tls-key", &key]);
    let by_name = format!("localhost:{}", vouched.addr.port());
    let of_this = |command: &mut Command| {
        // Where OpenSSL's users say what the system's are.
        command.env("SSL_CERT_FILE", &ca).env("XDG_STATE_HOME", stage.path("state"));
    };
    let mut command = peer(&["share", "--plain", "--relay", &by_name, &stage.text("file")]);
    of_this(&mut command);
    let sharing = Running::start(&mut command);
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    end(sharing);
    let line = format!("{by_name} {}\n", vouched.pin);
    assert_eq!(stage.known_relays(), line, "so that no impostor is met for the first time");
    // It has a new key, and the authority still says that it is the same.
    let addr = vouched.addr;
    drop(vouched);
    let [ca, certificate, key] = authority(stage.dir.path(), "localhost");
    let args = ["--tls-cert", &certificate, "--tls-key", &key];
    let renewed = RelayProcess::start_on(relay(), addr, &args);
    let mut command = peer(&["share", "--plain", "--relay", &by_name, &stage.text("file")]);
    command.env("SSL_CERT_FILE", &ca).env("XDG_STATE_HOME", stage.path("state"));
    let sharing = Running::start(&mut command);
    crate::support::wait_until("the ticket", || sharing.stdout().ends_with('\n'));
    end(sharing);
    // An impostor signs for itself: it is refused, and what is remembered stays.
    drop(renewed);
    let _impostor = RelayProcess::start_on(relay(), addr, &["--ephemeral-identity"]);
    for _ in 0..2 {
        let said = stage.failed_share(&by_name, &["--plain"]);
        says(&said, &["impostor", "known_relays, line 1"]);
        assert_eq!(stage.known_relays(), line);
    }
}

#[test]
fn a_refused_impostor_is_not_remembered() {
    let stage = Stage::new();
    let first = RelayProcess::start(relay(), &["--ephemeral-identity"]);
    let addr = first.addr;
    let (sharing, _) = stage.share(addr, &["--timeout", "20s"]);
    // What the user is told of is what this command met, though the file is lost meanwhile.
    fs::remove_file(stage.path("state/relay/known_relays")).expect("it was remembered");
    drop(first);
    let second = RelayProcess::start_on(relay(), addr, &["--ephemeral-identity"]);
    let ended = sharing.wait();
    assert_eq!(ended.code, 1);
    says(&ended.stderr, &["impostor", &second.pin.to_string()]);
    assert_eq!(stage.known_relays(), "", "an explanation believes no key");
}

#[test]
fn a_relay_of_another_version_is_told_apart_with_both_named() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it has an address");
    let answering = crate::support::in_background(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming().take(1) {
            let mut stream = stream.expect("accepted");
            let mut preamble = [0; PREAMBLE_BYTES];
            stream.read_exact(&mut preamble).expect("it speaks first");
            // An old relay: its preamble has the number before this one.
            preamble[8] -= 1;
            stream.write_all(&preamble).expect("written");
        }
    });
    let said = stage.failed_share(&addr.to_string(), &["--plain"]);
    says(&said, &["version 2", "speaks 3"]);
    answering.join().expect("no panic");
}
