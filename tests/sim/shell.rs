//! The shell of each swarm: carries out its actions with sessions and the budget.

use relay::{
    swarm::{Action, FetchFailure, FetchId, PeerSlot, Swarm},
    time::Time,
};

use super::{
    MILLISECOND, SECOND,
    home::Memory,
    nanoseconds,
    peer::{Sending, Vice},
    world::{Event, World},
};

impl World {
    pub(super) fn input(&mut self, home: usize, input: impl FnOnce(&mut Swarm, Time)) {
        let now = self.time();
        input(&mut self.homes[home].swarm, now);
        self.drain_soon(home);
    }

    pub(super) fn drain_soon(&mut self, home: usize) {
        if !self.dirty.contains(&home) {
            self.dirty.push(home);
        }
    }

    pub(super) fn peer_input(
        &mut self,
        peer: usize,
        input: impl FnOnce(&mut Swarm, Time, PeerSlot),
    ) {
        if let Some(slot) = self.peers[peer].slot {
            self.input(self.peers[peer].plan.home, |swarm, now| input(swarm, now, slot));
        }
    }

    /// Carries out everything that the swarm decided; answers a wish for room first of all.
    pub(super) fn drain(&mut self, home: usize) {
        self.homes[home].chunk_size = u64::from(self.plan.chunk_size);
        while let Some(action) = self.homes[home].swarm.poll_action() {
            self.homes[home].note_exchange(self.now);
            self.digest.act(self.now, home, &action);
            match action {
                Action::WantRoom => {
                    if self.budget.lease(home, u64::from(self.plan.chunk_size)) {
                        self.homes[home].held += 1;
                        let now = self.time();
                        self.homes[home].swarm.handle_room(now);
                    }
                }
                Action::TryRoom => {
                    let is_there = self.budget.try_lease(u64::from(self.plan.chunk_size));
                    self.homes[home].held += u32::from(is_there);
                    let now = self.time();
                    self.homes[home].swarm.handle_room_tried(now, is_there);
                }
                Action::ReleaseRoom => {
                    if !self.budget.cancel(home) {
                        assert!(self.homes[home].held > 0, "no room to release");
                        self.homes[home].held -= 1;
                        self.budget.give_back(u64::from(self.plan.chunk_size));
                    }
                }
                other => self.act(home, &other),
            }
        }
        if let Some(at) = self.homes[home].swarm.poll_timeout() {
            self.digest.add(&[at.0]);
            let at = self.plan.delays.seen_at(at.0.max(self.now));
            if self.homes[home].timer_at.is_none_or(|earlier| at < earlier) {
                self.homes[home].timer_at = Some(at);
                self.schedule(at, Event::Timer(home));
            }
        }
    }

    /// Whom an action is about, if it is void once that peer has gone.
    fn subject(action: &Action) -> Option<PeerSlot> {
        match *action {
            Action::FetchManifest { holder: peer }
            | Action::Deliver { peer, .. }
            | Action::CutOff { peer, .. }
            | Action::Ban { peer }
            | Action::SeedingDone { origin: peer }
            | Action::LeaveGranted { peer }
            | Action::Waiting { peer, .. }
            | Action::GiveUp { peer, .. } => Some(peer),
            _ => None,
        }
    }

    fn act(&mut self, home: usize, action: &Action) {
        if Self::subject(action).is_some_and(|peer| !self.homes[home].slots.contains_key(&peer)) {
            return;
        }
        match *action {
            Action::Fetch { fetch_id, chunk, holder } => self.fetch(home, fetch_id, chunk, holder),
            Action::CancelFetch { fetch_id, keep_room, .. } => {
                let cancelled = self.homes[home].fetches.remove(&fetch_id);
                assert!(cancelled.is_some(), "cancelled what was not under way");
                if keep_room {
                    self.homes[home].held += 1;
                } else {
                    self.budget.give_back(u64::from(self.plan.chunk_size));
                }
            }
            Action::FetchManifest { holder } => {
                let peer = self.homes[home].slots[&holder];
                let (at, connection) = (self.now + MILLISECOND, self.peers[peer].connection);
                if self.peers[peer].plan.vice != Vice::Silent && !self.peers[peer].dead {
                    self.schedule(at, Event::Manifest { peer, connection });
                }
            }
            Action::Deliver { chunk, peer, offset } => self.send(home, chunk, peer, offset),
            Action::Evict { chunk } => {
                let memory = self.homes[home].memory.get_mut(&chunk).expect("it was cached");
                assert!(std::mem::replace(&mut memory.cached, false), "evicted twice");
                self.free_if_unused(home, chunk);
            }
            Action::CutOff { chunk, peer, .. } => self.cut_off(home, chunk, peer),
            Action::Recall { chunk } => self.recall(home, chunk),
            _ => self.tell(home, action),
        }
    }

