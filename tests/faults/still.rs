//! Processes that stand still for a while, as where a lid was closed or a machine was paused: the time
//! that they did not run does not count.

use std::{fs, sync::Arc, time::Duration};

use relay::protocol::{Message, RelayAddr, Ticket};
use rustix::process::Signal;

use crate::programs::{peer, relay};
use crate::support::{
    file::TestFile,
    honest::Origin,
    pause,
    process::{RelayProcess, Running},
    wait_until,
    wire::{Heard, Wire, hello},
};

#[test]
fn a_get_and_a_share_that_stood_still_longer_than_their_timeout_go_on() {
    let relay = RelayProcess::start(relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("shared");
    fs::write(&path, b"another file").expect("it can be written");
    let addr = relay.addr.to_string();
    let path = path.to_str().expect("temporary paths are text");
    let share = ["share", path, "--relay", &addr, "--timeout", "4s"];
    let mut share = Running::start(&mut peer(&share));
    wait_until("the ticket", || share.stdout().contains("relay1"));

    let file = Arc::new(TestFile::new(1, 1 << 18, 16));
    let relay_addr = RelayAddr::new("127.0.0.1", relay.addr.port()).expect("an address");
    let ticket = Ticket::new(relay_addr, file.key(), "got").expect("short").to_string();
    let mut get = peer(&["get", &ticket, "--timeout", "4s"]);
    let get = Running::start(get.current_dir(dir.path()));
    relay.wait_metric("relay_peers", &[], 2.0);

    share.signal(Signal::STOP);
    get.signal(Signal::STOP);
    pause(Duration::from_secs(5));
    let origin = Origin::start(relay.addr, &file);
    share.signal(Signal::CONT);
    get.signal(Signal::CONT);
    let ended = get.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(fs::read(dir.path().join("got")).expect("it is there") == file.bytes);
    assert!(share.is_alive(), "{}", share.stderr());
    assert!(origin.is_serving());
    share.signal(Signal::TERM);
    assert_eq!(share.wait().code, 0);
}

#[test]
fn a_relay_that_stood_still_takes_that_for_nobodys_silence() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = TestFile::new(1, 1 << 18, 16);
    let (mut slow, _) = Wire::greet(relay.addr).expect("the relay is there");
    relay.signal(Signal::STOP);
    // Longer than it waits for an introduction.
    pause(Duration::from_millis(10_500));
    relay.signal(Signal::CONT);
    wait_until("the relay to notice", || relay.log().contains("did not run for"));
    slow.send(&Message::Hello(hello(file.key()))).expect("the relay is there");
    let heard = slow.hear().expect("the relay is there");
    assert!(matches!(heard, Heard::Control(Message::Accepted(_))), "{heard:?}");
}
