//! Whole programs at their ordinary work, from outside: sockets, processes, pages, files.
//!
//! One crate, so that what they share is compiled and linked once.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod control;
mod dashboards;
mod datagrams;
mod doctor;
mod get;
mod page;
mod relay_program;
mod share;
mod standing;