    /// Whether a peer beside an origin comes with some of this file.
    fn do_others_claim(&self, home: usize) -> bool {
        let mine = self.plan.peers.iter().filter(|peer| peer.home == home);
        mine.filter(|peer| peer.seeding.is_none()).any(|peer| peer.claims.count() > 0)
    }

    /// Peers that are still there hold all that the origin has.
    fn assert_copies(&self, home: usize, origin: usize) {
        let others = self.peers.iter().enumerate().filter(|&(index, peer)| {
            index != origin && peer.plan.home == home && peer.slot.is_some() && !peer.is_liar()
        });
        let others: Vec<_> = others.map(|(_, peer)| peer).collect();
        for chunk in 0..self.peers[origin].have.len() {
            let has_copy = others.iter().any(|peer| peer.have.contains(chunk));
            assert!(has_copy, "the origin may go, and nobody else has chunk {chunk}");
        }
    }

    /// Actions that say something to a peer, or close it.
    fn tell(&mut self, home: usize, action: &Action) {
        match *action {
            Action::Ban { peer } => {
                let index = self.homes[home].slots[&peer];
                assert!(self.peers[index].is_liar(), "an honest peer was banned");
                self.close(index);
            }
            Action::SeedingDone { origin } => {
                let index = self.homes[home].slots[&origin];
                let bytes = self.homes[home].fetched_bytes;
                self.assert_copies(home, index);
                self.homes[home].seeding_done_at = Some(self.now);
                self.homes[home].seeding_bytes = bytes;
                let began_at = self.homes[home].exchange_began_at;
                let cached = self.homes[home].cached().count();
                // Unless it began before all parts were acknowledged, as slow owners are not waited for: then
                // the origin may go later, or at once if others came with what is missing.
                let is_cut_short = began_at < self.now || self.do_others_claim(home);
                assert!(cached == 0 || is_cut_short, "exchange begins with chunks");
                if self.peers[index].plan.leaves {
                    self.close(index);
                }
            }
            Action::LeaveGranted { peer } => {
                let index = self.homes[home].slots[&peer];
                assert!(self.peers[index].leaving);
                self.close(index);
            }
            Action::Waiting { peer, missing_count, .. } => {
                assert!(missing_count > 0);
                let index = self.homes[home].slots[&peer];
                self.peers[index].told_waiting = true;
            }
            Action::GiveUp { peer, .. } => {
                let index = self.homes[home].slots[&peer];
                assert!(self.peers[index].told_waiting, "given up without a word");
                self.peers[index].given_up = true;
                self.close(index);
            }
            _ => unreachable!("the others move chunks"),
        }
    }

    fn close(&mut self, index: usize) {
        let connection = self.peers[index].connection;
        self.schedule(self.now + MILLISECOND, Event::Gone(index, connection));
    }

    pub(super) fn gone(&mut self, index: usize) {
        let home = self.peers[index].plan.home;
        let Some(slot) = self.peers[index].slot else { return };
        self.homes[home].slots.remove(&slot);
        let mut chunks: Vec<u32> = self.peers[index].queue.drain(..).map(|s| s.chunk).collect();
        chunks.append(&mut self.peers[index].open);
        let lost = self.homes[home].fetches.iter().filter(|(_, (_, peer))| *peer == index);
        let lost: Vec<FetchId> = lost.map(|(&id, _)| id).collect();
        self.peers[index].reset();
        for chunk in chunks {
            self.writer_done(home, chunk);
        }
        self.input(home, |swarm, now| swarm.handle_gone(now, slot));
        self.pump();
        for fetch_id in lost {
            assert!(
                !self.homes[home].fetches.contains_key(&fetch_id),
                "a fetch outlived its holder"
            );
        }
    }

    fn fetch(&mut self, home: usize, fetch_id: FetchId, chunk: u32, holder: PeerSlot) {
        let state = &mut self.homes[home];
        state.held = state.held.checked_sub(1).expect("a fetch uses leased room");
        let is_cached = state.memory.get(&chunk).is_some_and(|memory| memory.cached);
        // One whose rival came in the same turn is asked for and cancelled.
        let is_wanted = state.swarm.is_fetching(fetch_id);
        assert!(!is_cached || !is_wanted, "fetched what is cached");
        let flying = state.fetches.values().filter(|(other, _)| *other == chunk).count();
        assert!(flying < 2, "a third fetch of chunk {chunk}");
        let peer = state.slots.get(&holder).copied();
        state.fetches.insert(fetch_id, (chunk, peer.unwrap_or(usize::MAX)));
        let Some(peer) = peer else { return };
        if self.peers[peer].dead {
            return;
        }
        assert!(
            self.peers[peer].have.contains(chunk) || self.peers[peer].plan.vice != Vice::None,
            "asked a peer that never claimed the chunk"
        );
        let hop = self.plan.delays.hop;
        match self.fetch_at(peer).or((hop > 0).then_some(self.now + hop)) {
            Some(at) => {
                let connection = self.peers[peer].connection;
                self.schedule(at, Event::Fetch { peer, connection, fetch_id, chunk });
            }
            None => self.fetch_came(peer, fetch_id, chunk),
        }
    }

