//! What programs say to people: on stderr, and never at the price of what they do.
//!
//! `eprintln!` ends the program where nobody reads stderr any more (`2>&1 | head`), or where the
//! disk of a log is full. What is said here is lost then, and nothing else.

use std::{
    fmt::Display,
    io::{Write as _, stderr},
};

/// A line.
pub fn say(text: impl Display) {
    writeln!(stderr().lock(), "{text}").ok();
}

/// Without an end of the line.
pub fn write(text: impl Display) {
    write!(stderr().lock(), "{text}").ok();
}
