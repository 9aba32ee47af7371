//! What a get has its event loop do, and how far that is.

use std::{
    cell::Cell,
    num::NonZeroU64,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool, mpsc::SyncSender},
    time::Duration,
};

use super::{
    super::{args::SeedFor, belief::Belief},
    screen::News,
    status::Status,
    unfinished::Unfinished,
};
use crate::{
    client::{
        ChunkOrder, ChunkStore, Content, Disk, FileState, FileStore, Opening, Remote, StreamStore,
        content::prefix::Prefix, store::Sink,
    },
    protocol::{Manifest, Token, rate::Rate},
    transport::Transport,
};

/// Where the bytes go.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Into what becomes the target.
    Part { part: Arc<dyn Unfinished>, overwrite: bool },
    /// In order to another program.
    Stream(Arc<dyn Sink>),
    /// They are there already; others are served.
    Whole(Arc<dyn Content>),
    /// The first of them into memory, and then it is over.
    Memory(Arc<Prefix>),
}

impl Place {
    /// Which side chooses the order of what comes. A relay sends all of a file, so what is not all of it is named.
    pub(super) fn order(&self, file: &FileState) -> ChunkOrder {
        match self {
            Self::Stream(_) => ChunkOrder::Sequential,
            _ if file.goal().is_some() => ChunkOrder::Sequential,
            _ => ChunkOrder::Relay,
        }
    }

    /// Where chunks are kept. How many a stream's reader has not taken, if it is a stream.
    pub(super) fn store(
        &self,
        file: &FileState,
        opening: Option<&Opening>,
        disk: &Disk,
    ) -> (Box<dyn ChunkStore>, Option<Rc<Cell<usize>>>) {
        let key = *file.key();
        let file_store = |content: Arc<dyn Content>, is_writable| -> Box<dyn ChunkStore> {
            let store = FileStore::new(key, content, is_writable, disk);
            Box::new(match opening {
                Some(opening) => store.with_opening(opening.clone()),
                None => store,
            })
        };
        let store = match self {
            Self::Part { part, .. } => file_store(part.content(), true),
            Self::Memory(prefix) => file_store(Arc::clone(prefix) as _, true),
            Self::Whole(content) => file_store(Arc::clone(content), false),
            Self::Stream(sink) => {
                let store = StreamStore::new(Arc::clone(sink), file.lacking_chunks(), disk);
                let writes = store.writes();
                let store = match opening {
                    Some(opening) => store.with_opening(key, opening.clone()),
                    None => store,
                };
                return (Box::new(store), Some(writes));
            }
        };
        (store, None)
    }
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) transport: Transport,
    /// Bytes of the file a second, each way.
    pub(super) rate: Option<NonZeroU64>,
}

impl Manner {
    /// How long a chunk of this size may take, where the user wants to wait for so long: what the limit holds back is
    /// waited for.
    pub(super) fn patience(self, wished: Duration, chunk_bytes: u32) -> Duration {
        let rate = self.rate.and_then(|rate| Rate::new(rate.get()));
        rate.map_or(wished, |rate| wished.max(2 * rate.time_for(chunk_bytes.into())))
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) remote: Remote,
    /// Which relay is believed to be that one.
    pub(super) belief: Belief,
    pub(super) token: Option<Token>,
    pub(super) manner: Manner,
    pub(super) place: Place,
    /// Of a sealed file.
    pub(super) opening: Option<Opening>,
    /// Only the list of digests is wanted: what is on disk must be hashed before anything is got.
    pub(super) manifest_only: bool,
    pub(super) timeout: Duration,
    pub(super) seed_for: SeedFor,
    pub(super) status: Arc<Status>,
    pub(super) news: SyncSender<News>,
    pub(super) interrupted: Arc<AtomicBool>,
}

/// How it ended well.
#[derive(Debug)]
pub(super) enum Done {
    /// The file is where it belongs.
    Whole,
    /// The list of digests is here.
    Manifest(Arc<Manifest>),
}

/// How far the file is.
#[derive(Clone)]
pub(super) enum Stage {
    Getting,
    /// Only the list of digests was wanted, and is here.
    Manifest(Arc<Manifest>),
    /// All chunks are here, since then. The file is being put in its place.
    Finishing(Duration),
    /// All chunks are here, since then. The file is in its place, or could not be put there.
    Finished(Duration, Result<(), String>),
}

impl Stage {
    /// Since when all chunks are here.
    pub(super) fn whole_at(&self) -> Option<Duration> {
        match self {
            Self::Getting | Self::Manifest(_) => None,
            Self::Finishing(at) | Self::Finished(at, _) => Some(*at),
        }
    }
}
