//! What people see of a running relay: the live page, its events, and `/api/v1`.
//!
//! Shards publish snapshots while they are watched ([`super::snapshot`]). One task on the control
//! thread keeps the latest of each ([`board`]), tells watchers what changed ([`frame`]) and answers
//! questions ([`api`]); [`feed`] is that task and the way to it. [`page`] serves the page itself,
//! [`access`] says which requests may see all this, and [`gate`] sees to it.

pub(crate) mod access;
pub(crate) mod api;
mod board;
pub(crate) mod feed;
mod figures;
mod frame;
pub(crate) mod gate;
pub(crate) mod page;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusRecorder;
use shards::Heartbeats;

use self::access::Access;
pub(crate) use self::feed::{Feed, Keeper};
use super::metrics::Metrics;
use crate::process::Shared;

/// What the HTTP handlers see.
pub(crate) struct View {
    pub shared: Arc<Shared>,
    pub recorder: PrometheusRecorder,
    pub metrics: Metrics,
    pub heartbeats: Heartbeats,
    pub access: Access,
    pub feed: Feed,
}
