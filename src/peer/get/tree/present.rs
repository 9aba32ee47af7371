//! Whether a directory that is there is the ticket's: all of it, and nothing else, with its contents.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, sync::Arc};

use super::{
    super::{
        beside::no_follow,
        context::{Context, hashing_error},
        target::FileTarget,
    },
    bundle::Bundle,
};
use crate::client::{Tree, resume};

/// The tree at the target, if it is the bundle's.
///
/// # Errors
/// A sentence for the user: it can't be read, or only a part of the bundle is wanted, which can't be compared.
pub(super) fn find(
    context: &Context<'_>,
    target: &FileTarget,
    bundle: &Bundle,
) -> Result<Option<Tree>, String> {
    let path = target.path();
    if bundle.selected.is_some() {
        return Err(format!(
            "{} is there already, and only all of a directory can be compared with it: give another name with -o, or \
             --force to replace it",
            path.display()
        ));
    }
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::Interrupted => hashing_error(&error, path),
        _ => format!("could not read {}: {error}", path.display()),
    };
    let opened = File::options().read(true).custom_flags(no_follow()).open(path);
    let tree = Tree::to_read(opened.map_err(unreadable)?.into(), Arc::clone(&bundle.index));
    let tree = tree.with_stop(Arc::clone(&context.hashing.stop));
    if !tree.is_as_listed().map_err(unreadable)? {
        return Ok(None);
    }
    let key = bundle.manifest.key();
    let (opening, hashing) = (context.opening.as_ref(), &context.hashing);
    let found = resume::manifest_of(&tree, key.size_bytes, key.chunk_size_log2, opening, hashing);
    match found.map_err(unreadable)? {
        Some(manifest) if manifest.key() == key => {
            context.check_opened()?;
            Ok(Some(tree))
        }
        _ => Ok(None),
    }
}
