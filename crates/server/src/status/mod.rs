//! What people see of a running relay: the live page, its events, and `/api/v1`.
//!
//! Shards publish snapshots while somebody watches ([`super::snapshot`]). One task on the control
//! thread keeps the latest of each ([`board`]), tells watchers what changed ([`frame`]) and answers
//! questions ([`api`]); [`feed`] is that task and the way to it. [`page`] serves the page itself,
//! and [`access`] says who may see all this.

pub(crate) mod access;
pub(crate) mod api;
mod board;
pub(crate) mod feed;
mod figures;
mod frame;
pub(crate) mod page;

pub(crate) use feed::{Feed, Keeper};
