//! How a fetch begins and ends: single-flight.
//!
//! At most one fetch per chunk, two while hedged (`hedge` says when). A fetch uses up one chunk's
//! room; when it ends without bytes the shell gives the lease back.

use super::{deliver::serve_starving, late::Late, seed::Seed};
use crate::{
    api::{Action, FetchId, PeerSlot},
    book::fetches::{Fetch, Need, Pick},
    desk::Desk,
};

/// All that a fetch concerns when it begins or ends.
pub(crate) struct Fetching<'a> {
    pub(crate) desk: &'a mut Desk,
    pub(crate) seed: &'a mut Seed,
    pub(crate) late: &'a mut Late,
}

impl Fetching<'_> {
    /// Asks the holder for the chunk, beside a rival or alone.
    pub(crate) fn start(&mut self, pick: Pick, rival: Option<FetchId>) {
        let Pick { chunk, holder, need } = pick;
        let fetch_id = self.desk.book.start_fetch(self.desk.now, pick, rival);
        if let Need::Seeding(owner) = need
            && rival.is_none()
        {
            self.seed.fetching(&mut self.desk.book, owner, chunk);
        }
        self.late.watch(self.desk.now, fetch_id);
        self.desk.actions.push(Action::Fetch { fetch_id, chunk, holder });
    }

    /// Forgets a fetch; its chunk stays as it is.
    pub(crate) fn end(&mut self, fetch_id: FetchId) -> Option<Fetch> {
        let fetch = self.desk.book.end_fetch(self.desk.now, fetch_id)?;
        self.late.ended(fetch_id);
        Some(fetch)
    }

    /// Ends a fetch before it has brought anything. Its room stays for another one, or is given back.
    pub(crate) fn cancel(&mut self, fetch_id: FetchId, keep_room: bool) -> Option<Fetch> {
        let fetch = self.end(fetch_id)?;
        if keep_room {
            self.desk.book.add_room();
        }
        self.desk.actions.push(Action::CancelFetch { fetch_id, holder: fetch.holder, keep_room });
        Some(fetch)
    }

    /// After a fetch that brought nothing: its chunk is absent again unless the rival goes on.
    pub(crate) fn release_chunk(&mut self, fetch: &Fetch) {
        self.desk.book.release_chunk(fetch);
        self.seed.fetch_lost(&mut self.desk.book, fetch);
    }

    /// The fetch's bytes are there: its rival ends, and its holder has answered.
    pub(crate) fn answered(&mut self, fetch: &Fetch) {
        if let Some(rival) = fetch.rival
            && let Some(rival) = self.cancel(rival, false)
        {
            self.desk.book.forgive(&rival);
        }
        self.late.sample(self.desk.now.since(fetch.started_at));
        self.desk.book.note_answer(self.desk.now, fetch);
    }

    /// Puts fetched bytes into the cache and serves the peers that wait for them.
    pub(crate) fn cache(&mut self, fetch: &Fetch) {
        self.desk.book.cache(self.desk.now, fetch);
        self.seed.fetched(self.desk, fetch);
        serve_starving(self.desk);
        self.desk.book.served(fetch.chunk);
    }

    /// The holder supplies nothing any more: its fetches bring nothing.
    pub(crate) fn drop_all_of(&mut self, slot: PeerSlot) {
        if self.desk.book.peer(slot).supply.fetches == 0 {
            return;
        }
        let ids = self.desk.book.fetches().iter().filter(|(_, fetch)| fetch.holder == slot);
        for id in ids.map(|(id, _)| id).collect::<Vec<_>>() {
            if let Some(fetch) = self.cancel(id, false) {
                self.release_chunk(&fetch);
            }
        }
    }
}
