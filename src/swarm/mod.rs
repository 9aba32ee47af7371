//! Pure: who has what, who gets what next.

pub mod shared;

pub use shared::{Action, Eviction, FetchFailure, FetchId, Join, PeerSlot, SwarmConfig};
