//! What reads strangers' bytes, by the names of the fuzz targets that drive it (see `fuzz/`); the tests replay
//! their corpus. Not part of a product build.

pub use relay_client::exercise::peer_session;
pub use relay_server::exercise::server_session;
pub use relay_transport::{
    datagrams::exercise::datagrams,
    exercise::{bundle, decoder, handshake, manifest, ticket},
};

/// What one fuzz target runs on its input.
pub type Entry = fn(&[u8]);

/// All entry points, by the name of their fuzz target.
pub const ALL: [(&str, Entry); 8] = [
    ("bundle", bundle),
    ("datagrams", datagrams),
    ("decoder", decoder),
    ("handshake", handshake),
    ("manifest", manifest),
    ("ticket", ticket),
    ("server_session", server_session),
    ("peer_session", peer_session),
];

#[cfg(test)]
mod tests;
