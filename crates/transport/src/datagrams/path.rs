//! Where the other side receives: an address counts once it has returned what was sent to it.
//!
//! A sealed datagram proves its maker, not its source address: an attacker who overhears one may send it
//! on from elsewhere. So the relay answers a new address with a small challenge only, and goes on
//! sending to the old one until the response comes. Pure.

use std::time::Duration;

use crate::lane::Route;
use relay_protocol::time::Time;

/// A challenge that was not answered is repeated after so long, and given up after so many.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

/// Enough for one in five to be lost, each way, and no more than that to an address that is none.
const CHALLENGES_MAX: u32 = 16;

/// An address that didn't answer is not challenged anew for so long.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// The paths of one connection.
#[derive(Debug)]
pub(super) struct Path {
    /// Where everything goes.
    proven: Option<Route>,
    /// The address that must prove itself.
    candidate: Option<Candidate>,
    /// The next candidate may not come before.
    refused_until: Time,
    tokens: Tokens,
    /// The response to the other side's challenge that is to be sent.
    response: Option<(Route, u64)>,
    /// When the other side last challenged this one.
    challenged_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    route: Route,
    token: u64,
    sent_at: Option<Time>,
    sent: u32,
}

impl Path {
    /// With where everything goes, if that needs no proof. The seed makes challenges unpredictable.
    pub(super) fn new(proven: Option<Route>, challenge_seed: u64) -> Self {
        Self {
            proven,
            candidate: None,
            refused_until: Time::ZERO,
            tokens: Tokens { seed: challenge_seed, count: 0 },
            response: None,
            challenged_at: None,
        }
    }

    /// Where to send.
    pub(super) fn proven(&self) -> Option<Route> {
        self.proven
    }

    /// A sealed datagram came from there; `is_newest` if none with a larger number had come before.
    pub(super) fn handle_source(&mut self, now: Time, route: Route, is_newest: bool) {
        let token = self.tokens.next();
        if self.proven == Some(route) {
            if is_newest {
                // The other side is where it was.
                self.candidate = None;
            }
            return;
        }
        let is_known = self.candidate.is_some_and(|candidate| candidate.route == route);
        if !is_known && is_newest && now >= self.refused_until {
            let token = token.number();
            self.candidate = Some(Candidate { route, token, sent_at: None, sent: 0 });
        }
    }

    /// A response came from there; whether it moved the connection.
    pub(super) fn handle_response(&mut self, route: Route, token: u64) -> bool {
        let answered = self
            .candidate
            .take_if(|candidate| candidate.route == route && candidate.token == token);
        if answered.is_some() {
            self.proven = Some(route);
        }
        answered.is_some()
    }

    /// The other side wants a proof that this one is there.
    pub(super) fn handle_challenge(&mut self, now: Time, route: Route, token: u64) {
        (self.response, self.challenged_at) = (Some((route, token)), Some(now));
    }

    /// When the other side last wanted such a proof.
    pub(super) fn challenged_at(&self) -> Option<Time> {
        self.challenged_at
    }

    /// Whether [`Self::poll_response`] would give something.
    pub(super) fn has_response(&self) -> bool {
        self.response.is_some()
    }

    /// The response to send now, and where to.
    pub(super) fn poll_response(&mut self) -> Option<(Route, u64)> {
        self.response.take()
    }

    /// The challenge to send now, and where to.
    pub(super) fn poll_challenge(&mut self, now: Time) -> Option<(Route, u64)> {
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
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let candidate = self.candidate.as_ref()?;
        Some(candidate.sent_at.map_or(Time::ZERO, |at| at + CHALLENGE_INTERVAL))
    }
}

/// Numbers that can't be guessed without knowing the seed: one for each datagram, made when it is needed.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    seed: u64,
    count: u64,
}

impl Tokens {
    fn next(&mut self) -> Self {
        let next = *self;
        self.count += 1;
        next
    }

    fn number(self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.count.to_le_bytes());
        let hash = hasher.finalize();
        hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
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
        let mut path = Path::new(None, 5);
        path.handle_source(at(0), route(1), true);
        assert_eq!(path.proven(), None);
        let (to, token) = path.poll_challenge(at(0)).expect("it must prove itself");
        assert_eq!(to, route(1));
        assert!(!path.handle_response(route(2), token), "overheard by another");
        assert!(!path.handle_response(route(1), token + 1), "guessed");
        assert!(path.handle_response(route(1), token));
        assert_eq!(path.proven(), Some(route(1)));
        path.handle_source(at(5), route(2), true);
        let (to, other) = path.poll_challenge(at(5)).expect("it must prove itself");
        assert_eq!(to, route(2));
        assert_ne!(other, token, "each challenge has its own");
        assert_eq!(path.proven(), Some(route(1)), "until the new one has proved itself");
        assert!(path.handle_response(route(2), other));
        assert_eq!(path.proven(), Some(route(2)));
    }

    #[test]
    fn an_old_datagram_from_elsewhere_moves_nothing() {
        let mut path = Path::new(Some(route(1)), 5);
        path.handle_source(at(0), route(2), false);
        assert_eq!(path.poll_challenge(at(0)), None);
    }

    #[test]
    fn an_address_that_never_answers_gets_little() {
        let mut path = Path::new(Some(route(1)), 5);
        let mut challenges = 0;
        for millis in 0..10_000 {
            path.handle_source(at(millis), route(2), true);
            challenges += u32::from(path.poll_challenge(at(millis)).is_some());
        }
        assert!(challenges <= 10_000 / 1000 * CHALLENGES_MAX, "{challenges}");
        assert!(challenges >= CHALLENGES_MAX);
    }
}
