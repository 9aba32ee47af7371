//! What a connection's channel may still do, and what its peer is to a swarm. Pure.
//!
//! Each is one value, and its methods are the only way to change it: what a state forbids can't be asked for.
//! Nothing here knows a socket; the shell carries out what a change means.

use crate::message::SwarmRef;
use relay_protocol::time::Time;
use relay_swarm::PeerSlot;

/// What the two directions of a connection's socket are good for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Life {
    /// Both sides speak and hear.
    #[default]
    Open,
    /// A write failed: the socket takes nothing any more. What the peer said before it went is read, then the
    /// connection ends.
    Deaf,
    /// Nothing more is heard; it ends when everything is written. `words_until`: it has its last words to say
    /// and to be heard, until then.
    Closing { words_until: Option<Time>, is_write_shut: bool },
    /// Both directions are shut down: nothing is waited for any more.
    Cut,
    /// Its shard has forgotten it.
    Closed,
}

impl Life {
    /// What the peer says is no longer heard.
    pub(crate) fn is_closing(self) -> bool {
        !matches!(self, Self::Open | Self::Deaf)
    }

    /// The reader takes what has come, and has nothing to wait for.
    pub(crate) fn is_deaf(self) -> bool {
        self == Self::Deaf
    }

    /// Both directions are shut down.
    pub(crate) fn is_cut(self) -> bool {
        matches!(self, Self::Cut | Self::Closed)
    }

    /// The shard has forgotten it.
    pub(crate) fn is_closed(self) -> bool {
        self == Self::Closed
    }

    /// The socket may take bytes.
    pub(crate) fn takes_bytes(self) -> bool {
        matches!(self, Self::Open | Self::Closing { is_write_shut: false, .. })
    }

    /// When the last words must have been heard.
    pub(crate) fn words_until(self) -> Option<Time> {
        match self {
            Self::Closing { words_until, .. } => words_until,
            _ => None,
        }
    }

    /// A write failed.
    pub(super) fn fail_to_write(&mut self) {
        match self {
            Self::Open => *self = Self::Deaf,
            Self::Closing { is_write_shut, .. } => *is_write_shut = true,
            Self::Deaf | Self::Cut | Self::Closed => {}
        }
    }

    /// Its last words are said from now on, and may take until then; false if something ended it before.
    pub(super) fn say_last(&mut self, until: Time) -> bool {
        let may_speak = !self.is_closing();
        if may_speak {
            *self = Self::Closing { words_until: Some(until), is_write_shut: self.is_deaf() };
        }
        may_speak
    }

    /// From now on nothing is heard.
    pub(super) fn stop_hearing(&mut self) {
        if !self.is_closing() {
            *self = Self::Closing { words_until: None, is_write_shut: self.is_deaf() };
        }
    }

    /// Everything was said; whether the writing direction is to be shut down for it.
    pub(super) fn shut_writing(&mut self) -> bool {
        match self {
            Self::Closing { is_write_shut, .. } => !std::mem::replace(is_write_shut, true),
            _ => false,
        }
    }

    /// Both directions end; whether they are to be shut down for it.
    pub(super) fn cut(&mut self) -> bool {
        let is_new = !self.is_cut();
        if is_new {
            *self = Self::Cut;
        }
        is_new
    }

    /// The shard forgets it; false if it has.
    pub(super) fn close(&mut self) -> bool {
        !std::mem::replace(self, Self::Closed).is_closed()
    }
}

/// What a connection's peer is to a swarm.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Membership {
    /// It has not introduced itself, or belongs to no swarm.
    #[default]
    Outside,
    /// Its home was asked: to be gone must wait for the answer.
    Joining,
    /// From joined to gone.
    Member(SwarmRef, PeerSlot),
    /// Its part in its swarm has ended.
    Left,
}

impl Membership {
    /// Its swarm, and its place there.
    pub(crate) fn member(self) -> Option<(SwarmRef, PeerSlot)> {
        match self {
            Self::Member(swarm, peer) => Some((swarm, peer)),
            _ => None,
        }
    }

