//! A TLS session whose bytes a script damages, or makes up.

use std::{io::Write as _, sync::Arc};

use relay_protocol::{Decoder, Event, Message, encode_preamble, limits::CONTROL_FRAME_BYTES_MAX};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{relay::relay_identity, script::Script};
use crate::secure::{Secure, SecureError, Trust};

/// Flights of each side, at most: two make a session.
const FLIGHTS_MAX: usize = 4;

/// Changes of one flight, at most.
const CHANGES_MAX: usize = 8;

/// First byte: whether the script makes one side's bytes up, changes what a real peer and relay say, or is a peer that
/// has begun TLS and keeps to no other rule. Whatever it does, each side hears what the other said or an error, and
/// tells of the error without a panic.
pub fn handshake(script: &[u8]) {
    let mut script = Script(script);
    let trust = Trust::pinned(relay_identity().pin());
    let (mut relay, mut peer) = (relay_identity().accept(), trust.connect("relay"));
    match script.byte() % 4 {
        0 => return invent(&mut script, relay),
        1 => return invent(&mut script, peer),
        2 => return misbehave(&mut script, relay, trust.config()),
        _ => {}
    }
    relay.push(&Message::Ping { token: 1 });
    peer.push(&Message::Ping { token: 2 });
    let (mut to_relay, mut to_peer) = (Vec::new(), Vec::new());
    for _ in 0..FLIGHTS_MAX {
        if !pass(&mut peer, &mut relay, &mut script, &mut to_relay)
            || !pass(&mut relay, &mut peer, &mut script, &mut to_peer)
        {
            break;
        }
    }
    assert!(to_relay.is_empty() || to_relay == [Message::Ping { token: 2 }], "{to_relay:?}");
    assert!(to_peer.is_empty() || to_peer == [Message::Ping { token: 1 }], "{to_peer:?}");
}

/// All that is left of the script is what the other side says, in frames that it cuts.
fn invent(script: &mut Script<'_>, mut end: Secure) {
    let mut heard = Vec::new();
    while !script.is_over() {
        let len = 1 + 8 * usize::from(script.byte());
        let piece = script.bytes(len.min(CONTROL_FRAME_BYTES_MAX));
        if open(&mut end, piece, &mut heard).is_err() {
            break;
        }
    }
    assert!(heard.is_empty(), "no key was agreed on: {heard:?}");
    end.seal(&mut Vec::new());
}

/// A peer with keys that says what the script wants, messages or not, in whole records or in parts.
fn misbehave(script: &mut Script<'_>, mut relay: Secure, config: ClientConfig) {
    let name = ServerName::try_from("relay").expect("a name");
    let mut peer = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    while relay.is_handshaking() || peer.is_handshaking() {
        take_records(&mut peer, &mut said);
        open(&mut relay, &std::mem::take(&mut said), &mut heard).expect("a handshake");
        let mut frames = encode_preamble().to_vec();
        relay.seal(&mut frames);
        let records = carried(&frames);
        let mut rest = &records[..];
        while !rest.is_empty() {
            peer.read_tls(&mut rest).expect("memory");
            peer.process_new_packets().expect("an honest relay");
        }
    }
    while !script.is_over() {
        match script.byte() % 8 {
            0 => peer.send_close_notify(),
            1 => drop(peer.refresh_traffic_keys()),
            2 => said.extend_from_slice(script.bytes(9)),
            3 => said.truncate(script.byte().into()),
            _ => {
                let len = script.byte().into();
                // One that has said farewell takes nothing more.
                drop(peer.writer().write_all(script.bytes(len)));
            }
        }
        take_records(&mut peer, &mut said);
        let piece: Vec<u8> = said.drain(..said.len().min(1 + script.byte() as usize * 8)).collect();
        if open(&mut relay, &piece, &mut heard).is_err() {
            break;
        }
        relay.seal(&mut Vec::new());
    }
    relay.seal(&mut Vec::new());
}

fn take_records(peer: &mut ClientConnection, records: &mut Vec<u8>) {
    while peer.wants_write() {
        peer.write_tls(records).expect("a vector takes everything");
    }
}

/// What frames carry behind a preamble.
fn carried(frames: &[u8]) -> Vec<u8> {
    let (mut decoder, mut input, mut carried) = (Decoder::new(), frames, Vec::new());
    while let Some(event) = decoder.decode(&mut input).expect("the other end made it") {
        if let Event::Control(piece) = event {
            carried.extend_from_slice(piece);
        }
    }
    carried
}

/// What one end has to say, changed, to the other; false once that one has had enough.
fn pass(
    from: &mut Secure,
    to: &mut Secure,
    script: &mut Script<'_>,
    heard: &mut Vec<Message>,
) -> bool {
    let mut frames = encode_preamble().to_vec();
    from.seal(&mut frames);
    let mut said = carried(&frames);
    for _ in 0..usize::from(script.byte()) % CHANGES_MAX {
        let at = script.number() as usize % (said.len() + 1);
        match script.byte() % 4 {
            0 if at < said.len() => said[at] ^= script.byte(),
            1 => drop(said.splice(at..at, script.bytes(3).iter().copied())),
            2 => said.truncate(at),
            _ => {
                let end = said.len().min(at + 1 + usize::from(script.byte()));
                said.drain(at..end);
            }
        }
    }
    let cut = 1 + usize::from(script.byte()) * 16;
    let opened = said.chunks(cut).try_for_each(|piece| open(to, piece, heard));
    // The last word of one that has had enough.
    if opened.is_err() {
        to.seal(&mut Vec::new());
    }
    opened.is_ok()
}

fn open(end: &mut Secure, mut piece: &[u8], heard: &mut Vec<Message>) -> Result<(), SecureError> {
    while end.open(&mut piece)? {
        while let Some(message) = end.poll_message()? {
            heard.push(message);
        }
    }
    Ok(())
}
