//! The wire format: how a relay and its peers talk. This page is its one specification.
//!
//! It is meant to be enough for a second implementation. The vectors in `tests/golden` pin every byte of
//! it. The module is pure: bytes in, messages out. It opens no socket, reads no clock,
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
//! Goals: no wrong byte reaches a file; what is said is read by the two ends alone; every side can bound its
//! memory before it trusts the other; a connection may break at any moment and the next one goes on; a
//! repeated, late or reordered control message does no harm; bulk data needs no copy.
//!
//! Non-goals: secrecy of file bytes on the way (an origin seals them before it shares them, see [`ticket`]),
//! names of files (the relay learns a label only where an origin tells one), discovery of files (a ticket
//! names the relay and the swarm key), agreement between relays: one that gets files at another is a peer there.
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
//!   are equal, and every holder of the key can prove one: the digests merge to the id. A file of size
//!   0 has no chunks and an empty manifest, which no side asks for; its id is BLAKE3 of nothing.
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
//! of two kinds. A **control frame** carries a piece of what TLS has to send:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | 1 |
//! | 1 | zero |
//! | 2..4 | length of the piece, 1 to [`CONTROL_FRAME_BYTES_MAX`](limits::CONTROL_FRAME_BYTES_MAX) |
//! | 4.. | the piece |
//!
//! The pieces of one direction make one stream of TLS records, wherever they are cut.
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
//! | 16..20 | checksum, see below |
//! | 20.. | payload |
//!
//! The **checksum** of what a relay sends is the CRC-32C (Castagnoli) of the payload: all peers get the same. That of
//! what a peer sends is the first four bytes, as a little-endian number, of the keyed BLAKE3 of the payload, the tag and
//! the offset, under the 32 bytes that both sides export of their TLS session (label `EXPORTER-psp-relay-uploads`, no
//! context): only the peer can make it ([`UploadKey`]).
//!
//! # TLS
//!
//! TLS 1.3 (RFC 8446) in control frames: its handshake begins with the peer, right behind the preamble. ALPN is
//! `psp-relay/2`. The relay has a certificate, by itself or an authority; the peer has none. A peer compares the
//! relay's public key with a [`Pin`], or has an authority's word for it. There is no resumption, no early data
//! and no `close_notify`: each side may close at any time. Before its handshake is over a side takes at most
//! [`TLS_HANDSHAKE_BYTES_MAX`](limits::TLS_HANDSHAKE_BYTES_MAX) of it. A relay may send its welcome with its
//! own part of the handshake.
//!
//! Inside of TLS **messages** follow one another: two bytes with the length of the body, 1 to
//! [`CONTROL_BODY_BYTES_MAX`](limits::CONTROL_BODY_BYTES_MAX), then the body. Data frames are outside of TLS: they
//! carry what anybody with the ticket may have, sealed by its origin, and are verified chunk by chunk.
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
//!   │ preamble, TLS: ClientHello ────────────► │
//!   │ ◄ preamble, TLS: ServerHello … Finished, │
//!   │                                  Welcome │
//!   │ TLS: Finished, Hello ──────────────────► │
//!   │ BitfieldPart × n, if claims are Some ──► │
//!   │ ◄─────────────────── Accepted or Failure │
//! ```
//!
//! The welcome says of which peers the relay wants a token ([`TokenDemand`]): of none, of those that publish, or of
//! all. A peer that has a token proves it unless it is wanted of none: the hello's proof is keyed BLAKE3 of what
//! both sides export of their TLS session (label `EXPORTER-Channel-Binding`, no context, 32 bytes: RFC 9266), under
//! the key that BLAKE3's `derive_key` makes from the token (a line of text, white space around it trimmed) with the
//! context string `psp-relay v2 proof that a peer knows the relay's token`. A token never travels, and a proof is
//! of no use in another session: one who stands between two sessions can't pass it on.
//!
//! A token may be good for publishing only, or for getting only. A peer publishes if its hello states a seeding:
//! it must have a token that may publish. With a token that may only publish it must claim everything as well. A
//! peer that may only get joins a swarm that there is, and never begins one: before a peer that may publish has come
//! the relay answers `NotPublished`, whatever the hello claims.
//!
//! Before `Accepted` a peer sends nothing else, except `DatagramRequest`, `Ping`, `Pong` and `Failure`. All
//! of it must have arrived [`HANDSHAKE_TIMEOUT`](limits::HANDSHAKE_TIMEOUT) after the connection began. A hello
//! without a key joins no swarm: its other wishes are ignored (but a seeding wants a token that may publish, so a
//! publisher can ask beforehand whether it may), and after `Accepted` it may only ask
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
//! | 6 | `ManifestRefused` | P | the relay asks another peer | no effect |
//! | 7 | `Progress` | P | when data was taken in or room was made | the largest figures count |
//! | 8 | `Have` | P | chunks are verified and can be supplied | a set: no effect |
//! | 9 | `Want` | P | in peer order: the next chunks. At most [`WANTS_PER_PEER_MAX`](limits::WANTS_PER_PEER_MAX) wait, more are ignored | held or wanted ones are ignored |
//! | 10 | `Lacking` | P | a chunk under way was lost, as was what had come of it | lacking already: no effect |
//! | 11 | `Fetch` | R | a holder is asked; at most [`FETCHES_PER_PEER_MAX`](limits::FETCHES_PER_PEER_MAX) are outstanding. Answered by data frames, or `FetchRefused` | ids are not reused |
//! | 12 | `CancelFetch` | R | frames not yet sent need not be | unknown ids are ignored |
//! | 13 | `FetchRefused` | P | the peer does not hold the chunk after all | unknown ids are ignored |
//! | 14 | `Waiting` | R | no connected peer holds what this one lacks; at most once a second | the last counts |
//! | 15 | `SeedingDone` | R | to an origin that spreads: it may close, the peers have everything | no effect |
//! | 16 | `Leaving` | P | it would like to go, and supplies until it may | no effect |
//! | 17 | `LeaveGranted` | R | no peer depends on this one, or 60 s have passed: it closes | no effect |
//! | 18 | `StatsRequest` | P | any time after `Accepted`; answered by `Stats` | answered again |
//! | 19 | `Stats` | R | in answer | the last counts |
//! | 20 | `Ping` | both | any time; answered by `Pong` with its token | answered again |
//! | 21 | `Pong` | both | in answer | ignored |
//! | 22 | `Failure` | both | the last message; the sender closes, the receiver answers nothing | |
//! | 23 | `SwarmStatusRequest` | P | any time after `Accepted`, about once a second; answered by `SwarmStatus` | one answer may serve several |
//! | 24 | `SwarmStatus` | R | in answer | the last counts |
//! | 25 | `DatagramRequest` | P | right before the hello: a channel is to run in datagrams | an error |
//! | 26 | `DatagramOffer` | R | right before `Accepted`, if the peer asked | an error |
//! | 27 | `Label` | P | after `Accepted`, from a peer whose hello states a seeding: what the file is called where people watch the relay. The first that the swarm hears counts as long as there is the swarm | no effect |
//! | 28 | `Uplink` | P | right before the hello, and again after `Accepted` when it changes: the peer is an end of an uplink. Its order is its own, it states no seeding, and needs no chunk that it has not named. Refused with `UplinkRefused` if the relay itself is among those below | the last counts |
//! | 29 | `Available` | R | to an end of an uplink: which chunks other peers hold, all at first, then what changes | a set: no effect |
//! | 30 | `Lost` | P | from an end of an uplink: chunks that it claimed can't be had any more, and of those that it named none is wanted. What is being sent still comes | a set: no effect |
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
//! for that, and cuts off a peer that takes nothing for 10 s. While more keeps coming it may save reports up.
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
//! **Blame.** Checksums are looked at only when the digest is wrong, so the receiver keeps those of
//! an unfinished chunk's frames. If one of them does not fit its payload, the path did it: `Failure`
//! with `LinkCorrupt`, the peer connects again, no peer is blamed. If all fit, a peer lied: the
//! relay cuts it off with `Banned` and refuses it for this swarm, and no other peer. A relay's checksums can be
//! forged on the path: a peer connects again, and gives up after the third such chunk. Blame holds for a manifest whose digests are too many or do not merge
//! ([`ManifestError`]).
//!
//! # Datagrams
//!
//! A peer may ask for its **control channel in datagrams** (UDP): `DatagramRequest` before the hello,
//! which the relay answers with `DatagramOffer` before `Accepted`. The datagrams go to the address and
//! port of the stream. From `Accepted` on both sides send control messages in datagrams, but for
//! `Failure`, which stays on the stream, and ends with it. Or it may ask for its **data channel**: then
//! all messages stay on the stream, and no data frame goes there after `Accepted`. Or for **both**.
//!
//! What goes in datagrams is a connection of QUIC, version 1 (RFC 9000), which the peer begins. Its TLS speaks
//! `psp-relay-datagrams/3` (ALPN), and the relay proves itself in it by the same certificate as on the stream.
//!
//! **Connection ids** that the relay issues are 13 bytes: the shard and the connection (8 bytes) of the offer, and 4 that
//! differ. The destination id of the peer's first datagrams is shard, connection, and the first 8 bytes of BLAKE3
//! `derive_key("psp-relay v3 first id of a peer's datagrams", secret)`. The *secret* is the 32 bytes that both sides export
//! of the stream's TLS session (label `EXPORTER-psp-relay-datagrams`, no context). The relay drops what begins with another
//! id. So a datagram is steered by byte 1 of a short header, and by byte 6 of a long one.
//!
//! **Streams** are unidirectional. Each begins with a byte that says what it is:
//!
//! | kind | stream | what follows |
//! |---|---|---|
//! | 1 | messages, prompt | messages, each behind its length, as inside of the stream's TLS |
//! | 2 | messages, latest | the same |
//! | 3 | messages, in order | the same; the peer's begins with its proof |
//! | 4 | file bytes | index of a chunk, offset in it, tag as in a data frame (4 bytes each); bytes of that chunk, from that offset on |
//!
//! Each side opens a lane's stream once, and never ends it; there are as many of kind 4 as there are deliveries and
//! answers, and a long chunk may take several.
//!
//! **Proof.** The peer's first stream is the one of kind 3. Its first 32 bytes are keyed BLAKE3, under the secret, of the 32
//! bytes that QUIC's TLS session exports (label `EXPORTER-psp-relay-datagrams-proof`, empty context). The relay reads and sends
//! nothing else before it has them. With others it closes the connection.
//!
//! **Lanes.** `Fetch`, `FetchRefused`, `Ping` and `Pong` are prompt. `Progress` is latest: of those that wait only the newest
//! is sent. All others are in order. So a fetch may overtake a cancellation, or the other way round.
//!
//! **File bytes** come in any order, and may overlap what has come. A receiver puts them together and says `Lacking` at once
//! when it gives up what it has of a chunk. QUIC vouches for them: a side that sent wrong bytes lied. A sender that takes a
//! send back resets its streams. The code of a reset is how many file bytes the stream had been given; the receiver counts
//! those that have not come as received, in both figures of `Progress`, so that both sides' windows agree.
//!
//! **Path.** The peer sends something after [`DATAGRAM_KEEPALIVE_INTERVAL`](limits::DATAGRAM_KEEPALIVE_INTERVAL) in which it
//! had nothing to say. A relay that is not answered may send `Ping` on the stream: the peer then pings in a datagram. A
//! peer that hears nothing for [`DATAGRAM_ANSWER_TIMEOUT`](limits::DATAGRAM_ANSWER_TIMEOUT) at first gives up; a side that
//! hears nothing for [`DATAGRAM_SILENCE_TIMEOUT`](limits::DATAGRAM_SILENCE_TIMEOUT) later closes the stream.
//!
//! # Limits
//!
//! All of them are in [`limits`], with their reasons. Every length is checked before anything is
//! allocated by it, and a message beyond a limit is never handed on: it ends the connection
//! ([`DecodeError`]). A decoder holds back at most one control message; payload is not buffered.
//!
//! | what | most |
//! |---|---|
//! | body of a control message | 1,100 bytes: with its header it fits a datagram that every path carries |
//! | bitfield in one part | 1,024 bytes |
//! | digests in one part | 32 |
//! | ranges in one `Have` | 100, each of at least one chunk |
//! | chunks in one `Want` | 200 |
//! | text of a `Failure` | 512 bytes of UTF-8; show no control character of it |
//! | driver and congestion control in `Stats` | 32 bytes each |
//! | relays in an `Uplink` | 64 |
//! | text of a `Label` | 1 to 64 bytes of UTF-8, no white space at its ends, no character that does not show ([`check_label`]) |
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
//! | 3 | `SwarmRefused` | reports it: a publisher takes smaller chunks; a peer that gets a file that its origin gave up asks for another ticket |
//! | 4 | `Banned` | reports it; it is refused for this swarm |
//! | 5 | `Stalled` | connects again and goes on |
//! | 6 | `ChunksMissing` | reports how many; may try again when a holder is back |
//! | 7 | `ShuttingDown` | connects again later |
//! | 8 | `Internal` | connects again and goes on; of a publisher: the file is no longer what it was, and is not got from there any more |
//! | 9 | `LinkCorrupt` | connects again and goes on |
//! | 10 | `TransportRefused` | reports it: another transport may do |
//! | 11 | `DatagramsSilent` | connects again and goes on |
//! | 12 | `NotPublished` | connects again later: a peer that may publish the file may come |
//! | 13 | `UplinkRefused` | reports it, serves its peers without the uplink, and may try again later |
//!
//! # Tickets
//!
//! A user hands another a ticket: the relay's address and pin, the swarm key, the file's name, whether it may
//! be executed or is a bundle, and of a sealed file what opens it. The relay never sees it. Its form is specified in [`ticket`];
//! it has versions of its own.
//!
//! # Bundles
//!
//! What peers call a file may be a tree of them, as one string of bytes: a bundle. Its form is specified in [`bundle`];
//! it has versions of its own. Relay and swarm know no difference.
//!
//! # Sealed files
//!
//! What peers call a file may be the ciphertext of another: [`seal`] says how it is made. Nothing of that is on the
//! wire, and neither a relay nor a peer without the ticket can tell it from other files.
//!
//! # Versions
//!
//! There is one number, [`VERSION`](limits::VERSION), and no negotiation: sides of different versions
//! part in the handshake. Whatever changes a byte of a golden vector, or the meaning of one, is
//! another version. A message that is added behind the last is none. A side of an older build closes with
//! `Protocol` when such a message comes, so what needs one must be able to do without. The magic, the place of
//! the version and the length of the preamble never change.
//! Reserved bytes are sent as zero and refused otherwise, so that a later version may use them.
//!
//! [`CHUNK_SIZE_LOG2_MIN`]: limits::CHUNK_SIZE_LOG2_MIN
//! [`CHUNK_SIZE_LOG2_MAX`]: limits::CHUNK_SIZE_LOG2_MAX
//! [`CHUNK_COUNT_MAX`]: limits::CHUNK_COUNT_MAX
//!
//! # In code
//!
//! ```
//! use relay_protocol::{
//!     Decoder, Event, Message, MessageDecoder, encode_control, encode_message, encode_preamble,
//! };
//!
//! // What a side says goes through TLS, which is left out here, and into control frames.
//! let (mut said, mut stream) = (Vec::new(), encode_preamble().to_vec());
//! encode_message(&Message::Ping { token: 7 }, &mut said);
//! encode_control(&said, &mut stream);
//!
//! // However the bytes are cut, the same messages come out.
//! let (mut frames, mut messages) = (Decoder::new(), MessageDecoder::new());
//! let mut heard = Vec::new();
//! for mut input in stream.chunks(3) {
//!     while let Some(event) = frames.decode(&mut input)? {
//!         let Event::Control(mut piece) = event else { continue };
//!         heard.extend(messages.decode(&mut piece)?);
//!     }
//! }
//! assert_eq!(heard, [Message::Ping { token: 7 }]);
//! # Ok::<(), relay_protocol::DecodeError>(())
//! ```

