//! What a peer has of one file: survives connections, so that a new one goes on where the last
//! ended. Holds no file bytes; those are in a [`super::ChunkStore`].

use std::sync::Arc;

use relay_protocol::{Bitfield, Manifest, SwarmKey};

/// One file as one peer knows it.
///
/// Invariants: `have.len() == key.chunk_count()`; a manifest is of the same key; a goal counts what lacks of it.
#[derive(Clone, Debug)]
pub struct FileState {
    key: SwarmKey,
    have: Bitfield,
    manifest: Option<Arc<Manifest>>,
    /// If not all of it is wanted.
    goal: Option<Goal>,
}

/// The chunks that are wanted.
#[derive(Clone, Debug)]
struct Goal {
    chunks: Arc<Bitfield>,
    /// How many of them are not here.
    lacking: u32,
}

impl FileState {
    /// A file of which nothing is known but its key.
    #[must_use]
    pub fn lacking(key: SwarmKey) -> Self {
        Self { key, have: Bitfield::empty(key.chunk_count()), manifest: None, goal: None }
    }

    /// A file that is here as a whole.
    #[must_use]
    pub fn whole(manifest: Arc<Manifest>) -> Self {
        let key = *manifest.key();
        Self { key, have: Bitfield::full(key.chunk_count()), manifest: Some(manifest), goal: None }
    }

    /// Wants these chunks of it, and no others. In an order of the peer's own: a relay that chooses the order sends all.
    ///
    /// # Panics
    /// They are of a file with another number of chunks.
    #[must_use]
    pub fn with_goal(self, chunks: Bitfield) -> Self {
        assert_eq!(chunks.len(), self.key.chunk_count(), "chunks of another file");
        let lacking = chunks.iter().filter(|&chunk| !self.have.contains(chunk)).count();
        let lacking = u32::try_from(lacking).expect("no more than chunks");
        Self { goal: Some(Goal { chunks: Arc::new(chunks), lacking }), ..self }
    }

    /// The chunks that are wanted, if not all are.
    #[must_use]
    pub fn goal(&self) -> Option<&Bitfield> {
        self.goal.as_ref().map(|goal| &*goal.chunks)
    }

    /// Names the swarm.
    #[must_use]
    pub fn key(&self) -> &SwarmKey {
        &self.key
    }

    /// The chunks that are here, verified.
    #[must_use]
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The list of digests, once known.
    #[must_use]
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        self.manifest.as_ref()
    }

    /// Whether every chunk is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.have.is_full()
    }

    /// Whether every chunk is here that is wanted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.goal.as_ref().map_or(self.have.is_full(), |goal| goal.lacking == 0)
    }

    /// The chunks that are wanted and not here, in order.
    pub fn lacking_chunks(&self) -> impl Iterator<Item = u32> + '_ {
        let is_wanted =
            |chunk: &u32| self.goal.as_ref().is_none_or(|goal| goal.chunks.contains(*chunk));
        self.have.iter_missing().filter(is_wanted)
    }

    /// Books a chunk that was verified and is kept; whether it is new.
    pub fn add(&mut self, chunk: u32) -> bool {
        let is_new = self.have.insert(chunk);
        if is_new
            && let Some(goal) = &mut self.goal
            && goal.chunks.contains(chunk)
        {
            goal.lacking -= 1;
        }
        is_new
    }

    /// A chunk is here no longer; whether it was.
    pub fn remove(&mut self, chunk: u32) -> bool {
        let was_here = self.have.remove(chunk);
        if was_here
            && let Some(goal) = &mut self.goal
            && goal.chunks.contains(chunk)
        {
            goal.lacking += 1;
        }
        was_here
    }

    /// Takes the list of digests, or another copy of the same (many peers may share one).
    ///
    /// # Panics
    /// If it is of another file.
    pub fn set_manifest(&mut self, manifest: Arc<Manifest>) {
        assert_eq!(*manifest.key(), self.key, "a manifest of another file");
        self.manifest = Some(manifest);
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        assert_eq!(self.have.len(), self.key.chunk_count());
        assert!(self.manifest.as_ref().is_none_or(|manifest| *manifest.key() == self.key));
        if let Some(goal) = &self.goal {
            assert_eq!(goal.lacking as usize, self.lacking_chunks().count());
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::digest_file;

    use super::*;

    #[test]
    fn a_goal_is_reached_without_the_rest() {
        let key = SwarmKey { id: digest_file(&[]), size_bytes: 5 << 10, chunk_size_log2: 10 };
        let mut file = FileState::lacking(key);
        file.add(1);
        let mut goal = Bitfield::empty(5);
        for chunk in [1, 2, 4] {
            goal.insert(chunk);
        }
        let mut file = file.with_goal(goal);
        file.invariants();
        assert_eq!(file.lacking_chunks().collect::<Vec<_>>(), [2, 4]);
        for (chunk, is_complete) in [(0, false), (4, false), (4, false), (2, true), (3, true)] {
            file.add(chunk);
            file.invariants();
            assert_eq!(file.is_complete(), is_complete, "chunk {chunk}");
        }
        assert!(file.remove(2) && !file.remove(2) && !file.is_complete());
        file.invariants();
        assert!(file.add(2) && file.is_complete());
        assert!(file.is_whole() && FileState::lacking(key).lacking_chunks().count() == 5);
    }
}
