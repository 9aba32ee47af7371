//! Whole programs at their ordinary work, from outside: sockets, processes, pages, files.
//!
//! One crate, so that what they share is compiled and linked once.

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/mod.rs"]
mod support;

mod browser;
mod cluster;
mod control;
mod dashboards;
mod datagrams;
mod departures;
mod doctor;
mod elsewhere;
mod far;
mod get;
mod handing;
mod label;
mod page;
mod parts;
mod pins;
mod pipes;
mod proxies;
mod rates;
mod relay_program;
mod remembered;
mod results;
mod roles;
mod sealed;
mod secrets;
mod share;
mod standing;
mod tokens;
mod trees;
mod trees_changed;
mod trees_shared;
