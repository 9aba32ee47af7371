//! The scheduler in virtual time: thousands of seeded worlds, and the rates that it must keep.

#[path = "../sim/mod.rs"]
mod sim;

mod pace;
mod rates;
mod worlds;
