//! What a stream of the other side's has next.

use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId};

/// What a stream has next.
pub(super) enum Next {
    Bytes(Bytes),
    /// Nothing for now.
    Blocked,
    /// All was read.
    Ended,
    /// The other side takes back what was not read; so many bytes it had given to the stream, as it says.
    Reset(u64),
}

/// Its next bytes in order, at most so many.
pub(super) fn next(connection: &mut Connection, id: StreamId, bytes_max: u64) -> Next {
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Next::Ended };
    let next = match chunks.next(most) {
        Ok(Some(chunk)) => Next::Bytes(chunk.bytes),
        Ok(None) => Next::Ended,
        Err(ReadError::Blocked) => Next::Blocked,
        Err(ReadError::Reset(code)) => Next::Reset(code.into_inner()),
    };
    // What is dropped counts as read. Whether that is to be told is asked after each step anyway.
    drop(chunks);
    next
}
