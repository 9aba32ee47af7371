//! The contract between sessions and whatever moves their frames.
//!
//! A session has a **control channel** (messages, no file bytes) and a **data channel** (frames
//! of file bytes). A transport moves frames and knows no meaning. What it promises:
//!
//! - *Control*: what is pushed arrives whole, in order among control messages, or the connection
//!   fails with an error. A message may overtake data that was pushed earlier but not yet given
//!   to the kernel; it never waits behind it.
//! - *Data*: what is pushed arrives at most once. Frames of one send arrive in the order of
//!   their offsets. Sends are begun in the order in which they were pushed.
//! - *Pinning*: a chunk is pinned only while one non-blocking write call runs. Between calls a
//!   send is a position; [`Payload::withdraw`] takes the bytes away at any time, and at most one
//!   half-written frame is copied.
//! - *Events*: each send that wrote its first frame reports [`SendEvent::Begun`], each that wrote
//!   its last [`SendEvent::Finished`], both in order. A withdrawn or cancelled one reports
//!   nothing further.
//! - *Closing*: either side may close; the other reads the end of the stream after everything
//!   that was written before. Whoever closes sends a `Failure` first if something was wrong.
//!
//! What it does not promise: order between control and data, timing, or that what was written
//! has arrived (that is what `Progress` and `Have` are for).
//!
//! | file | control | data |
//! |---|---|---|
//! | [`tcp`] | TCP | the same connection |
//!
//! A further transport is one more file here. [`send_queue`] is what all that write to a byte
//! stream share.

pub mod payload;
pub mod send_queue;
pub mod tcp;

use crate::protocol::{DATA_HEADER_BYTES, limits::FRAME_PAYLOAD_BYTES_MAX};

pub use payload::Payload;
pub use send_queue::{SendEvent, SendQueue, Written};
pub use tcp::{ReadError, ReadOutcome, Reader};

/// Bytes of one gathered write, at most. Larger ones gain nothing (see BENCHMARKS.md), and one
/// connection would hold up its shard's others for longer.
pub const WRITE_BYTES_MAX: usize = 256 << 10;

/// Bytes of one read, at most: a shard has one such buffer for all its connections. A whole
/// number of full data frames, so that a busy stream's frames are seldom split between two reads
/// and BLAKE3 gets them whole.
pub const READ_BYTES_MAX: usize = 16 * (DATA_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX);
