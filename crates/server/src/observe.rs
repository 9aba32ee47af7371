//! What can be seen of a running relay from outside: counts, metrics, snapshots, and what is served over HTTP.
//!
//! Shards write cells and publish snapshots; only the control thread reads them. Nothing here decides anything.

pub(crate) mod cells;
pub(crate) mod control;
pub(crate) mod guesses;
pub(crate) mod http;
pub(crate) mod map_row;
pub(crate) mod metrics;
pub(crate) mod snapshot;
pub(crate) mod status;
