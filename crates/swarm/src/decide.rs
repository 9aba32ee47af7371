//! What is decided. Each decider owns its own state, reads the book, and changes facts by the book's methods
//! only; what the shell has to do it adds to the actions. Both, and the time, lie on the desk (`desk.rs`).
//!
//! A decider may call those below it, never those above: `pick` asks `seed`, `leave` and `room` what
//! to fetch; `hedge` asks other `holders`; all of them `deliver`. What concerns them all, such as
//! a peer that goes, passes through the `Swarm`.

pub(crate) mod deliver;
pub(crate) mod fetch;
pub(crate) mod hedge;
pub(crate) mod holders;
pub(crate) mod late;
pub(crate) mod leave;
pub(crate) mod manifest;
pub(crate) mod missing;
pub(crate) mod pace;
mod patience;
pub(crate) mod pick;
pub(crate) mod rent;
pub(crate) mod room;
pub(crate) mod seed;
pub(crate) mod uplinks;
