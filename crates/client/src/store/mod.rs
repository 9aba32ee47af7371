//! Where chunks live: what a shell does with those that a session verified, and where it finds
//! those that a relay fetches.
//!
//! Only verified chunks are put in, so nothing is verified here but what comes back from a disk.
//! A store answers at once, as memory does, or later: then it rings a bell, and says what became of
//! it as a [`StoreEvent`].

mod contract;
mod disk;
mod file;
mod memory;
mod opening;
mod stream;

pub use contract::{ChunkStore, StoreEvent};
pub use disk::Disk;
pub use file::FileStore;
pub use memory::{MemoryStore, Nowhere};
pub use opening::OpeningStore;
pub use stream::{Sink, StreamStore};
