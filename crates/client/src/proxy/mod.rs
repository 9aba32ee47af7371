//! The way to a relay through a proxy: SOCKS 5, or CONNECT of HTTP.
//!
//! ```text
//!  rules        which relay is reached through the proxy, and which directly
//!    └─ exceptions   PURE: NO_PROXY
//!  tunnel       SHELL: a connection to the proxy, and through it to the relay
//!    └─ handshake    PURE: what is said to the proxy until it is a tunnel
//!         ├─ socks        SOCKS 5 (RFC 1928), with user name and password (RFC 1929)
//!         └─ connect      CONNECT of HTTP (RFC 9110)
//!  url          PURE: a proxy as users write it
//!  fault        what can go wrong
//! ```
//!
//! Reads no environment, and carries no datagrams: a proxy passes streams.

mod connect;
mod exceptions;
mod fault;
mod handshake;
mod rules;
mod socks;
mod tunnel;
mod url;

pub use self::{
    exceptions::NoProxy,
    fault::{ProxyError, ProxyFault},
    handshake::Handshake,
    rules::Proxies,
    url::{Proxy, ProxyKind, ProxyUrlError},
};
pub(crate) use tunnel::open;
