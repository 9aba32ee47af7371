//! What is made sure of before anything of a run is started.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context;
use relay::{
    machine::{self, MemoryLimit},
    server::MemoryPlan,
    transport::Transport,
};
use shards::Placement;

use crate::{
    args::{Config, FileChoice, Store},
    client::client_path,
    content::check_size,
    report_dir, usage,
};

/// What this process needs beside content and clients.
const OWN_BYTES: u64 = 32 << 20;

/// What a client needs: its window, its place in a thread's buffers.
const PER_CLIENT_BYTES: u64 = 256 << 10;

/// A relay gets so much in any case.
const CACHE_BYTES_MIN: u64 = 4 << 20;

/// Makes sure of all that the run will need.
///
/// # Errors
/// What can't be had, and what to do.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<()> {
    if let FileChoice::Generated(bytes) = config.file {
        check_size(bytes, config.files).context("--file is not available")?;
    }
    if let Some(dir) = &config.report {
        report_dir::prepare(dir)?;
    }
    if let Store::Dir(dir) = &config.store {
        std::fs::create_dir_all(dir).with_context(|| {
            format!("could not make the directory {} of --store; choose another", dir.display())
        })?;
    }
    check_stores(config)?;
    if let Some(path) = config.json.as_deref().filter(|path| *path != Path::new("-")) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.with_context(|| {
            format!("could not write {} of --json; choose another, or - for stdout", path.display())
        })?;
    }
    let has_datagrams = config.transport != Transport::Tcp;
    // Of its own, to write to or to compare with.
    let has_file = config.store != Store::Verify || matches!(config.file, FileChoice::Path(_));
    let descriptors = 1 + u64::from(has_datagrams) + u64::from(has_file);
    let members = (config.clients + config.files) as u64;
    let loops = Placement::plan(config.cores, false).shard_count();
    usage::raise_descriptor_limit(members * descriptors, loops).map_err(anyhow::Error::msg)?;
    Ok(())
}

/// The cache of a relay of our own, where it shares a memory limit with this process that leaves it less than
/// its default.
pub(crate) fn relay_cache_bytes(config: &Config) -> Option<u64> {
    let limit = machine::shared_memory_limit()?;
    let content = match config.file {
        FileChoice::Generated(bytes) => bytes.saturating_mul(config.files as u64),
        FileChoice::Path(_) => 0,
    };
    let clients = (config.clients as u64).saturating_mul(PER_CLIENT_BYTES);
    let taken = content.saturating_add(clients).saturating_add(OWN_BYTES);
    let left = MemoryLimit { bytes: limit.bytes.saturating_sub(taken), ..limit };
    let shards = Placement::plan(None, false).shard_count();
    let cache =
        |limit| MemoryPlan::new(None, shards, Some(limit), None).cache_bytes.max(CACHE_BYTES_MIN);
    (cache(left) < cache(limit)).then(|| cache(left))
}

/// No client's store is the content itself: it would be emptied to be filled anew.
fn check_stores(config: &Config) -> anyhow::Result<()> {
    let (Store::Dir(dir), FileChoice::Path(source)) = (&config.store, &config.file) else {
        return Ok(());
    };
    let (Ok(content), Some(name)) = (std::fs::metadata(source), source.file_name()) else {
        return Ok(()); // What can't be read is told when it is.
    };
    for client in 0..config.clients {
        let path = client_path(dir, client, name);
        let is_same =
            |there: std::fs::Metadata| (there.dev(), there.ino()) == (content.dev(), content.ino());
        if std::fs::metadata(&path).is_ok_and(is_same) {
            anyhow::bail!(
                "{} of --file is {}, to which --store would write; choose another directory",
                source.display(),
                path.display()
            );
        }
    }
    Ok(())
}
