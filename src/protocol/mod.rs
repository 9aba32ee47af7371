//! The wire format (spec to be written here by the protocol's author).

mod check;

pub mod auth;
pub mod bitfield;
pub mod codec;
pub mod digest;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod message;

pub use auth::Token;
pub use bitfield::Bitfield;
pub use check::MessageError;
pub use codec::{
    CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, DataHeader, DecodeError, Decoder, Event,
    PREAMBLE_BYTES, encode_control, encode_preamble, frame_crc,
};
pub use digest::{ChunkHasher, digest_chunk, digest_file};
pub use key::{Digest, KeyError, SwarmKey};
pub use manifest::{Manifest, ManifestBuilder, ManifestError, ManifestHasher};
pub use message::{
    Accepted, ChunkRange, Claims, Failure, FailureCode, Hello, Message, Order, Seeding, Side,
    Stats, Welcome,
};
