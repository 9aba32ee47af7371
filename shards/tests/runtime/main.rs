//! Event loops, hand-off, mesh, budget and sockets, from outside.

#[path = "../common/mod.rs"]
mod common;

mod budget;
mod life;
mod mesh;
mod net;
mod offload;
#[cfg(target_os = "linux")]
mod refused;
mod turns;