    pub(super) fn fetch_came(&mut self, peer: usize, fetch_id: FetchId, chunk: u32) {
        self.peers[peer].uploads.push_back((fetch_id, chunk));
        self.upload_next(peer);
    }

    pub(super) fn upload_next(&mut self, index: usize) {
        let home = self.peers[index].plan.home;
        let peer = &mut self.peers[index];
        if peer.uploading || matches!(peer.plan.vice, Vice::Silent) || peer.dead || peer.stopped {
            return;
        }
        while let Some(&(fetch_id, _)) = peer.uploads.front() {
            if self.homes[home].fetches.contains_key(&fetch_id) {
                break;
            }
            peer.uploads.pop_front();
        }
        if peer.uploads.is_empty() {
            return;
        }
        peer.uploading = true;
        let jitter = self.rng.jitter(peer.plan.jitter);
        let quick = matches!(peer.plan.vice, Vice::Refuser);
        let bytes = if quick { 1.0 } else { f64::from(self.plan.chunk_size) };
        let time = nanoseconds(bytes / peer.plan.up_rate * jitter);
        peer.up_busy += time;
        let connection = peer.connection;
        self.schedule(self.now + time, Event::UploadDone(index, connection));
    }

    pub(super) fn upload_done(&mut self, index: usize) {
        let home = self.peers[index].plan.home;
        let life = self.homes[home].life;
        let peer = &mut self.peers[index];
        peer.uploading = false;
        peer.uploaded_chunks += 1;
        if let Some((fetch_id, _)) = peer.uploads.pop_front() {
            let at = self.now + peer.plan.rtt + self.plan.delays.hop;
            self.schedule(at, Event::FetchResult { home, life, fetch_id, peer: index });
        }
        self.upload_next(index);
    }

    pub(super) fn fetched(&mut self, home: usize, fetch_id: FetchId) {
        let Some((chunk, _)) = self.homes[home].fetches.remove(&fetch_id) else { return };
        let bytes = u64::from(self.plan.chunk_size);
        let none = Memory { cached: false, copies: 0, writers: 0, bytes };
        let memory = self.homes[home].memory.entry(chunk).or_insert(none);
        assert!(!std::mem::replace(&mut memory.cached, true), "two copies of a chunk in the cache");
        memory.copies += 1;
        let start = u64::from(chunk) * bytes;
        self.homes[home].fetched_bytes += bytes.min(self.plan.homes[home].size_bytes - start);
        self.input(home, |swarm, now| swarm.handle_fetched(now, fetch_id));
    }

    pub(super) fn fetch_failed(&mut self, home: usize, fetch_id: FetchId, failure: FetchFailure) {
        if self.homes[home].fetches.remove(&fetch_id).is_some() {
            self.budget.give_back(u64::from(self.plan.chunk_size));
            self.input(home, |swarm, now| swarm.handle_fetch_failed(now, fetch_id, failure));
        }
    }

    fn send(&mut self, home: usize, chunk: u32, slot: PeerSlot, offset: u32) {
        let index = self.homes[home].slots[&slot];
        let memory = self.homes[home].memory.get_mut(&chunk).expect("delivered from the cache");
        assert!(memory.cached, "delivered after its eviction");
        assert!(!self.peers[index].have.contains(chunk), "delivered what the peer has");
        memory.writers += 1;
        let start = u64::from(chunk) * memory.bytes;
        let rest = self.plan.homes[home].size_bytes - start;
        let length = u32::try_from(rest.min(memory.bytes)).expect("at most a chunk");
        assert!(offset < length, "resumed behind the end");
        self.peers[index].queue.push_back(Sending { chunk, written: offset, length, begun: false });
        self.touched.push(index);
    }

    pub(super) fn writer_done(&mut self, home: usize, chunk: u32) {
        if let Some(memory) = self.homes[home].memory.get_mut(&chunk) {
            memory.writers -= 1;
            self.free_if_unused(home, chunk);
        }
    }

    fn free_if_unused(&mut self, home: usize, chunk: u32) {
        let memory = &self.homes[home].memory[&chunk];
        if !memory.cached && memory.writers == 0 {
            let bytes = memory.bytes * memory.copies as u64;
            self.homes[home].memory.remove(&chunk);
            self.budget.give_back(bytes);
        }
    }

