//! The contract between sessions and whatever moves their frames.
//!
//! A session has a **control channel** (messages, no file bytes) and a **data channel** (frames
//! of file bytes). A transport moves frames and knows no meaning; sessions and swarms don't know
//! which one they run on. Which channel runs on what is a [`Transport`]:
//!
//! | `--transport` | control | data |
//! |---|---|---|
//! | `tcp` | the stream | the stream |
//! | `udp-control` | datagrams | the stream |
//! | `udp-data` | the stream | datagrams |
//! | `quic` | datagrams | datagrams |
//!
//! Every connection has a **stream** (TCP). Its handshake, up to and with `Accepted`, and the last
//! word, `Failure`, go over the stream whatever the transport; the connection lives exactly as long
//! as its stream. So each side can close, name a reason, and notice the other's end, though no
//! datagram gets through.
//!
//! # What a transport promises
//!
//! - *Control*: each message that is pushed is handed to the other side's session exactly once,
//!   unless the connection ends. Messages of [`Lane::InOrder`] come in the order in which they
//!   were pushed. Those of [`Lane::Prompt`] come as soon as they can, before or after others. Of
//!   [`Lane::Latest`] only the newest is sure to come: older ones may be left out, or come late.
//!   A message never waits behind data that was not yet given to the kernel.
//! - *Data*: what is pushed arrives at most once. Sends are begun in the order in which they
//!   were pushed. On a stream all of it arrives, and the frames of one send in the order of their
//!   offsets. In datagrams pieces come in any order, all of them as long as they are not withdrawn; the other
//!   side must be read from and able to answer.
//! - *Pinning*: on a stream a chunk is pinned only while one non-blocking write call runs. Between calls a
//!   send is a position; [`Payload::withdraw`] takes the bytes away at any time, and at most one
//!   half-written frame is copied. In datagrams what was given to QUIC is kept until it has arrived, by reference,
//!   and bounded by what the caller allows; cutting a send off lets go of it at once.
//! - *Events*: each send that wrote its first frame reports [`SendEvent::Begun`], each that wrote its last
//!   [`SendEvent::Finished`], both in order; in datagrams, when all has arrived. One that was withdrawn or
//!   cancelled reports nothing further.
//! - *Closing*: either side may close; the other reads the end of the stream after everything
//!   that was written to the stream before. A side that closes sends a `Failure` first if something
//!   was wrong, and that arrives. Other control messages under way in datagrams may be lost with
//!   the connection: nothing depends on a message that was followed by the end. Either direction
//!   of the stream may be closed first; what comes the other way is still received.
//! - *Back-pressure*: a side that does not read takes no messages either; what waits for it is
//!   counted by [`Channels::control_bytes`], and the caller bounds it.
//!
//! # What it does not promise
//!
//! Order between control and data, or between lanes; timing; or that what was written has arrived
//! (that is what `Progress` and `Have` are for).
//!
//! # Where it is
//!
//! [`Channels`] is one end of a connection, and the one place that knows which channel runs on what.
//! [`send_queue`] and [`tcp`] (into a [`receive_buffer`]) are the stream's two directions. [`datagrams`] is
//! what goes in datagrams. A further transport is one more file here,
//! one more variant of [`Transport`], and its arm in [`Channels`].
//!
//! ```
//! use std::rc::Rc;
//!
//! use bytes::Bytes;
//! use relay_transport::{Payload, SendQueue};
//!
//! let mut queue = SendQueue::new();
//! queue.push_preamble();
//! // A send is a position in a chunk that others send as well.
//! let chunk = Payload::with_crcs_of(3, Bytes::from_static(&[0; 100]));
//! queue.push_data(Rc::clone(&chunk), 1, 0);
//! assert!(queue.has_urgent() && !queue.is_empty());
//! ```

pub mod channels;
pub mod chunk_bytes;
pub mod datagrams;
pub mod dialogue;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
pub mod lane;
pub mod payload;
pub mod ranges;
pub mod receive_buffer;
pub mod secure;
pub mod send_queue;
pub mod tcp;

pub use channels::Channels;
pub use chunk_bytes::{ChunkBytes, LENT_BYTES_MAX, LENT_BYTES_MIN, LentChunk};
pub use datagrams::{Datagrams, DatagramsConfig};
pub use dialogue::{Dialogue, DialogueError, Heard};
pub use lane::{Lane, Route, Transport};
pub use payload::Payload;
pub use receive_buffer::{FRAMES_PER_READ_MAX, ReadError, ReceiveBuffer};
pub use secure::{Identity, Secure, SecureError, Trust};
pub use send_queue::{SendEvent, SendQueue, WRITE_BYTES_MAX, Written};
pub use tcp::{ReadOutcome, Reader};
