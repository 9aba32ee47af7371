//! TLS in control frames: who is believed, what is bound, and what becomes of every damaged bit.

use std::net::IpAddr;

use rustls::{RootCertStore, pki_types::CertificateDer};

use super::*;
use crate::exercise::{other_identity, relay_identity};
use relay_protocol::{
    Decoder, Event, Message, encode_control, encode_preamble, limits::TLS_HANDSHAKE_BYTES_MAX,
};

/// What one end has for the stream, without the preamble.
fn frames(secure: &mut Secure) -> Vec<u8> {
    let mut frames = Vec::new();
    secure.seal(&mut frames);
    frames
}

/// Hands frames to an end; the messages that it hears.
fn hear(secure: &mut Secure, frames: &[u8]) -> Result<Vec<Message>, SecureError> {
    let stream = [&encode_preamble()[..], frames].concat();
    let (mut decoder, mut input, mut messages) = (Decoder::new(), &stream[..], Vec::new());
    while let Some(event) = decoder.decode(&mut input)? {
        let Event::Control(mut piece) = event else { continue };
        while secure.open(&mut piece)? {
            while let Some(message) = secure.poll_message()? {
                messages.push(message);
            }
        }
    }
    Ok(messages)
}

/// Both ends speak until they have begun, or one fails.
fn shake_hands(relay: &mut Secure, peer: &mut Secure) -> Result<(), SecureError> {
    while relay.is_handshaking() || peer.is_handshaking() {
        hear(relay, &frames(peer))?;
        hear(peer, &frames(relay))?;
    }
    Ok(())
}

fn pair() -> (Secure, Secure) {
    let (mut relay, mut peer) =
        (relay_identity().accept(), Trust::pinned(relay_identity().pin()).connect("relay"));
    shake_hands(&mut relay, &mut peer).expect("they belong together");
    (relay, peer)
}

fn ping(token: u64) -> Message {
    Message::Ping { token }
}

#[test]
fn what_is_said_is_heard_and_shows_nowhere_on_the_way() {
    let (mut relay, mut peer) = pair();
    let text = "a label that shows".to_owned();
    let label = Message::Label { text: text.clone() };
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut relay, &mut peer];
        ends[from].push(&label);
        ends[from].push(&ping(7));
        let sealed = frames(ends[from]);
        assert!(!sealed.windows(text.len()).any(|window| window == text.as_bytes()));
        assert_eq!(hear(ends[to], &sealed).expect("sealed"), [label.clone(), ping(7)]);
    }
}

#[test]
fn what_is_said_too_early_waits_and_the_welcome_comes_with_the_relays_proof() {
    let mut relay = relay_identity().accept();
    let mut peer = Trust::first_seen().connect("relay");
    peer.push(&ping(1));
    relay.push(&ping(2));
    assert!(!relay.wants_write(), "nothing can be said before the other side was heard");
    let first = frames(&mut peer);
    assert!(hear(&mut relay, &first).expect("a handshake").is_empty());
    let proof = frames(&mut relay);
    assert_eq!(hear(&mut peer, &proof).expect("a handshake"), [ping(2)]);
    assert!(!peer.is_handshaking() && relay.is_handshaking());
    assert_eq!(hear(&mut relay, &frames(&mut peer)).expect("a handshake"), [ping(1)]);
}

#[test]
fn both_sides_export_the_same_and_other_sessions_something_else() {
    let (mut relay, mut peer) = pair();
    let binding = relay.poll_secured().expect("it has begun");
    assert_eq!(peer.poll_secured(), Some(binding));
    assert_eq!((relay.poll_secured(), peer.poll_secured()), (None, None), "it is told once");
    let (mut other, _) = pair();
    assert_ne!(other.poll_secured(), Some(binding));
    assert_eq!(relay_identity().accept().poll_secured(), None);
}

#[test]
fn a_relay_with_another_key_is_refused_and_hears_so() {
    let expected = relay_identity().pin();
    let impostor = other_identity();
    let (mut relay, mut peer) = (impostor.accept(), Trust::pinned(expected).connect("relay"));
    let error = shake_hands(&mut relay, &mut peer).expect_err("it is another");
    let SecureError::WrongPin(wrong) = error else { panic!("{error}") };
    assert_eq!((wrong.expected, wrong.found), (expected, impostor.pin()));
    let told = hear(&mut relay, &frames(&mut peer)).expect_err("it is told");
    assert!(matches!(told, SecureError::Refused(_)), "{told}");
}