    /// It counts as a peer of the process.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Joining | Self::Member(..))
    }

    pub(crate) fn has_left(self) -> bool {
        self == Self::Left
    }

    /// The home is asked.
    pub(super) fn ask(&mut self) {
        debug_assert_eq!(*self, Self::Outside, "a session joins once");
        *self = Self::Joining;
    }

    /// The home took it in; false if it went meanwhile.
    pub(crate) fn join(&mut self, swarm: SwarmRef, peer: PeerSlot) -> bool {
        let is_there = !self.has_left();
        if is_there {
            *self = Self::Member(swarm, peer);
        }
        is_there
    }

    /// Its part ends: what that was, the first time.
    pub(super) fn leave(&mut self) -> Option<Self> {
        let before = std::mem::replace(self, Self::Left);
        (!before.has_left()).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shards::ShardId;

    const SOON: Time = Time(5);

    /// Every state that a connection can be in.
    fn lives() -> [Life; 7] {
        let closing = |words_until, is_write_shut| Life::Closing { words_until, is_write_shut };
        [
            Life::Open,
            Life::Deaf,
            closing(None, false),
            closing(Some(SOON), false),
            closing(Some(SOON), true),
            Life::Cut,
            Life::Closed,
        ]
    }

    #[test]
    fn a_life_only_goes_on_never_back() {
        let rank = |life: Life| match life {
            Life::Open => 0,
            Life::Deaf => 1,
            Life::Closing { is_write_shut, .. } => 2 + i32::from(is_write_shut),
            Life::Cut => 4,
            Life::Closed => 5,
        };
        let steps: [fn(&mut Life); 6] = [
            Life::fail_to_write,
            Life::stop_hearing,
            |life| {
                life.say_last(SOON);
            },
            |life| {
                life.shut_writing();
            },
            |life| {
                life.cut();
            },
            |life| {
                life.close();
            },
        ];
        for before in lives() {
            for step in steps {
                let mut after = before;
                step(&mut after);
                assert!(rank(after) >= rank(before), "{before:?} became {after:?}");
                assert!(after.takes_bytes() <= before.takes_bytes(), "{before:?} to {after:?}");
                assert!(after.is_closing() >= before.is_closing(), "{before:?} to {after:?}");
            }
        }
    }

    #[test]
    fn last_words_are_said_once_and_only_by_those_that_are_heard() {
        for before in lives() {
            let mut life = before;
            assert_eq!(life.say_last(SOON), !before.is_closing(), "{before:?}");
            assert!(!life.say_last(SOON), "{before:?}");
        }
        let mut life = Life::Open;
        assert!(!life.shut_writing(), "there may be more to say");
        life.say_last(SOON);
        assert_eq!((life.words_until(), life.takes_bytes()), (Some(SOON), true));
        assert!(life.shut_writing() && !life.shut_writing(), "it is shut down once");
        assert!(life.cut() && !life.cut() && life.close() && !life.close());
    }

    #[test]
    fn after_a_failed_write_what_came_is_read_and_nothing_written() {
        let mut life = Life::Open;
        life.fail_to_write();
        assert!(life.is_deaf() && !life.is_closing() && !life.takes_bytes());
        life.stop_hearing();
        assert!(life.is_closing() && !life.takes_bytes() && life.words_until().is_none());
    }

    #[test]
    fn a_peer_leaves_once_and_joins_nothing_afterwards() {
        let swarm = SwarmRef { home: ShardId(0), index: 1, generation: 2 };
        let mut part = Membership::default();
        part.ask();
        assert!(part.counts() && part.member().is_none());
        assert_eq!(part.leave(), Some(Membership::Joining));
        assert_eq!(part.leave(), None);
        assert!(!part.join(swarm, PeerSlot(3)), "the answer comes too late");
        let mut part = Membership::Joining;
        assert!(part.join(swarm, PeerSlot(3)));
        assert_eq!(part.leave(), Some(Membership::Member(swarm, PeerSlot(3))));
        assert!(part.has_left() && !part.counts());
    }
}
