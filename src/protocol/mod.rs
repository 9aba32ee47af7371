//! The wire format (spec to be written here by the protocol's author).

pub mod bitfield;
pub mod key;
pub mod limits;
pub mod message;

pub use bitfield::Bitfield;
pub use key::{Digest, KeyError, SwarmKey};
pub use message::{
    Accepted, ChunkRange, Claims, Failure, FailureCode, Hello, Message, Order, Seeding, Stats,
    Welcome,
};