#[test]
fn the_first_relay_is_believed_and_then_no_other() {
    let trust = Trust::first_seen();
    assert_eq!(trust.pin(), None);
    let first = relay_identity();
    shake_hands(&mut first.accept(), &mut trust.connect("relay")).expect("the first");
    assert_eq!(trust.pin(), Some(first.pin()));
    shake_hands(&mut first.accept(), &mut trust.clone().connect("relay")).expect("the same");
    let other = shake_hands(&mut other_identity().accept(), &mut trust.connect("relay"));
    assert!(matches!(other, Err(SecureError::WrongPin(_))));
}

/// A relay whose certificate names this host and is signed by the authority that is returned.
fn vouched_for(host: &str) -> (Identity, RootCertStore) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("signed").der().clone();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([host.to_owned()]).expect("a name");
    let certificate = params.signed_by(&own, &issuer).expect("signed").der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.serialize_der());
    let identity = Identity::new(vec![certificate], key.into()).expect("they belong together");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).expect("an authority");
    (identity, roots)
}

#[test]
fn a_relay_that_an_authority_vouches_for_is_believed_by_its_name_alone() {
    let (identity, roots) = vouched_for("relay.example");
    let trust = Trust::of_authorities(roots, None);
    let host = "relay.example";
    assert!(!trust.is_vouched_for());
    shake_hands(&mut identity.accept(), &mut trust.connect(host)).expect("it is vouched for");
    assert_eq!(trust.pin(), Some(identity.pin()), "tickets name its key");
    assert!(trust.is_vouched_for());
    let other = shake_hands(&mut identity.accept(), &mut trust.connect("other.example"));
    assert!(matches!(other, Ok(())), "its key was seen");
    let (identity, roots) = vouched_for("relay.example");
    let trust = Trust::of_authorities(roots.clone(), None);
    let other = shake_hands(&mut identity.accept(), &mut trust.connect("other.example"));
    assert!(matches!(other, Err(SecureError::Certificate(_))), "{other:?}");
    let own = shake_hands(&mut relay_identity().accept(), &mut trust.connect(host));
    assert!(matches!(own, Err(SecureError::Certificate(_))), "{own:?}");
    // A ticket whose relay has a new key since: the authority says that it is the same relay.
    let trust = Trust::of_authorities(roots, Some(relay_identity().pin()));
    shake_hands(&mut relay_identity().accept(), &mut trust.connect(host)).expect("the ticket's");
    shake_hands(&mut identity.accept(), &mut trust.connect(host)).expect("it is vouched for");
    let other = shake_hands(&mut other_identity().accept(), &mut trust.connect(host));
    assert!(matches!(other, Err(SecureError::WrongPin(_))), "{other:?}");
}

#[test]
fn a_relay_with_a_new_key_that_is_vouched_for_is_named_by_that_key() {
    let (identity, roots) = vouched_for("relay.example");
    let trust = Trust::of_authorities(roots, Some(relay_identity().pin()));
    assert_eq!(trust.pin(), Some(relay_identity().pin()), "it is expected");
    let relay = &mut identity.accept();
    shake_hands(relay, &mut trust.connect("relay.example")).expect("it is vouched for");
    assert_eq!(trust.pin(), Some(identity.pin()));
}

#[test]
fn a_remembered_relay_may_have_another_key_if_an_authority_vouches_for_it() {
    fn none() -> RootCertStore {
        RootCertStore::empty()
    }
    let known = relay_identity().pin();
    let trust = Trust::remembered(Some(known), none);
    shake_hands(&mut relay_identity().accept(), &mut trust.connect("relay")).expect("known");
    let other = shake_hands(&mut other_identity().accept(), &mut trust.connect("relay"));
    assert!(matches!(other, Err(SecureError::WrongPin(wrong)) if wrong.expected == known));
    let trust = Trust::remembered(None, none);
    shake_hands(&mut other_identity().accept(), &mut trust.connect("relay")).expect("the first");
    let address: IpAddr = [127, 0, 0, 1].into();
    let other =
        shake_hands(&mut relay_identity().accept(), &mut trust.connect(&address.to_string()));
    assert!(matches!(other, Err(SecureError::WrongPin(_))));
}

/// These frames as they were before a bit was flipped.
fn frames_before(flipped: &[u8], bit: usize) -> Vec<u8> {
    let mut frames = flipped.to_vec();
    frames[bit / 8] ^= 1 << (bit % 8);
    frames
}

