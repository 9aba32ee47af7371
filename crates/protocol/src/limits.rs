//! Every limit that the wire format has, with its reason. Nothing else spells one.

use std::time::Duration;

/// Opens every stream, in both directions: wrong magic closes the connection at once.
pub const MAGIC: [u8; 8] = *b"PSPRELAY";

/// Version of the wire format. A relay and a peer of different versions part at once.
pub const VERSION: u16 = 3;

/// File bytes in one data frame, at most. Small enough that a half-written frame may be copied
/// (it is part of the constant per connection), and gathering makes small frames free.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// [`FRAME_PAYLOAD_BYTES_MAX`], where lengths within a chunk are computed.
pub const FRAME_PAYLOAD_LEN_MAX: u32 = 16 << 10;

/// Bytes of what one control frame carries, at most. Below the longest record of TLS (RFC 8446, 5.2): a longer
/// record takes two frames.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 << 10;

/// Bytes of a TLS handshake from either side, at most: a chain of some certificates fits. Bounds what a side
/// holds for the other before it knows who that is.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32 << 10;

/// Bytes of TLS that say nothing, at most, once the handshake is over: the longest record (RFC 8446, 5.2), and some that
/// only renew keys.
pub const TLS_RECORD_BYTES_MAX: usize = 18 << 10;

/// Bytes that both sides export of their TLS session for the checksums of what the peer supplies.
pub const UPLOAD_SECRET_BYTES: usize = 32;

/// Bytes of one control message's body, at most: with its header it fits one datagram that every path carries, so
/// none waits for another datagram that was lost.
pub const CONTROL_BODY_BYTES_MAX: usize = 1100;

/// Bytes of a bitfield in one [`super::Message::BitfieldPart`], at most.
pub const BITFIELD_PART_BYTES_MAX: usize = 1024;

/// Digests in one [`super::Message::ManifestPart`], at most: 32 of 32 bytes are 1 KiB.
pub const MANIFEST_PART_DIGESTS_MAX: usize = 32;

/// Ranges in one [`super::Message::Have`], [`super::Message::Available`] or [`super::Message::Lost`], at most.
pub const HAVE_RANGES_MAX: usize = 100;

/// Relays that one uplink names, at most: their numbers are 640 bytes at most, which fits a message. Of more it names
/// some: they only tell circles.
pub const RELAYS_BELOW_MAX: usize = 64;

/// Chunks in one [`super::Message::Want`], at most.
pub const WANT_CHUNKS_MAX: usize = 200;

/// Chunks that a peer in peer order may want at once; more are ignored until some arrived.
pub const WANTS_PER_PEER_MAX: usize = 1024;

/// Bytes of text in a [`super::Failure`], at most.
pub const FAILURE_TEXT_BYTES_MAX: usize = 512;

/// Bytes of a short name (driver, congestion control) in [`super::Stats`], at most.
pub const STATS_NAME_BYTES_MAX: usize = 32;

/// Chunks of one file, at most: bounds a manifest (8 MiB) and a bitfield (32 KiB). Larger files
/// take larger chunks.
pub const CHUNK_COUNT_MAX: u32 = 1 << 18;

/// Smallest chunk: BLAKE3's own, below which there is no subtree.
pub const CHUNK_SIZE_LOG2_MIN: u8 = 10;

/// Largest chunk, 16 MiB: with [`CHUNK_COUNT_MAX`] files of 4 TiB.
pub const CHUNK_SIZE_LOG2_MAX: u8 = 24;

/// Bytes of the largest chunk.
pub const CHUNK_BYTES_MAX: u64 = 1 << CHUNK_SIZE_LOG2_MAX;

/// The chunk that publishers choose unless told otherwise, 256 KiB: see BENCHMARKS.md.
pub const CHUNK_SIZE_LOG2_DEFAULT: u8 = 18;

/// The chunk that they choose for large files, at most: 1 MiB. Larger ones were no faster.
pub const CHUNK_SIZE_LOG2_DEFAULT_MAX: u8 = 20;

/// How far above the size that the relay's welcome names a chunk may be, as a binary logarithm:
/// the welcome names an eighth of the cache, and four chunks are the least that it works with.
pub const CHUNK_SIZE_LOG2_SLACK: u8 = 1;

/// Chunks that a receiver may hold in part, at most: a recall leaves one, and the relay goes on
/// with it before it begins another. When a further one begins, the oldest is dropped.
pub const PARTIAL_CHUNKS_MAX: usize = 16;

/// Fetches that the relay has outstanding at one peer, at most: 64 MiB of chunks of 256 KiB, which is what a
/// path of 1 Gbit/s and 300 ms holds, and half as much again.
pub const FETCHES_PER_PEER_MAX: usize = 256;

/// A connection that has not introduced itself by then is closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Length of what binds a token's proof to one TLS session (RFC 9266).
pub const BINDING_BYTES: usize = 32;

/// Length of a relay's pin. Making a second key with the pin of a given one takes 2^128 attempts.
pub const PIN_BYTES: usize = 16;

/// Length of the secret that proves a connection's datagrams to belong to its stream.
pub const DATAGRAM_SECRET_BYTES: usize = 32;

/// Streams of QUIC that one side may have open: lanes, and deliveries under way. More would be read no faster.
pub const DATAGRAM_STREAMS_MAX: u32 = 256;

/// A peer that has nothing to say pings so often: address translators forget a silent path.
pub const DATAGRAM_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Datagrams that were never answered are given up after this.
pub const DATAGRAM_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Three keep-alives that did not come: the datagrams' path is gone.
pub const DATAGRAM_SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// Bytes of a token, at most, without the white space around it: any secret that a person or a program
/// makes. None travels; this bounds what is read and compared.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Bytes of a host's name, at most: DNS has no longer ones.
pub const HOST_BYTES_MAX: usize = 253;

