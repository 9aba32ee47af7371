//! The peer's side: gets a file through a relay, and supplies what it has.
//!
//! ```text
//!  peer         SHELL: connects, and connects again when a connection breaks
//!    ├─ remote, dial     find the relay, open a socket
//!    ├─ store, origin    where chunks live: memory, a file, nowhere; a file that is shared
//!    ├─ hashing          a file's manifest, on all cores
//!    │
//!  connection   SHELL: the tasks of one connection
//!    ├─ datagrams        those of a channel that runs in datagrams
//!    ├─ keeping          what its store has under way
//!    │
//!  session      PURE: the state of one connection
//!    ├─ outbox           what it has to say
//!    ├─ intake           grants: how much it takes in, at which pace
//!    ├─ wants            peer order: what it asks for
//!    ├─ assembler        frames to verified chunks
//!    ├─ uploads          fetches that it answers
//!    └─ file             what it has; outlives the connection
//! ```
//!
//! A publisher is a peer that has everything; a client of the load generator is a peer whose
//! store keeps nothing. Does not import the server, nor know what a swarm decides.

pub mod assembler;
pub mod connection;
mod datagrams;
pub mod dial;
pub mod error;
#[cfg(feature = "exercise")]
pub mod exercise;
pub mod file;
pub mod hashing;
pub mod intake;
mod keeping;
mod liveness;
pub mod origin;
pub mod outbox;
pub mod peer;
mod prefix;
pub mod remote;
pub mod resume;
pub mod scratch;
pub mod session;
mod signal;
pub mod store;
pub mod uploads;
pub mod wants;

pub use assembler::WrongDigestCause;
pub use error::{ConnectionError, SessionError};
pub use file::FileState;
pub use hashing::{HashError, Hashed, hash_file};
pub use origin::{OriginError, OriginFile};
pub use peer::{Ended, Notice, Observer, Patience, Peer, PeerConfig, PeerHandle, Reaction};
pub use remote::{Remote, look_up_blocking};
pub use scratch::{Scratch, new_scratch};
pub use session::{Session, SessionConfig, SessionEvent};
pub use store::{ChunkStore, Disk, FileStore, MemoryStore, Nowhere, StoreEvent, StreamStore};
pub use uploads::Upload;
pub use wants::ChunkOrder;