mod check;

pub mod auth;
pub mod bitfield;
pub mod bundle;
pub mod codec;
pub mod crc;
pub mod datagram;
pub mod digest;
pub mod frame;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod name;
pub mod path;
pub mod pin;
pub mod pinned_relay;
pub mod rate;
pub mod rng;
pub mod run;
pub mod seal;
pub mod ticket;
pub mod time;
pub mod upload;

pub use auth::{Grant, Roles, Token, TokenDemand};
pub use bitfield::Bitfield;
pub use check::MessageError;
pub use codec::{
    Decoder, Event, MessageDecoder, decode_body, encode_body, encode_control, encode_message,
    encode_preamble,
};
pub use crc::frame_crc;
pub use datagram::{DataPieceHeader, DataStreamHeader, FrameError};
pub use digest::{ChunkHasher, Merger, digest_chunk, digest_file, merge_pairs};
pub use frame::{CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, DataHeader, DecodeError, PREAMBLE_BYTES};
pub use key::{Digest, KeyError, SwarmKey, chunk_size_log2_for};
pub use manifest::{Manifest, ManifestBuilder, ManifestError, ManifestHasher};
pub use message::{
    Accepted, Channel, ChunkRange, Claims, DatagramOffer, Failure, FailureCode, Hello, Message,
    Order, Seeding, Side, Stats, SwarmStatus, Welcome,
};
pub use name::{LabelFault, NameFault, check_label, check_name, fit_name, shown_name};
pub use pin::{Pin, PinError};
pub use pinned_relay::{PinnedRelay, PinnedRelayError};
pub use run::Run;
pub use seal::{Cipher, Sealed, ShareSecret, UserSecret};
pub use ticket::{RELAY_PORT, RelayAddr, RelayAddrError, Ticket, TicketError, TicketKind};
pub use upload::UploadKey;
