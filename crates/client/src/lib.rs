//! The peer's side: gets a file through a relay, and supplies what it has.
//!
//! ```text
//!  bridge       SHELL: two peers of one file at two relays, and what crosses between them
//!    ├─ crossing         PURE: which chunks cross
//!    ├─ room             a bound on those that do
//!    │
//!  peer         SHELL: connects, and connects again when a connection breaks
//!    ├─ observer         what its owner is told, and may want
//!    ├─ remote, race     the way to the relay: the first of its addresses that answers
//!    ├─ look_up, dial    find addresses, open a socket
//!    ├─ proxy            or through a proxy, with what is said to it
//!    ├─ store, origin    where chunks live: memory, a file, nowhere; what is shared
//!    ├─ lookout          looks on its own thread whether what is shared has changed
//!    ├─ content, tree    the bytes of one file, or of a tree of them
//!    ├─ hashing          a file's manifest, on all cores
//!    ├─ spool, growing   what comes through a pipe, digested while it comes
//!    ├─ hash_cache       what was hashed before, and is unchanged since by its stamp
//!    ├─ sealing          chunks of a sealed file, between disk and swarm
//!    │
//!  connection   SHELL: the life of one connection
//!    ├─ tasks, datagram_tasks   what waits beside its reader
//!    ├─ linger, liveness        its last words; whether its stream still leads anywhere
//!    ├─ link                    its socket, how it ends
//!    ├─ core                    its session, channels and store
//!    ├─ keeping                 what its store has under way
//!    │
//!  session      PURE: the state of one connection
//!    ├─ outbox           what it has to say
//!    ├─ intake           grants: how much it takes in, at which pace
//!    ├─ wants            peer order: what it asks for
//!    ├─ assembler        frames to verified chunks
//!    ├─ uploads          fetches that it answers
//!    └─ file_state       what it has; outlives the connection
//! ```
//!
//! A publisher is a peer that has everything; a client of the load generator is a peer whose
//! store keeps nothing. Does not import the server, nor know what a swarm decides.
//!
//! A program that gets a file has [`Peer::run`] on an event loop of its own:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use relay_client::{
//!     ChunkOrder, FileState, Notice, Nowhere, Patience, Peer, PeerConfig, Reaction, Remote, SessionConfig,
//!     new_scratch,
//! };
//! use relay_protocol::{Ticket, time::Time};
//! use relay_transport::Trust;
//!
//! fn watch(_: Time, notice: &Notice<'_>, file: &FileState) -> Reaction {
//!     if let Notice::Verified { chunk, .. } = notice {
//!         println!("chunk {chunk} is here, {} in all", file.have().count());
//!     }
//!     Reaction::GoOn
//! }
//!
//! # fn get(text: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let ticket: Ticket = text.parse()?;
//! let config = PeerConfig {
//!     remote: Remote::Named(ticket.relay.clone()),
//!     trust: Trust::first_seen(),
//!     session: SessionConfig {
//!         order: ChunkOrder::Relay,
//!         seeding: None,
//!         token: None,
//!         intake_bytes_per_second: None,
//!         upload_bytes_per_second: None,
//!         keeps_bytes: true,
//!         is_manifest_only: false,
//!     },
//!     patience: Patience { first: Duration::from_secs(10), later: Duration::from_secs(60) },
//!     seed: 1,
//! };
//! let driver = shards::driver::choose(shards::DriverChoice::Auto)?.driver;
//! shards::block_on(driver, async move {
//!     // This store verifies chunks and keeps none; FileStore writes them to a file.
//!     let file = FileState::lacking(ticket.key);
//!     let peer = Peer::new(config, file, Box::new(Nowhere), Box::new(watch));
//!     println!("{:?}", peer.run(new_scratch()).await.0);
//! })?;
//! # Ok(())
//! # }
//! ```

pub mod assembler;
pub mod bridge;
mod connection;
pub mod content;
pub mod dial;
pub mod endpoint;
pub mod error;
#[cfg(feature = "exercise")]
pub mod exercise;
pub mod file_state;
pub mod growing;
pub mod hash_cache;
pub mod hashing;
pub mod intake;
mod look_up;
pub mod lookout;
pub mod observer;
pub mod origin;
pub mod outbox;
pub mod peer;
mod prefix;
pub mod proxy;
mod race;
pub mod remote;
pub mod resume;
pub mod sealing;
pub mod session;
pub mod spool;
pub mod stamp;
pub mod store;
pub mod tree;
pub mod uploads;
pub mod wants;

pub use assembler::WrongDigestCause;
pub use bridge::{Bridge, BridgeConfig, BridgeHandle, Shelf, Side};
pub use connection::{Scratch, new_scratch};
pub use content::Content;
pub use endpoint::Endpoint;
pub use error::{ConnectionError, SessionError};
pub use file_state::FileState;
pub use hash_cache::HashCache;
pub use hashing::{HashError, Hashed, hash_content};
pub use look_up::look_up_blocking;
pub use lookout::Lookout;
pub use observer::{Notice, Observer, Reaction};
pub use origin::{Origin, OriginError};
pub use peer::{Ended, Patience, Peer, PeerConfig, PeerHandle};
pub use proxy::{NoProxy, Proxies, Proxy, ProxyError, ProxyFault, ProxyKind, ProxyUrlError};
pub use remote::Remote;
pub use sealing::{Opening, Seal, WrongPlain, wrong_plain};
pub use session::{Session, SessionConfig, SessionEvent};
pub use store::{
    ChunkStore, Disk, FileStore, MemoryStore, Nowhere, OpeningStore, Sink, StoreEvent, StreamStore,
};
pub use tree::Tree;
pub use uploads::Upload;
pub use wants::ChunkOrder;