/// Bytes of frames, each with a record, that prove nothing: headers of frames, the type and version that a record
/// states (the type that counts is sealed inside, the version "MUST be ignored for all purposes", RFC 8446, 5.1),
/// and a record that is there for middleboxes.
fn unproven(frames: &[u8]) -> Vec<usize> {
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < frames.len() {
        let len = usize::from(u16::from_le_bytes([frames[at + 2], frames[at + 3]]));
        bytes.extend(at..at + 4);
        match frames[at + 4] {
            20 => bytes.extend(at + 4..at + 4 + len),
            _ => bytes.extend(at + 4..at + 7),
        }
        at += 4 + len;
    }
    bytes
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed() {
    let (_, mut sample) = pair();
    sample.push(&ping(7));
    let bits = frames(&mut sample).len() * 8;
    for bit in 0..bits {
        let (mut relay, mut peer) = pair();
        peer.push(&ping(7));
        let mut sealed = frames(&mut peer);
        sealed[bit / 8] ^= 1 << (bit % 8);
        // Where a frame ends proves nothing: what is in it does.
        let is_of_frame = unproven(&frames_before(&sealed, bit)).contains(&(bit / 8));
        match hear(&mut relay, &sealed) {
            Ok(messages) => {
                let is_right = is_of_frame && messages == [ping(7)];
                assert!(messages.is_empty() || is_right, "bit {bit}: {messages:?}");
            }
            Err(error) => assert!(
                matches!(error, SecureError::Damaged(_) | SecureError::Decode(_)),
                "bit {bit}: {error}"
            ),
        }
    }
}

#[test]
fn no_flipped_bit_of_a_handshake_makes_a_session() {
    // Each flight in turn: the peer's first, the relay's, the peer's last.
    for flight in 0..3 {
        let mut bit = 0;
        loop {
            let mut relay = relay_identity().accept();
            let mut peer = Trust::pinned(relay_identity().pin()).connect("relay");
            let (mut is_beyond, mut is_unproven) = (false, false);
            let mut damage = |number: usize, frames: Vec<u8>| {
                let mut frames = frames;
                if number == flight {
                    is_beyond = bit / 8 >= frames.len();
                    is_unproven = unproven(&frames).contains(&(bit / 8));
                    if !is_beyond {
                        frames[bit / 8] ^= 1 << (bit % 8);
                    }
                }
                frames
            };
            peer.push(&ping(1));
            let sent = damage(0, frames(&mut peer));
            let heard = hear(&mut relay, &sent).and_then(|_| {
                let sent = damage(1, frames(&mut relay));
                hear(&mut peer, &sent)?;
                let sent = damage(2, frames(&mut peer));
                hear(&mut relay, &sent)
            });
            if is_beyond {
                assert_eq!(heard.expect("nothing was damaged"), [ping(1)]);
                break;
            }
            let is_right = |messages: &[Message]| is_unproven && *messages == [ping(1)];
            let is_noticed = heard.is_err() || heard.is_ok_and(|m| m.is_empty() || is_right(&m));
            assert!(is_noticed, "flight {flight}: bit {bit}");
            bit += 1;
        }
    }
}

#[test]
fn what_is_to_be_said_when_a_session_fails_is_dropped_and_the_other_side_hears_why() {
    let (mut relay, mut peer) = pair();
    relay.push(&ping(1));
    let mut frames_of_nonsense = Vec::new();
    encode_control(&[23, 3, 3, 0x50, 0x00], &mut frames_of_nonsense);
    hear(&mut relay, &frames_of_nonsense).expect_err("no record is so long");
    relay.push(&ping(2));
    assert!(relay.wants_write());
    let last = frames(&mut relay);
    assert!(!relay.wants_write());
    let told = hear(&mut peer, &last).expect_err("it is told");
    assert!(matches!(told, SecureError::Refused(_)), "{told}");
}

#[test]
fn a_handshake_without_end_is_cut() {
    let mut relay = relay_identity().accept();
    // Records of a handshake message that is always longer than what has come.
    let record = [&[22, 3, 1, 0x10, 0x00, 1, 0, 0xff, 0xf0][..], &[0; 4092]].concat();
    let mut taken = 0;
    let error = loop {
        let mut frames = Vec::new();
        encode_control(&record, &mut frames);
        taken += record.len();
        match hear(&mut relay, &frames) {
            Ok(_) => assert!(taken <= TLS_HANDSHAKE_BYTES_MAX, "it takes {taken} bytes"),
            Err(error) => break error,
        }
    };
    let SecureError::TooLong(bytes) = error else { panic!("{error}") };
    assert!(bytes <= TLS_HANDSHAKE_BYTES_MAX + 5 + (1 << 12), "{bytes}");
}

#[test]
fn a_key_that_serves_another_protocol_can_not_be_talked_into_this_one() {
    let mut relay = relay_identity().accept();
    let mut config = rustls::ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("relay").expect("a name");
    let client = rustls::ClientConnection::new(config.into(), name).expect("a configuration");
    let mut peer = Secure::over(client);
    assert!(matches!(shake_hands(&mut relay, &mut peer), Err(SecureError::Damaged(_))));
}

/// A session, and the peer's side of it without our frames and rules, as a hostile peer has it.
fn hostile_pair() -> (Secure, rustls::ClientConnection) {
    let mut relay = relay_identity().accept();
    let mut config = client_config();
    config.alpn_protocols = vec![crypto::ALPN.to_vec()];
    let mut peer = client(config);
    while relay.is_handshaking() || peer.is_handshaking() {
        let said = records(&mut peer);
        raw(&mut relay, &said).expect("a handshake");
        let mut frames = Vec::new();
        relay.seal(&mut frames);
        let mut records = carried(&frames);
        while !records.is_empty() {
            let mut rest = &records[..];
            peer.read_tls(&mut rest).expect("memory");
            records = rest.to_vec();
            peer.process_new_packets().expect("the relay is honest");
        }
    }
    (relay, peer)
}

/// One that says nothing of what it speaks.
fn client_config() -> rustls::ClientConfig {
    let mut config = Trust::first_seen().config();
    config.alpn_protocols.clear();
    config
}

fn client(config: rustls::ClientConfig) -> rustls::ClientConnection {
    let name = rustls::pki_types::ServerName::try_from("relay").expect("a name");
    rustls::ClientConnection::new(config.into(), name).expect("a configuration")
}

/// What a peer has for the stream, without frames.
fn records(peer: &mut rustls::ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut records).expect("a vector takes everything");
    }
    records
}

