//! Whether there is room for what is to come. Zeros that are not written need none.

use std::{os::fd::AsFd, path::Path};

use super::{
    context::{Context, hashing_error},
    status::Phase,
};
use crate::{
    client::{FileState, resume},
    units::bytes_texts,
};

/// Room that is needed, and room that there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    lacking_bytes: u64,
    free_bytes: u64,
}

impl Room {
    /// On the file system of this file, for so many bytes. One that does not tell has room: writing will tell.
    pub(super) fn of(file: impl AsFd, lacking_bytes: u64) -> Self {
        let free_bytes = match rustix::fs::fstatvfs(file) {
            Ok(system) if system.f_blocks > 0 => system.f_bavail.saturating_mul(system.f_frsize),
            _ => u64::MAX,
        };
        Self { lacking_bytes, free_bytes }
    }

    /// Whether there is too little if no byte is a zero.
    pub(super) fn is_short(self) -> bool {
        self.lacking_bytes > self.free_bytes
    }

    /// The words that say so.
    pub(super) fn refusal(self, path: &Path) -> String {
        let (lacking, free) = bytes_texts(self.lacking_bytes, self.free_bytes);
        format!(
            "not enough room for {}: {lacking} are to come and {free} are free: make room and run \
             this again, or choose another place with -o",
            path.display()
        )
    }
}

/// Refuses what does not fit. Where it does not seem to, the list of digests tells how much of it is zeros.
///
/// # Errors
/// A sentence for the user.
pub(super) fn check(
    context: &Context<'_>,
    room: Room,
    state: &FileState,
    path: &Path,
) -> Result<(), String> {
    if !room.is_short() {
        return Ok(());
    }
    let Some(manifest) = state.manifest().filter(|_| !context.args.no_sparse) else {
        return Err(room.refusal(path));
    };
    context.status.enter(Phase::Hashing);
    let lacking: Vec<u32> = state.lacking_chunks().collect();
    let (opening, hashing) = (context.opening.as_ref(), &context.hashing);
    let needed = resume::bytes_not_zero(manifest, &lacking, opening, room.free_bytes, hashing);
    let needed = needed.map_err(|error| hashing_error(&error, path))?;
    if needed <= room.free_bytes {
        let (all, needed) = bytes_texts(room.lacking_bytes, needed);
        context.note(format!("{needed} of {all} are no zeros, and are written"));
        return Ok(());
    }
    let (lacking, needed) = bytes_texts(room.lacking_bytes, needed);
    let (_, free) = bytes_texts(room.lacking_bytes, room.free_bytes);
    Err(format!(
        "not enough room for {}: {lacking} are to come, of which at least {needed} are no zeros, and {free} are \
         free: make room and run this again, or choose another place with -o",
        path.display()
    ))
}
