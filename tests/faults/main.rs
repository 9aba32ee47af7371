//! Whole programs in trouble: peers that lie, stop, flood or vanish, and people who mistype.
//!
//! One crate, so that what they share is compiled and linked once.

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/mod.rs"]
mod support;

mod blame;
mod chaos;
mod endings;
mod forgery;
mod http;
mod last_words;
mod limits;
mod network;
mod peers;
mod scarce;
mod siege;
mod still;
mod stuck;
mod usage;