/// Bytes of an interface's name behind a link-local address, at most: Linux has no longer ones.
pub const INTERFACE_BYTES_MAX: usize = 15;

/// Bytes of a file's name in a ticket, at most: file systems have no longer ones.
pub const TICKET_NAME_BYTES_MAX: usize = 255;

/// Bytes of a file's label, at most: it is shown in a line beside other things, as a title is. A line of Latin
/// letters, or 21 characters of Chinese.
pub const LABEL_BYTES_MAX: usize = 64;

/// Length of a ticket's checksum: one damaged ticket in 2^32 is not noticed by it.
pub const TICKET_CHECKSUM_BYTES: usize = 4;

/// Relays that a ticket names, at most: the one that serves, and some to go on with when it is gone.
pub const TICKET_RELAYS_MAX: usize = 4;

/// Characters of a ticket without what surrounds and breaks it, at most: longest hosts, ports and
/// name, the key, the secret, and lengths, 5 bits in each character.
pub const TICKET_CHARS_MAX: usize = 2560;

/// Length of a user's secret, from which those of the user's shares are made.
pub const USER_SECRET_BYTES: usize = 32;

/// Length of a share's secret: what a ticket carries of a key. Guessing one takes 2^127 attempts.
pub const SHARE_SECRET_BYTES: usize = 16;

/// Length of the key of a sealed file: of AES-256.
pub const FILE_KEY_BYTES: usize = 32;

/// Bytes of text that may hold a ticket, at most, with all the white space that mail programs put
/// into it. What is longer is not looked at.
pub const TICKET_TEXT_BYTES_MAX: usize = 16 << 10;

/// Opens every bundle: what is shared of directories and of several paths.
pub const BUNDLE_MAGIC: [u8; 8] = *b"PSPBUNDL";

/// Version of the format of bundles.
pub const BUNDLE_VERSION: u8 = 1;

/// Entries of a bundle, at most: a large source tree with its history has a tenth of them. With what a getter
/// keeps of each beside the index, 16 bytes, they take 16 MiB.
pub const BUNDLE_ENTRIES_MAX: usize = 1 << 20;

/// Bytes of a bundle's index, at most: 64 for each entry, if there are as many as may be. A getter holds all of it,
/// and must have it before it can write the first file.
pub const BUNDLE_INDEX_BYTES_MAX: usize = 64 << 20;

/// Bytes of a path in a bundle and of a link's target, at most: Linux takes no longer ones (`PATH_MAX`).
pub const BUNDLE_PATH_BYTES_MAX: usize = 4096;

/// Bytes of one component of them, at most: file systems have no longer ones (`NAME_MAX`).
pub const BUNDLE_NAME_BYTES_MAX: usize = 255;

/// Components of a path in a bundle, at most: a getter may hold a directory open for each.
pub const BUNDLE_LEVELS_MAX: usize = 64;

/// Bytes of a whole bundle, at most: what a swarm takes in its largest chunks, 4 TiB.
pub const BUNDLE_BYTES_MAX: u64 = (CHUNK_COUNT_MAX as u64) << CHUNK_SIZE_LOG2_MAX;

/// Bytes of a pattern for names in a bundle, at most: it need not be longer than what it names.
pub const GLOB_BYTES_MAX: usize = BUNDLE_PATH_BYTES_MAX;

const _: () = {
    assert!(DATAGRAM_SILENCE_TIMEOUT.as_millis() >= 3 * DATAGRAM_KEEPALIVE_INTERVAL.as_millis());
    assert!(
        (TICKET_RELAYS_MAX * (HOST_BYTES_MAX + 10)
            + TICKET_NAME_BYTES_MAX
            + PIN_BYTES
            + SHARE_SECRET_BYTES
            + 128)
            * 8
            <= TICKET_CHARS_MAX * 5
    );
    assert!(TICKET_CHARS_MAX < TICKET_TEXT_BYTES_MAX);
    assert!(MANIFEST_PART_DIGESTS_MAX * 32 + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(BITFIELD_PART_BYTES_MAX + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(HAVE_RANGES_MAX * 10 + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(WANT_CHUNKS_MAX * 5 + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(LABEL_BYTES_MAX + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(FAILURE_TEXT_BYTES_MAX + 16 <= CONTROL_BODY_BYTES_MAX);
    assert!(FRAME_PAYLOAD_LEN_MAX as usize == FRAME_PAYLOAD_BYTES_MAX);
    assert!(FRAME_PAYLOAD_BYTES_MAX <= u16::MAX as usize);
    assert!(CHUNK_SIZE_LOG2_DEFAULT >= CHUNK_SIZE_LOG2_MIN);
    assert!(CHUNK_SIZE_LOG2_DEFAULT <= CHUNK_SIZE_LOG2_DEFAULT_MAX);
    assert!(CHUNK_SIZE_LOG2_DEFAULT_MAX <= CHUNK_SIZE_LOG2_MAX);
    assert!(BUNDLE_INDEX_BYTES_MAX <= u32::MAX as usize);
    assert!((BUNDLE_INDEX_BYTES_MAX as u64) < BUNDLE_BYTES_MAX);
    assert!(BUNDLE_NAME_BYTES_MAX <= BUNDLE_PATH_BYTES_MAX);
};

/// Shards that datagrams can be steered to: as many as one byte has values.
pub const DATAGRAM_SHARDS_MAX: usize = 1 << u8::BITS;
