//! What is in a bundle: its index, with the chunks that hold it.
//!
//! They lie beside a target that is not whole, or come from the relay, into memory: a bundle that breaks a rule is
//! refused before anything is written. A stranger wrote the index, and the worst one takes seconds to read: another
//! thread does that, and the user may end it.

use std::{
    ops::Range,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::super::{
    super::error::no_thread,
    beside::{self, StoredManifest},
    context::{Context, hashing_error},
    job::{Done, Place},
    target::FileTarget,
};
use crate::{
    client::{FileState, Tree, content::prefix::Prefix, resume},
    protocol::{
        Bitfield, Manifest, SwarmKey,
        bundle::{BundleError, Decoded, Glob, Index, PREFACE_BYTES},
    },
};

/// How often it is looked whether the user wants an end.
const LOOK: Duration = Duration::from_millis(50);

/// What is known of a bundle before its files are got.
pub(crate) struct Bundle {
    pub(super) manifest: Arc<Manifest>,
    /// Whole chunks, from the first on: those that hold the index.
    pub(super) chunks: Vec<u8>,
    pub(crate) index: Arc<Index>,
    /// Of each entry whether it is wanted, if not all are.
    pub(crate) selected: Option<Vec<bool>>,
}

impl Bundle {
    /// With the chunks of the index.
    pub(super) fn state(&self) -> FileState {
        let key = *self.manifest.key();
        let mut state = FileState::lacking(key);
        state.set_manifest(Arc::clone(&self.manifest));
        for chunk in chunks_within(&key, self.chunks.len()) {
            state.add(chunk);
        }
        state
    }

    /// The tree that is to come, in this directory.
    pub(super) fn tree(&self, root: OwnedFd, is_sparse: bool) -> Tree {
        let tree = Tree::to_write(root, Arc::clone(&self.index), self.selected.clone());
        if is_sparse { tree } else { tree.without_holes() }
    }

    /// The chunks that hold the index, or a file that is selected.
    pub(super) fn chunks_of(&self, selected: &[bool]) -> Bitfield {
        let key = self.manifest.key();
        let mut chunks = Bitfield::empty(key.chunk_count());
        for chunk in chunks_within(key, self.chunks.len()) {
            chunks.insert(chunk);
        }
        for number in (0..selected.len()).filter(|&number| selected[number]) {
            let place = self.index.place(number).filter(|place| !place.is_empty());
            for chunk in place.map_or(0..0, |place| chunks_of_range(key, &place)) {
                chunks.insert(chunk);
            }
        }
        chunks
    }
}

/// The chunks in which these bytes are, which are some.
fn chunks_of_range(key: &SwarmKey, bytes: &Range<u64>) -> Range<u32> {
    let chunk = |at: u64| u32::try_from(at >> key.chunk_size_log2).expect("below the chunk count");
    chunk(bytes.start)..chunk(bytes.end - 1) + 1
}

/// The chunks that are whole in so many first bytes.
fn chunks_within(key: &SwarmKey, bytes: usize) -> Range<u32> {
    let bytes = bytes as u64;
    let whole = u32::try_from(bytes >> key.chunk_size_log2).unwrap_or(u32::MAX);
    0..if bytes >= key.size_bytes { key.chunk_count() } else { whole }
}

/// What is in the ticket's bundle, from beside the target, or from the relay.
///
/// # Errors
/// A sentence for the user: it could not be got, breaks a rule, or nothing is selected.
pub(crate) fn get(context: &Context<'_>, target: Option<&FileTarget>) -> Result<Bundle, String> {
    let key = context.ticket.key;
    if key.size_bytes < PREFACE_BYTES as u64 {
        let is_bytes = key.size_bytes;
        return Err(refusal(&BundleError::Cut { is_bytes, needed_bytes: PREFACE_BYTES }));
    }
    let mut known = target.map_or_else(Known::default, |target| load(context, target));
    let mut chunk_count = 1;
    loop {
        if (known.chunk_count as usize) < chunk_count {
            known = fetch(context, known, chunk_count)?;
        }
        match read(context, &mut known.bytes)? {
            Read::Whole { index, selected } => {
                let manifest = known.manifest.expect("chunks were verified by it");
                let end = prefix_bytes(&key, index.header().len());
                known.bytes.truncate(end);
                return Ok(Bundle { manifest, chunks: known.bytes, index, selected });
            }
            Read::Needs { bytes } => chunk_count = bytes.div_ceil(key.chunk_size_bytes() as usize),
        }
    }
}

/// What was verified of the beginning.
#[derive(Default)]
struct Known {
    manifest: Option<Arc<Manifest>>,
    bytes: Vec<u8>,
    chunk_count: u32,
}

/// Bytes of the whole chunks that hold so many.
fn prefix_bytes(key: &SwarmKey, bytes: usize) -> usize {
    let whole = bytes.next_multiple_of(key.chunk_size_bytes() as usize);
    usize::try_from(key.size_bytes).map_or(whole, |size| whole.min(size))
}

/// From beside the target, as far as it is what it should be.
fn load(context: &Context<'_>, target: &FileTarget) -> Known {
    let key = context.ticket.key;
    let StoredManifest::Right(manifest) = beside::load_manifest(target, &key) else {
        return Known::default();
    };
    let manifest = Arc::new(manifest);
    let without_chunks = Known { manifest: Some(Arc::clone(&manifest)), ..Known::default() };
    let Ok(bytes) = beside::load_index(target) else { return without_chunks };
    let chunks: Vec<u32> = chunks_within(&key, bytes.len()).collect();
    let len = bytes.len();
    let prefix = Prefix::new(bytes, len);
    let (opening, hashing) = (context.opening.as_ref(), &context.hashing);
    match resume::chunks_right(&prefix, &manifest, &chunks, opening, hashing) {
        Ok(right) if right.len() == chunks.len() && !chunks.is_empty() => {
            let chunk_count = u32::try_from(chunks.len()).unwrap_or(0);
            let mut bytes = prefix.into_bytes();
            bytes.truncate(prefix_bytes_of(&key, chunk_count));
            Known { manifest: Some(manifest), bytes, chunk_count }
        }
        Ok(_) => without_chunks,
        Err(error) => {
            context.note(hashing_error(&error, &target.index_path()));
            without_chunks
        }
    }
}

fn prefix_bytes_of(key: &SwarmKey, chunk_count: u32) -> usize {
    prefix_bytes(key, chunk_count as usize * key.chunk_size_bytes() as usize)
}

/// From the relay: so many chunks, beside those that are here.
fn fetch(context: &Context<'_>, known: Known, chunk_count: usize) -> Result<Known, String> {
    let key = context.ticket.key;
    let chunk_count = u32::try_from(chunk_count).unwrap_or(u32::MAX).min(key.chunk_count());
    let mut state = FileState::lacking(key);
    if let Some(manifest) = known.manifest {
        state.set_manifest(manifest);
    }
    for chunk in 0..known.chunk_count {
        state.add(chunk);
    }
    let mut goal = Bitfield::empty(key.chunk_count());
    for chunk in 0..chunk_count {
        goal.insert(chunk);
    }
    let prefix = Arc::new(Prefix::new(known.bytes, prefix_bytes_of(&key, chunk_count)));
    let done = context.run(Place::Memory(Arc::clone(&prefix)), state.with_goal(goal), false);
    let done = done.map_err(|error| {
        format!("{error}; it is not known yet what is in the directory, so nothing was written")
    })?;
    let Done::Manifest(manifest) = done else {
        return Err("the list of files was not got".into());
    };
    Ok(Known { manifest: Some(manifest), bytes: prefix.to_bytes(), chunk_count })
}

/// What the first bytes of a bundle make.
enum Read {
    Whole { index: Arc<Index>, selected: Option<Vec<bool>> },
    Needs { bytes: usize },
}

/// Reads the index on a thread of its own, which is left to itself if the user does not want to wait for it.
fn read(context: &Context<'_>, bytes: &mut Vec<u8>) -> Result<Read, String> {
    let (size_bytes, globs) = (context.ticket.key.size_bytes, context.args.only.clone());
    let own = std::mem::take(bytes);
    let (sender, results) = sync_channel(1);
    let work = move || {
        let read = decode(&own, size_bytes, &globs);
        // The one who asked may have gone.
        sender.send((read, own)).ok();
    };
    let thread = thread::Builder::new().name("peer-index".into()).spawn(work);
    thread.map_err(|error| no_thread("that reads the index", &error))?;
    let stop: &AtomicBool = &context.hashing.stop;
    loop {
        match results.recv_timeout(LOOK) {
            Ok((read, own)) => {
                *bytes = own;
                return read;
            }
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                return Err("interrupted while the list of files was read".into());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the thread that reads the list of files panicked".into());
            }
        }
    }
}

fn refusal(error: &BundleError) -> String {
    format!("{error}; nothing was written")
}

fn decode(bytes: &[u8], size_bytes: u64, globs: &[Glob]) -> Result<Read, String> {
    match Index::decode(bytes, size_bytes).map_err(|error| refusal(&error))? {
        Decoded::Needs { prefix_bytes } if prefix_bytes > bytes.len() => {
            Ok(Read::Needs { bytes: prefix_bytes })
        }
        Decoded::Needs { .. } => Err("the list of files can't be read; nothing was written".into()),
        Decoded::Whole(index) => {
            let selected = (!globs.is_empty()).then(|| index.select(globs));
            if selected.as_ref().is_some_and(|selected| !selected.contains(&true)) {
                return Err("no file or directory is meant by --only: peer list shows what there is; a pattern \
                            begins at the top, and **/ before it looks everywhere"
                    .into());
            }
            Ok(Read::Whole { index: Arc::new(index), selected })
        }
    }
}
