//! What every program of ours needs: command lines, results on stdout, messages on stderr, and what the machine
//! allows.
//!
//! Knows no sockets, event loops or files to be shared.

pub mod allocator;
pub mod arguments;
pub mod buffers;
pub mod certificates;
pub mod known_relays;
pub mod log_level;
pub mod machine;
pub mod pages;
pub mod places;
pub mod secret_file;
pub mod signals;
pub mod stderr;
pub mod stdout;
pub mod token_file;
