//! The wire format from outside: golden vectors, limits, streams cut anywhere, tickets.

#[path = "../protocol_support/mod.rs"]
mod protocol_support;

mod bitfield;
mod bundle;
mod golden;
mod limits;
mod manifests;
mod seal;
mod streams;
mod ticket;
