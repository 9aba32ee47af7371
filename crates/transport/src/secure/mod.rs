//! TLS 1.3 around what is said on a stream: messages in, control frames out, and back.
//!
//! The bytes of TLS (RFC 8446) travel in control frames, beside the data frames, which stay as they are: what
//! they carry is sealed already, and one copy of it serves all peers. Inside of TLS messages follow one another,
//! each behind its length. All that a write finds waiting goes in one record.
//!
//! ```text
//!  trust, identity    which relay a peer believes, what a relay proves itself by: make the ends of a session
//!    │        ╲
//!  session    crypto  what is said, sealed; the ciphers
//! ```
//!
//! Opens no socket.
//!
//! The end of the stream is not authenticated: each side may close at any time, and nothing follows from the
//! other's silence. So no `close_notify` is sent, and none is missed.

mod crypto;
pub mod identity;
pub mod session;
pub mod trust;

pub use self::{
    crypto::pin_of,
    identity::Identity,
    session::{Secure, SecureError, WrongPin},
    trust::Trust,
};

#[cfg(test)]
mod tests;
