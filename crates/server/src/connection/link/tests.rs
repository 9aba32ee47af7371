//! Last words, what is told of a peer that goes, and what this relay holds back itself.

use std::sync::Arc;

use super::*;
use crate::{
    message::SwarmRef,
    session::{SessionConfig, window::Window},
};
use relay_protocol::FailureCode;
use relay_swarm::PeerSlot;
use shards::ShardId;

const SWARM: SwarmRef = SwarmRef { home: ShardId(0), index: 1, generation: 2 };

fn link() -> Link {
    let config = SessionConfig {
        admission: Default::default(),
        chunk_size_log2_max: 20,
        chunk_size_log2_limit: 20,
        relay_id: 0,
    };
    let session = Session::new(Arc::new(config), Window::new(1 << 18));
    Link::new(session, Secure::clear(), Time::ZERO)
}

#[test]
fn the_last_words_are_written_and_nothing_is_read_or_said_behind_them() {
    let mut link = link();
    assert!(link.may_read() && link.wants_write(0), "its preamble waits");
    let failure = Failure::new(FailureCode::Internal, "a reason");
    assert!(link.say_last(Time(9), failure.clone()));
    assert!(!link.say_last(Time(9), failure), "they are the last");
    assert!(!link.may_read() && link.wants_write(0));
    assert!(link.stop_hearing(), "they are to be heard");
    link.life.fail_to_write();
    assert!(!link.wants_write(u64::MAX));
    link.life.cut();
    assert!(!link.stop_hearing(), "nothing is waited for any more");
}

#[test]
fn what_a_peer_said_before_it_went_is_told_once() {
    let mut link = link();
    link.session.tell(NewsItem::Leaving);
    assert!(!link.has_news() && link.take_news(9).is_none(), "no home would hear it");
    link.membership.ask();
    assert!(link.membership.join(SWARM, PeerSlot(3)) && link.has_news());
    let Parting { was, news, .. } = link.leave(9).expect("it leaves");
    assert_eq!(was, Membership::Member(SWARM, PeerSlot(3)));
    let News { news, claims } = news.expect("it said something");
    assert_eq!((news.items, claims), (vec![NewsItem::Leaving], 0));
    assert!(link.leave(9).is_none() && link.take_news(9).is_none());
}
