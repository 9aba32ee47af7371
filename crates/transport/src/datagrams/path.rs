//! Where the other side receives: an address counts once it has returned what was sent to it.
//!
//! A sealed datagram proves its maker, not its source address: whoever overhears one may send it on
//! from elsewhere. So the relay answers a new address with a small challenge only, and goes on
//! sending to the old one until the response comes. Pure; the tokens are the caller's.

use std::time::Duration;

use super::super::Route;
use relay_protocol::time::Time;

/// A challenge that was not answered is repeated after so long, and given up after so many.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

/// Enough for one in five to be lost, each way, and no more than that to an address that is none.
const CHALLENGES_MAX: u32 = 16;

/// An address that didn't answer is not challenged anew for so long.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// The paths of one connection.
#[derive(Debug)]
pub(crate) struct Path {
    /// Where everything goes.
    proven: Option<Route>,
    /// The address that must prove itself.
    candidate: Option<Candidate>,
    /// The next candidate may not come before.
    refused_until: Time,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    route: Route,
    token: u64,
    sent_at: Option<Time>,
    sent: u32,
}

impl Path {
    /// With where everything goes, if that needs no proof.
    pub(crate) fn new(proven: Option<Route>) -> Self {
        Self { proven, candidate: None, refused_until: Time::ZERO }
    }

    /// Where to send.
    pub(crate) fn proven(&self) -> Option<Route> {
        self.proven
    }

    /// A sealed datagram came from there; `is_newest` if none with a larger number had come before.
    /// `token` must be unpredictable.
    pub(crate) fn handle_source(
        &mut self,
        now: Time,
        route: Route,
        is_newest: bool,
        token: impl FnOnce() -> u64,
    ) {
        if self.proven == Some(route) {
            if is_newest {
                // The other side is where it was.
                self.candidate = None;
            }
            return;
        }
        let is_known = self.candidate.is_some_and(|candidate| candidate.route == route);
        if !is_known && is_newest && now >= self.refused_until {
            self.candidate = Some(Candidate { route, token: token(), sent_at: None, sent: 0 });
        }
    }

    /// A response came from there; whether it moved the connection.
    pub(crate) fn handle_response(&mut self, route: Route, token: u64) -> bool {
        let answered = self
            .candidate
            .take_if(|candidate| candidate.route == route && candidate.token == token);
        if answered.is_some() {
            self.proven = Some(route);
        }
        answered.is_some()
    }

    /// The challenge to send now, and where to.
    pub(crate) fn poll_challenge(&mut self, now: Time) -> Option<(Route, u64)> {
        if self.poll_timeout()? > now {
            return None;
        }
        let candidate = self.candidate.as_mut()?;
        if candidate.sent == CHALLENGES_MAX {
            self.candidate = None;
            self.refused_until = now + REFUSED_FOR;
            return None;
        }
        candidate.sent += 1;
        candidate.sent_at = Some(now);
        Some((candidate.route, candidate.token))
    }

    /// When [`Self::poll_challenge`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let candidate = self.candidate.as_ref()?;
        Some(candidate.sent_at.map_or(Time::ZERO, |at| at + CHALLENGE_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route { socket: 0, remote: ([127, 0, 0, 1], port).into(), local: None }
    }

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn an_address_is_used_only_after_it_answered_its_own_challenge() {
        let mut path = Path::new(None);
        path.handle_source(at(0), route(1), true, || 7);
        assert_eq!(path.proven(), None);
        assert_eq!(path.poll_challenge(at(0)), Some((route(1), 7)));
        assert!(!path.handle_response(route(2), 7), "overheard by another");
        assert!(!path.handle_response(route(1), 8), "guessed");
        assert!(path.handle_response(route(1), 7));
        assert_eq!(path.proven(), Some(route(1)));
        path.handle_source(at(5), route(2), true, || 9);
        assert_eq!(path.poll_challenge(at(5)), Some((route(2), 9)));
        assert_eq!(path.proven(), Some(route(1)), "until the new one has proved itself");
        assert!(path.handle_response(route(2), 9));
        assert_eq!(path.proven(), Some(route(2)));
    }

    #[test]
    fn an_old_datagram_from_elsewhere_moves_nothing() {
        let mut path = Path::new(Some(route(1)));
        path.handle_source(at(0), route(2), false, || 7);
        assert_eq!(path.poll_challenge(at(0)), None);
    }

    #[test]
    fn an_address_that_never_answers_gets_little() {
        let mut path = Path::new(Some(route(1)));
        let mut challenges = 0;
        for millis in 0..10_000 {
            path.handle_source(at(millis), route(2), true, || 7);
            challenges += u32::from(path.poll_challenge(at(millis)).is_some());
        }
        assert!(challenges <= 10_000 / 1000 * CHALLENGES_MAX, "{challenges}");
        assert!(challenges >= CHALLENGES_MAX);
    }
}
