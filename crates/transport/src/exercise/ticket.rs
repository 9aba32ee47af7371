//! The ticket: whatever is pasted, only what was written is read, and what was read can be written.

use relay_protocol::ticket::Ticket;

/// First byte: whether the rest is a text, or what a right checksum was made of.
pub fn ticket(script: &[u8]) {
    let Some((&how, rest)) = script.split_first() else { return };
    let read = match how % 2 {
        0 => String::from_utf8_lossy(rest).parse::<Ticket>(),
        _ => Ticket::decode(rest),
    };
    let Ok(ticket) = read else { return };
    assert!(ticket.key.validate().is_ok(), "the key is of a possible file");
    let text = ticket.to_string();
    assert_eq!(text.parse::<Ticket>().as_ref(), Ok(&ticket), "what was read can be written");
    // One character altered, wherever, is noticed.
    let at = usize::from(how >> 1) % text.len();
    let mut altered = text.into_bytes();
    altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
    let altered = String::from_utf8(altered).expect("plain letters");
    assert!(altered.parse::<Ticket>().is_err(), "altered at {at}: {altered}");
}
