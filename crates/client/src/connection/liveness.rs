//! Whether the stream beside a connection's datagrams still leads anywhere.
//!
//! When an address changes on the way, datagrams find their way again: they are sealed, and the relay
//! challenges where they come from. A stream does not, and no error says so: its bytes are sent again for half
//! a minute. So the peer asks by both when nothing comes; as long as data does, the stream brings its
//! acknowledgements to the relay. Where datagrams are answered and the stream is not, a new connection is
//! better.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    rc::{Rc, Weak},
    time::Duration,
};

use shards::clock;

use super::{core::now, link::Link};
use relay_protocol::{Channel, time::Time};
use relay_transport::Datagrams;

/// How often it is looked at after a question.
const TICK: Duration = Duration::from_millis(500);

/// Nothing has come for so long, though something lacks here: it is asked.
const QUIET: Duration = Duration::from_secs(2);

/// Nothing has come for so long, and nothing lacks here: it is asked.
const QUIET_WHOLE: Duration = Duration::from_secs(3);

/// Datagrams have come for so long since then, and the stream said nothing: longer than losses hold it up.
const PATIENCE: Duration = Duration::from_secs(4);

/// As [`PATIENCE`], if the relay has challenged this peer meanwhile, as it sees it elsewhere.
const PATIENCE_ELSEWHERE: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    Nothing,
    /// Ask by the stream and in a datagram.
    Ask,
    /// Nothing was heard at all since: ask in a datagram.
    AskAgain,
    /// The stream leads nowhere.
    Gone,
}

/// When the other side was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    by_stream: Time,
    in_datagrams: Option<Time>,
    challenged: Option<Time>,
}

#[derive(Debug, Default)]
struct StreamWatch {
    asked_at: Option<Time>,
    /// Since when datagrams answer what the stream does not.
    answered_since: Option<Time>,
}

impl Heard {
    fn last(&self) -> Time {
        self.in_datagrams.map_or(self.by_stream, |at| at.max(self.by_stream))
    }
}

impl StreamWatch {
    /// When to look next.
    fn next_look(&self, now: Time, heard: Heard, quiet: Duration) -> Duration {
        let quiet_at = heard.last() + quiet;
        if self.asked_at.is_some() { TICK } else { quiet_at.since(now).max(TICK) }
    }

    fn look(&mut self, now: Time, heard: Heard, quiet: Duration) -> Look {
        let Some(asked_at) = self.asked_at else {
            if now.since(heard.last()) < quiet {
                return Look::Nothing;
            }
            (self.asked_at, self.answered_since) = (Some(now), None);
            return Look::Ask;
        };
        let since_then = |at: Option<Time>| at.is_some_and(|at| at > asked_at);
        if since_then(Some(heard.by_stream)) {
            self.asked_at = None;
            return Look::Nothing;
        }
        if !since_then(heard.in_datagrams) {
            return Look::AskAgain;
        }
        let answered_since = *self.answered_since.get_or_insert(now);
        let is_elsewhere = since_then(heard.challenged);
        let patience = if is_elsewhere { PATIENCE_ELSEWHERE } else { PATIENCE };
        if now.since(answered_since) >= patience { Look::Gone } else { Look::Nothing }
    }
}

/// Looks until the connection ends. Only where data runs in datagrams: else the stream has no messages, by
/// which the relay could answer.
pub(super) async fn watch_stream(link: Weak<Link>) {
    let mut watch = StreamWatch::default();
    loop {
        let Some(wait) = link.upgrade().and_then(|link| next_look(&link, &watch)) else { return };
        clock::sleep(wait).await;
        let Some(link) = link.upgrade().filter(|link| !link.is_closed()) else { return };
        let (heard, quiet) = state(&link);
        let look = watch.look(now(), heard, quiet);
        if look == Look::AskAgain && link.socket.local_addr().is_ok_and(|at| is_gone(at.ip())) {
            let text = "this machine has another address now";
            return link.fail(link.io_error(io::Error::new(io::ErrorKind::AddrNotAvailable, text)));
        }
        match look {
            Look::Nothing => {}
            Look::Ask | Look::AskAgain => ask(&link, look == Look::Ask),
            Look::Gone => {
                let text =
                    "its stream is not answered, though datagrams are: an address may have changed";
                return link.fail(link.io_error(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
        }
    }
}

fn next_look(link: &Link, watch: &StreamWatch) -> Option<Duration> {
    let talks_by_stream = link.core.borrow().session.datagram_channel() == Some(Channel::Data);
    let (heard, quiet) = state(link);
    talks_by_stream.then(|| watch.next_look(now(), heard, quiet))
}

/// When the other side was heard, and what silence is worth a question.
fn state(link: &Link) -> (Heard, Duration) {
    let core = link.core.borrow();
    let datagrams = core.queue.datagrams();
    let heard = Heard {
        by_stream: link.heard_at.get(),
        in_datagrams: datagrams.and_then(Datagrams::heard_at),
        challenged: datagrams.and_then(Datagrams::challenged_at),
    };
    let quiet = if core.session.file().is_complete() { QUIET_WHOLE } else { QUIET };
    (heard, quiet)
}

fn ask(link: &Rc<Link>, by_stream: bool) {
    let mut core = link.core.borrow_mut();
    if by_stream {
        core.queue.poke();
    }
    if let Some(datagrams) = core.queue.datagrams_mut() {
        datagrams.ping();
    }
    drop(core);
    link.pump();
}

/// Whether this machine no longer has the address.
fn is_gone(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn heard(by_stream: u64, in_datagrams: u64, challenged: u64) -> Heard {
        Heard {
            by_stream: at(by_stream),
            in_datagrams: Some(at(in_datagrams)),
            challenged: Some(at(challenged)),
        }
    }

    #[test]
    fn a_stream_that_answers_or_that_shares_its_silence_with_datagrams_is_kept() {
        let mut watch = StreamWatch::default();
        assert_eq!(watch.look(at(11), heard(10, 10, 0), QUIET), Look::Nothing);
        assert_eq!(watch.look(at(12), heard(10, 10, 0), QUIET), Look::Ask);
        assert_eq!(watch.look(at(13), heard(10, 12, 0), QUIET), Look::AskAgain);
        assert_eq!(watch.next_look(at(13), heard(10, 12, 0), QUIET), TICK);
        assert_eq!(watch.look(at(60), heard(10, 12, 0), QUIET), Look::AskAgain, "the path is dark");
        assert_eq!(watch.look(at(61), heard(10, 61, 0), QUIET), Look::Nothing);
        assert_eq!(watch.look(at(62), heard(62, 61, 0), QUIET), Look::Nothing, "it was only later");
        assert_eq!(watch.look(at(64), heard(62, 61, 0), QUIET), Look::Ask, "from the beginning");
    }

    #[test]
    fn a_stream_that_is_silent_while_datagrams_come_is_given_up_soon() {
        for (challenged, patience) in [(0, PATIENCE), (13, PATIENCE_ELSEWHERE)] {
            let mut watch = StreamWatch::default();
            assert_eq!(watch.look(at(11), heard(8, 10, 0), QUIET), Look::Nothing, "data comes");
            assert_eq!(watch.look(at(12), heard(8, 10, 0), QUIET), Look::Ask);
            let since = at(13);
            assert_eq!(watch.look(since, heard(10, 13, challenged), QUIET), Look::Nothing);
            let gone = since + patience;
            assert_eq!(watch.look(gone, heard(10, 14, challenged), QUIET), Look::Gone);
        }
    }
}
