//! The wire format: how a relay and its peers talk. This page is its one specification.
//!
//! It is meant to be enough for a second implementation; the vectors in `tests/golden` pin every
//! byte of it. The module is pure: bytes in, messages out. It opens no socket, reads no clock,
//! draws no random number, and keeps no state of a session beyond [`Decoder`].
//!
//! # Participants, goals, non-goals
//!
//! - A **relay** accepts connections. It stores no file; it fetches chunks from peers that hold
//!   them and delivers them to peers that lack them.
//! - A **peer** connects. It may hold nothing (it downloads), everything (the first is the
//!   **origin**) or a part; what it has verified it supplies to others through the relay.
//!
//! One connection joins one **swarm**: the peers of one file, cut in one way. Peers never see each
//! other.
//!
//! Goals: no wrong byte reaches a file; every side can bound its memory before it trusts the
//! other; a connection may break at any moment and the next one goes on; a repeated, late or
//! reordered control message does no harm; bulk data needs no copy.
//!
//! Non-goals: secrecy (put a tunnel around it), names of files (the relay never learns them),
//! discovery of files (a ticket names the relay and the swarm key), relays that talk to relays.
//!
//! # Content identity
//!
//! A file is cut into **chunks** of 2^`chunk_size_log2` bytes, between
//! 2^[`CHUNK_SIZE_LOG2_MIN`] and 2^[`CHUNK_SIZE_LOG2_MAX`]; the last has what is left, at least one
//! byte. There are at most [`CHUNK_COUNT_MAX`].
//!
//! - The **id** of a file is its plain 32-byte BLAKE3, what `b3sum` prints.
//! - The **digest** of a chunk is the BLAKE3 chaining value of its subtree: hashed with the chunk's
//!   offset in the file as input offset, and finalised as non-root. Digests merge pairwise, as
//!   BLAKE3 prescribes, to the id. If a file has one chunk, its digest is the id (root-finalised).
//! - The **swarm key** is (id, size, `chunk_size_log2`): [`SwarmKey`]. Same content cut otherwise
//!   is another swarm.
//! - The **manifest** is the list of digests. It follows from content and key, so all honest copies
//!   are equal, and whoever has the key can prove one: the digests merge to the id. A file of size
//!   0 has no chunks and an empty manifest, which nobody asks for; its id is BLAKE3 of nothing.
//!
//! # Stream
//!
//! All integers of headers are little-endian. Each side first sends a **preamble** of
//! [`PREAMBLE_BYTES`], as soon as it is connected; neither waits for the other's:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | [`MAGIC`](limits::MAGIC), `PSPRELAY` |
//! | 8..10 | version, [`VERSION`](limits::VERSION) |
//! | 10..16 | zero |
//!
//! The receiver closes at the first byte that differs from the magic, and on another version
//! after having sent its own preamble, so that both sides can name both versions. Frames follow,
//! of two kinds. A **control frame** carries one [`Message`]:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | 1 |
//! | 1 | zero |
//! | 2..4 | length of the body, 1 to [`CONTROL_BODY_BYTES_MAX`](limits::CONTROL_BODY_BYTES_MAX) |
//! | 4.. | body: the message, no byte more |
//!
//! A **data frame** carries bytes of one chunk:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | 2 |
//! | 1 | zero |
//! | 2..4 | length of the payload, 1 to [`FRAME_PAYLOAD_BYTES_MAX`](limits::FRAME_PAYLOAD_BYTES_MAX) |
//! | 4..8 | chunk index |
//! | 8..12 | offset in the chunk, a multiple of `FRAME_PAYLOAD_BYTES_MAX` |
//! | 12..16 | tag: from a peer the id of the fetch that it answers; from a relay 0 |
//! | 16..20 | CRC-32C (Castagnoli) of the payload |
//! | 20.. | payload |
//!
//! A message's body is its [postcard](https://postcard.jamesmunns.com/wire-format) encoding: fields
//! in the order of their declaration, without names or padding; `u8` and `bool` one byte; wider
//! integers as LEB128 varints, the shortest form being sent and any being understood; `[u8; N]` and
//! [`Digest`] as they are; a list or text as its varint length, then its items or UTF-8 bytes;
//! `Option` as 0, or 1 and the value; an enum as the varint number of its variant, from 0 in the
//! order of declaration, then that variant's fields.
//!
//! # Handshake
//!
//! ```text
//! peer                                      relay
//!   │ preamble ──────────────────────────────► │
//!   │ ◄───────────────────── preamble, Welcome │
//!   │ Hello ─────────────────────────────────► │
//!   │ BitfieldPart × n, if claims are Some ──► │
//!   │ ◄─────────────────── Accepted or Failure │
//! ```
//!
//! The welcome carries a fresh nonce. If it wants a token, the hello's proof is keyed BLAKE3 of the
//! relay's nonce, then the peer's, 32 bytes in all, under the key that BLAKE3's `derive_key` makes
//! from the token (a line of text, white space around it trimmed) with the context string
//! `psp-relay v1 proof that a peer knows the relay's token`. A token never travels, and a proof is
//! of no use on another connection.
//!
//! Before `Accepted` a peer sends nothing else, except `Ping`, `Pong` and `Failure`. All of it must
//! have arrived [`HANDSHAKE_TIMEOUT`](limits::HANDSHAKE_TIMEOUT) after the connection began. A hello
//! without a key joins no swarm: its other wishes are ignored, and after `Accepted` it may only ask
//! for statistics, ping and close.
//!
//! # Messages
//!
//! By number. R: relay to peer, P: peer to relay. What the fields mean is said at [`Message`].
//!
//! | no. | message | from | when, and what follows | once more, or late |
//! |---|---|---|---|---|
//! | 0 | `Welcome` | R | first | an error |
//! | 1 | `Hello` | P | in answer | an error |
//! | 2 | `BitfieldPart` | P | after a hello with `Claims::Some`, in order, until the bitfield is whole | an error |
//! | 3 | `Accepted` | R | the peer has joined | an error |
//! | 4 | `ManifestRequest` | both | a peer asks before it can verify; a relay asks one holder at a time. Answered by all parts, or by a peer with `ManifestRefused` | parts from chunk 0 once more |
//! | 5 | `ManifestPart` | both | on request, in order of chunks, as many digests as fit in each but the last | ignored if not asked for |
//! | 6 | `ManifestRefused` | P | the relay asks somebody else | no effect |
//! | 7 | `Progress` | P | when data was taken in or room was made | the largest figures count |
//! | 8 | `Have` | P | chunks are verified and can be supplied | a set: no effect |
//! | 9 | `Want` | P | in peer order: the next chunks. At most [`WANTS_PER_PEER_MAX`](limits::WANTS_PER_PEER_MAX) wait, more are ignored | held or wanted ones are ignored |
//! | 10 | `Lacking` | P | a chunk under way was lost, as was what had come of it | lacking already: no effect |
//! | 11 | `Fetch` | R | a holder is asked; at most [`FETCHES_PER_PEER_MAX`](limits::FETCHES_PER_PEER_MAX) are outstanding. Answered by data frames, or `FetchRefused` | ids are not reused |
//! | 12 | `CancelFetch` | R | frames not yet sent need not be | unknown ids are ignored |
//! | 13 | `FetchRefused` | P | the peer does not hold the chunk after all | unknown ids are ignored |
//! | 14 | `Waiting` | R | nobody connected holds what the peer lacks; at most once a second | the last counts |
//! | 15 | `SeedingDone` | R | to an origin that spreads: it may close, the peers have everything | no effect |
//! | 16 | `Leaving` | P | it would like to go, and supplies until it may | no effect |
//! | 17 | `LeaveGranted` | R | nobody depends on the peer, or 60 s have passed: it closes | no effect |
//! | 18 | `StatsRequest` | P | any time after `Accepted`; answered by `Stats` | answered again |
//! | 19 | `Stats` | R | in answer | the last counts |
//! | 20 | `Ping` | both | any time; answered by `Pong` with its token | answered again |
//! | 21 | `Pong` | both | in answer | ignored |
//! | 22 | `Failure` | both | the last message; the sender closes, the receiver answers nothing | |
//! | 23 | `SwarmStatusRequest` | P | any time after `Accepted`, about once a second; answered by `SwarmStatus` | one answer may serve several |
//! | 24 | `SwarmStatus` | R | in answer | the last counts |
//!
//! A message from the wrong side ([`Message::may_come_from`]), before its time, or about a chunk
//! that the file does not have is a fault: `Failure` with code `Protocol`, and the end.
//!
//! # Data
//!
//! **From the relay: deliveries.** Both figures of `Progress` count payload bytes of data frames
//! since the connection began, wanted or not. A relay begins a frame only if all of it is within
//! `granted_bytes`, so it never sends beyond the grant. A grant is a wish: a relay keeps less under
//! way when it sees fit, but never less than two frames. Hence a peer that has taken in a whole frame
//! which it has not reported, and finds nothing more to read, must report: the relay may be waiting
//! for that, and cuts off who takes nothing for 10 s. While more keeps coming it may save reports up.
//! Chunks that a peer reported by `Have` or claimed are not delivered to it.
//!
//! **From a peer: answers to fetches.** The whole chunk from offset 0, each frame tagged with the
//! fetch's id. Fetches are best answered in the order in which they came. Frames with an id that is
//! unknown, cancelled or done are discarded: they may have crossed a cancellation.
//!
//! **Within a chunk** every frame but the last is `FRAME_PAYLOAD_BYTES_MAX` long, and they come in
//! order of offsets, each where the one before ended. Frames of other chunks and control frames may
//! come between. A relay may stop a delivery after any frame (it needed the memory) and go on later
//! where it stopped, or begin again at offset 0, which replaces what had come. A receiver keeps at
//! most [`PARTIAL_CHUNKS_MAX`](limits::PARTIAL_CHUNKS_MAX) unfinished chunks; when one more begins,
//! it drops the one that began first, and the relay, which keeps the same list, doesn't count on it
//! any more. A frame that continues nothing is discarded and, if the chunk is lacking, answered by
//! `Lacking`. A frame that reaches beyond its chunk's end is a fault.
//!
//! **Verification.** A receiver digests each chunk and compares with the manifest before it keeps
//! the chunk, and before it passes it on. Nothing else is trusted.
//!
//! **Blame.** The CRC is looked at only when the digest is wrong, so the receiver keeps the CRCs of
//! an unfinished chunk's frames. If one of them does not fit its payload, the link did it: `Failure`
//! with `LinkCorrupt`, the peer connects again, nobody is blamed. If all fit, the sender lied: the
//! relay cuts that peer off with `Banned` and refuses it for this swarm, nobody else; a peer gives
//! up on that relay. The same holds for a manifest whose digests are too many or do not merge
//! ([`ManifestError`]).
//!
//! # Limits
//!
//! All of them are in [`limits`], with their reasons. Every length is checked before anything is
//! allocated by it, and a message beyond a limit is never handed on: it ends the connection
//! ([`DecodeError`]). A decoder holds back at most one control message; payload is not buffered.
//!
//! | what | most |
//! |---|---|
//! | body of a control message | 1,100 bytes: with its header it fits a datagram of 1,200 |
//! | bitfield in one part | 1,024 bytes |
//! | digests in one part | 32 |
//! | ranges in one `Have` | 100, each of at least one chunk |
//! | chunks in one `Want` | 200 |
//! | text of a `Failure` | 512 bytes of UTF-8; show no control character of it |
//! | driver and congestion control in `Stats` | 32 bytes each |
//! | chunks of a file | 2^18, each of 2^10 to 2^24 bytes |
//! | `chunk_size_log2_max` of a `Welcome` | 24 |
//!
//! # Ends
//!
//! Either side may close at any time; what was verified stays so. A peer that takes no byte for 10 s
//! while data waits for it is closed as `Stalled`. A relay's state is soft: after its restart peers
//! connect again and claim what they hold.
//!
//! | no. | [`FailureCode`] | what the other side does |
//! |---|---|---|
//! | 0 | `Protocol` | reports it; connecting again would not help |
//! | 1 | `TokenRefused` | reports it |
//! | 2 | `TooManyPeers` | may try again later |
//! | 3 | `SwarmRefused` | reports it: a publisher takes smaller chunks |
//! | 4 | `Banned` | reports it; it is refused for this swarm |
//! | 5 | `Stalled` | connects again and goes on |
//! | 6 | `ChunksMissing` | reports how many; may try again when a holder is back |
//! | 7 | `ShuttingDown` | connects again later |
//! | 8 | `Internal` | connects again and goes on |
//! | 9 | `LinkCorrupt` | connects again and goes on |
//!
//! # Tickets
//!
//! A user hands another a ticket: the relay's address, the swarm key, the file's name. The relay
//! never sees it. Its form is specified in [`ticket`]; it has a version of its own.
//!
//! # Versions
//!
//! There is one number, [`VERSION`](limits::VERSION), and no negotiation: sides of different versions
//! part in the handshake. Whatever changes a byte of a golden vector, or the meaning of one, is
//! another version; the magic, the place of the version and the length of the preamble never change.
//! Reserved bytes are sent as zero and refused otherwise, so that a later version may use them.
//!
//! [`CHUNK_SIZE_LOG2_MIN`]: limits::CHUNK_SIZE_LOG2_MIN
//! [`CHUNK_SIZE_LOG2_MAX`]: limits::CHUNK_SIZE_LOG2_MAX
//! [`CHUNK_COUNT_MAX`]: limits::CHUNK_COUNT_MAX

mod check;

pub mod auth;
pub mod bitfield;
pub mod codec;
pub mod digest;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod ticket;

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
    Stats, SwarmStatus, Welcome,
};
pub use ticket::{RelayAddr, RelayAddrError, Ticket, TicketError};