    /// Cuts off all deliveries of the chunk: each begun one has a frame at least.
    fn recall(&mut self, home: usize, chunk: u32) {
        let mut rest = Vec::new();
        for (&slot, &index) in &self.homes[home].slots.clone() {
            let mut cuts = Vec::new();
            while let Some(known) =
                self.take_back(index, chunk).or_else(|| self.take_out(index, chunk))
            {
                cuts.push((slot, known));
                self.writer_done(home, chunk);
                self.touched.push(index);
            }
            // The newest first.
            rest.extend(cuts.into_iter().rev());
        }
        let (life, delay) = (self.homes[home].life, self.rng.below(MILLISECOND));
        let delay = delay + 2 * self.plan.delays.hop;
        self.schedule(self.now + delay, Event::Recalled { home, life, chunk, rest });
    }

    fn cut_off(&mut self, home: usize, chunk: u32, slot: PeerSlot) {
        let index = self.homes[home].slots[&slot];
        while let Some(reached) = self.take_out(index, chunk) {
            self.writer_done(home, chunk);
            self.touched.push(index);
            let (life, delay) = (self.homes[home].life, self.rng.below(MILLISECOND));
            let connection = self.peers[index].connection;
            let event = Event::CutOff { home, life, peer: index, connection, chunk, reached };
            self.schedule(self.now + delay, event);
        }
    }

    /// Takes out a delivery that is not all under way; how far it had come.
    fn take_out(&mut self, index: usize, chunk: u32) -> Option<u32> {
        let queue = &mut self.peers[index].queue;
        let at = queue.iter().position(|sending| sending.chunk == chunk)?;
        Some(queue.remove(at)?.written)
    }

    /// Sessions write what their windows allow, freed memory goes to who waits for it.
    pub(super) fn pump(&mut self) {
        loop {
            if let Some(home) = self.dirty.pop() {
                self.drain(home);
            } else if let Some(index) = self.touched.pop() {
                self.write(index);
            } else if let Some(home) = self.budget.grant() {
                self.homes[home].held += 1;
                self.input(home, |swarm, now| swarm.handle_room(now));
            } else if !self.press() {
                return;
            }
        }
    }

    fn write(&mut self, index: usize) {
        let home = self.peers[index].plan.home;
        while self.peers[index].slot.is_some() {
            let first = self.peers[index].queue.front().is_some_and(|sending| !sending.begun);
            let Some(flight) = self.peers[index].next_frame() else { break };
            self.peers[index].flights.push_back(flight);
            self.peers[index].data_waits_since = None;
            if flight.last && self.peers[index].plan.weather.in_datagrams {
                self.peers[index].open.push(flight.chunk);
            } else if flight.last {
                self.writer_done(home, flight.chunk);
                self.peer_input(index, |swarm, now, slot| {
                    swarm.handle_written(now, slot, flight.chunk);
                });
            } else if first && !self.rng.percent(self.plan.coalesce_percent) {
                self.peer_input(index, |swarm, now, slot| {
                    swarm.handle_begun(now, slot, flight.chunk);
                });
            }
        }
        let peer = &mut self.peers[index];
        let connection = peer.connection;
        if !peer.has_data_waiting() {
            // Nothing waits, though nothing was taken: it was recalled.
            peer.data_waits_since = None;
        }
        if peer.has_data_waiting() && peer.data_waits_since.is_none() {
            peer.data_waits_since = Some(self.now);
            if peer.stopped || peer.dead || matches!(peer.plan.vice, Vice::Stops(_)) {
                self.schedule(self.now + 10 * SECOND, Event::StallCheck(index, connection));
            }
        }
        let peer = &mut self.peers[index];
        if !peer.link_busy
            && !peer.stopped
            && !peer.dead
            && let Some(&flight) = peer.flights.front()
        {
            peer.link_busy = true;
            let time = peer.down_time(&mut self.rng, flight.chunk, flight.end - flight.start);
            self.schedule(self.now + time, Event::FrameDone(index, connection));
        }
    }

    /// While a home waits, others above their share give up what is too much.
    fn press(&mut self) -> bool {
        let working = self.homes.iter().filter(|home| home.swarm.wants_work()).count().max(1);
        let share = self.budget.limit() / working as u64;
        for home in 0..self.homes.len() {
            let state = &self.homes[home];
            let share = if state.swarm.wants_work() { share } else { 0 };
            let returning = state.memory.values().filter(|memory| !memory.cached).count() as u64;
            let kept = state.leased_bytes() - returning * state.chunk_size;
            if kept > share
                && self.budget.others_wait(home)
                && state.swarm.cached_count() > 0
                && state.pressed_at != Some(self.now)
            {
                self.homes[home].pressed_at = Some(self.now);
                let chunks = (kept - share).div_ceil(u64::from(self.plan.chunk_size));
                let chunks = u32::try_from(chunks).expect("few");
                self.input(home, |swarm, now| swarm.handle_pressure(now, chunks));
                return true;
            }
        }
        false
    }
}
