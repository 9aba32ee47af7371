//! A data channel in datagrams: what is sent of chunks and what has come, as state machines.
//!
//! ```text
//!  push ─► outgoing: sends, each with the ranges that it lacks ─► pieces ─► a datagram each
//!                │ ▲ lost: lacking again                            │ how many: congestion, the other side's room
//!                │ └── acknowledged packet numbers (DataAck, over the control channel) ◄── incoming
//!                └─► begun, finished
//! ```
//!
//! Pure: no socket, no clock, no chance. Sealing, packet numbers and addresses are
//! [`super::Datagrams`]' business. **Nothing is kept to be sent again**: a send holds its payload
//! as on a stream, until all of it has arrived or it is withdrawn, and a range that was lost is a
//! range that the send lacks, like one that was never sent.

mod arrivals;
mod congestion;
mod mtu;
mod outgoing;
mod ranges;
mod sends;

pub use self::{
    arrivals::DataIn,
    congestion::CongestionControl,
    outgoing::{DataCounts, DataOut},
    ranges::RangeSet,
    sends::Piece,
};

#[cfg(test)]
mod tests;