/// What frames carry.
fn carried(frames: &[u8]) -> Vec<u8> {
    let stream = [&encode_preamble()[..], frames].concat();
    let (mut decoder, mut input, mut carried) = (Decoder::new(), &stream[..], Vec::new());
    while let Some(event) = decoder.decode(&mut input).expect("frames") {
        if let Event::Control(piece) = event {
            carried.extend_from_slice(piece);
        }
    }
    carried
}

/// Hands records to an end; the messages that it hears.
fn raw(secure: &mut Secure, mut records: &[u8]) -> Result<Vec<Message>, SecureError> {
    let mut messages = Vec::new();
    while secure.open(&mut records)? {
        while let Some(message) = secure.poll_message()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[test]
fn a_peer_that_says_farewell_and_goes_on_is_cut() {
    let (mut relay, mut peer) = hostile_pair();
    peer.send_close_notify();
    let farewell = records(&mut peer);
    let once = raw(&mut relay, &farewell);
    assert!(once.is_ok_and(|messages| messages.is_empty()), "it may go");
    // More of it must not keep the event loop.
    let error = raw(&mut relay, &[23, 3, 3, 0, 1, 0]).expect_err("it has gone");
    assert!(matches!(error, SecureError::Refused(_)), "{error}");
    let (mut relay, _) = hostile_pair();
    let together = [&farewell[..], &[0; 100]].concat();
    raw(&mut relay, &together).expect_err("whatever it is, it ends");
}

#[test]
fn a_peer_that_renews_keys_without_end_or_begins_a_message_that_never_ends_is_cut() {
    let (mut relay, mut peer) = hostile_pair();
    let mut taken = 0;
    let error = loop {
        peer.refresh_traffic_keys().expect("the handshake is over");
        let said = records(&mut peer);
        taken += said.len();
        match raw(&mut relay, &said) {
            Ok(messages) => assert!(messages.is_empty() && taken < 1 << 16, "it takes {taken}"),
            Err(error) => break error,
        }
        relay.seal(&mut Vec::new());
    };
    assert!(matches!(error, SecureError::Damaged(_) | SecureError::TooLong(_)), "{error}");
}

#[test]
fn a_peer_that_does_not_say_what_it_speaks_is_refused() {
    let mut relay = relay_identity().accept();
    let mut peer = client(client_config());
    let error = loop {
        let said = records(&mut peer);
        if let Err(error) = raw(&mut relay, &said) {
            break error;
        }
        assert!(relay.is_handshaking(), "it was taken in");
        let mut frames = Vec::new();
        relay.seal(&mut frames);
        let records = carried(&frames);
        let mut rest = &records[..];
        while !rest.is_empty() {
            peer.read_tls(&mut rest).expect("memory");
            peer.process_new_packets().expect("the relay is honest");
        }
    };
    assert!(matches!(error, SecureError::OtherProtocol), "{error}");
}

#[test]
fn a_certificate_that_is_only_shown_changes_no_belief() {
    // An impostor shows the relay's certificate, and has another key.
    let trust = Trust::first_seen();
    let (mut relay, mut peer) = (relay_identity().accept(), trust.connect("relay"));
    hear(&mut relay, &frames(&mut peer)).expect("a first flight");
    let mut flight = frames(&mut relay);
    let last = flight.len() - 1;
    flight[last] ^= 1;
    hear(&mut peer, &flight).expect_err("it proves nothing");
    assert_eq!(trust.pin(), None);
    let mut other = other_identity().accept();
    shake_hands(&mut other, &mut trust.connect("relay"))
        .expect("it is the first that proves itself");
}
