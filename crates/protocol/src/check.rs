//! The limits that a message keeps, checked on both ways: what comes in is refused, what would go
//! out is our bug. Whether a message fits the state of a session or the size of its swarm is not
//! judged here.

use super::{
    key::KeyError,
    limits::{
        BITFIELD_PART_BYTES_MAX, CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, FAILURE_TEXT_BYTES_MAX,
        HAVE_RANGES_MAX, MANIFEST_PART_DIGESTS_MAX, RELAYS_BELOW_MAX, STATS_NAME_BYTES_MAX,
        WANT_CHUNKS_MAX,
    },
    message::{ChunkRange, Message},
    name::{LabelFault, check_label},
};

/// What is wrong with a control message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// The bytes are no message.
    #[error("a control message can't be read: {0}")]
    Malformed(#[from] postcard::Error),
    /// The body is longer than its message.
    #[error("{0} bytes follow a control message within its frame")]
    TrailingBytes(usize),
    /// A list or text that is too long.
    #[error("{what} of {length} in one message, at most {length_max} are allowed")]
    TooLong {
        /// Which list.
        what: &'static str,
        /// Its length, in bytes or items.
        length: usize,
        /// The most there may be.
        length_max: usize,
    },
    /// A run of no chunks.
    #[error("a range of no chunks at chunk {0}")]
    EmptyRange(u32),
    /// Chunks that no file has.
    #[error("chunks up to {0} are beyond the {CHUNK_COUNT_MAX} that a file may have")]
    ChunkBeyond(u64),
    /// The relay names a largest chunk that there can't be.
    #[error("a largest chunk of 2^{0} bytes, there is none above 2^{CHUNK_SIZE_LOG2_MAX}")]
    ChunkSizeMax(u8),
    /// The swarm key can't be used.
    #[error("the swarm key is not valid: {0}")]
    Key(#[from] KeyError),
    /// The label can't be shown.
    #[error("a label that {0}")]
    Label(#[from] LabelFault),
}

/// Checks every limit that a message has by itself.
pub(super) fn message(message: &Message) -> Result<(), MessageError> {
    match message {
        Message::Welcome(welcome) if welcome.chunk_size_log2_max > CHUNK_SIZE_LOG2_MAX => {
            Err(MessageError::ChunkSizeMax(welcome.chunk_size_log2_max))
        }
        Message::Hello(hello) => Ok(hello.key.map_or(Ok(()), |key| key.validate())?),
        Message::BitfieldPart { offset_bytes, bytes } => {
            list("a bitfield part", bytes.len(), BITFIELD_PART_BYTES_MAX)?;
            chunks_end((u64::from(*offset_bytes) + bytes.len() as u64) * 8)
        }
        Message::ManifestPart { first_chunk, digests } => {
            list("a manifest part", digests.len(), MANIFEST_PART_DIGESTS_MAX)?;
            chunks_end(u64::from(*first_chunk) + digests.len() as u64)
        }
        Message::Uplink { below } => list("a list of relays", below.len(), RELAYS_BELOW_MAX),
        Message::Have { ranges } | Message::Available { ranges, .. } | Message::Lost { ranges } => {
            list("a list of ranges", ranges.len(), HAVE_RANGES_MAX)?;
            ranges.iter().try_for_each(range)
        }
        Message::Want { chunks } => {
            list("a list of chunks", chunks.len(), WANT_CHUNKS_MAX)?;
            chunks.iter().try_for_each(|&chunk| chunks_end(u64::from(chunk) + 1))
        }
        Message::Lacking { chunk } | Message::Fetch { chunk, .. } => {
            chunks_end(u64::from(*chunk) + 1)
        }
        Message::Stats(stats) => {
            list("a driver's name", stats.driver.len(), STATS_NAME_BYTES_MAX)?;
            list("a congestion control's name", stats.congestion.len(), STATS_NAME_BYTES_MAX)
        }
        Message::Failure(failure) => {
            list("a failure's text", failure.text.len(), FAILURE_TEXT_BYTES_MAX)
        }
        Message::Label { text } => Ok(check_label(text)?),
        Message::Welcome(_)
        | Message::Accepted(_)
        | Message::ManifestRequest
        | Message::ManifestRefused
        | Message::Progress { .. }
        | Message::CancelFetch { .. }
        | Message::FetchRefused { .. }
        | Message::Waiting { .. }
        | Message::SeedingDone
        | Message::Leaving
        | Message::LeaveGranted
        | Message::StatsRequest
        | Message::DatagramRequest { .. }
        | Message::DatagramOffer(_)
        | Message::Ping { .. }
        | Message::Pong { .. }
        | Message::SwarmStatusRequest
        | Message::SwarmStatus(_) => Ok(()),
    }
}

fn list(what: &'static str, length: usize, length_max: usize) -> Result<(), MessageError> {
    if length > length_max {
        return Err(MessageError::TooLong { what, length, length_max });
    }
    Ok(())
}

fn range(range: &ChunkRange) -> Result<(), MessageError> {
    if range.count == 0 {
        return Err(MessageError::EmptyRange(range.first));
    }
    chunks_end(u64::from(range.first) + u64::from(range.count))
}

/// Checks the index after the last chunk that a message names.
fn chunks_end(end: u64) -> Result<(), MessageError> {
    if end > u64::from(CHUNK_COUNT_MAX) {
        return Err(MessageError::ChunkBeyond(end));
    }
    Ok(())
}
