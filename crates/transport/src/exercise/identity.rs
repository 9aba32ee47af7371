//! What names a file. A manifest: whatever parts come in whatever order, only the file's own digests make
//! one. A ticket: whatever is pasted, only what was written is read, and what was read can be written.

use super::script::Script;
use relay_protocol::{
    Digest, Manifest, ManifestBuilder, SwarmKey, limits::TICKET_RELAYS_MAX, ticket::Ticket,
};

/// Chunks of the files that are tried: several parts, and uneven trees.
const CHUNKS_MAX: u32 = 200;

/// A small file, and then parts: right ones, right ones in the wrong place, wrong ones.
pub fn manifest(script: &[u8]) {
    let mut script = Script(script);
    let chunk_size_log2 = 10;
    let size = u64::from(script.number() % (CHUNKS_MAX << chunk_size_log2));
    let bytes: Vec<u8> = (0..size).map(|at| (at >> 10).to_le_bytes()[0]).collect();
    let honest = Manifest::of(&bytes, chunk_size_log2).expect("a small file");
    let mut key = *honest.key();
    match script.byte() % 8 {
        0 => key.size_bytes = script.count(),
        1 => key.id = Digest([script.byte(); 32]),
        2 => key.chunk_size_log2 = script.byte(),
        _ => {}
    }
    if key.validate().is_err() {
        return;
    }
    let mut builder = ManifestBuilder::new(key);
    while !script.is_over() && !builder.is_complete() {
        let first = match script.byte() % 4 {
            0 => script.number(),
            _ => builder.next_chunk(),
        };
        let from = honest.digests().get(builder.next_chunk() as usize..).unwrap_or_default();
        let count = usize::from(script.byte() % 40);
        let mut digests: Vec<Digest> = from.iter().copied().take(count).collect();
        match script.byte() % 8 {
            0 => digests.push(Digest([script.byte(); 32])),
            1 => digests.truncate(1),
            2 => digests.iter_mut().for_each(|digest| digest.0[0] ^= 1),
            _ => {}
        }
        let before = builder.next_chunk();
        if builder.push(first, &digests).is_err() {
            assert_eq!(builder.next_chunk(), before, "a refused part changes nothing");
        }
        builder.invariants();
    }
    finish(key, &honest, builder);
}

fn finish(key: SwarmKey, honest: &Manifest, builder: ManifestBuilder) {
    if let Ok(manifest) = builder.finish() {
        assert_eq!(*manifest.key(), key);
        let parts: Vec<_> = manifest.parts(0).collect();
        assert_eq!(parts.len(), manifest.digests().len().div_ceil(32));
        // What merges to the file's id is the file's: unless the key itself was of another.
        if key == *honest.key() {
            assert_eq!(manifest.digests(), honest.digests());
        }
        assert_eq!(Manifest::verify(key, manifest.digests()).as_ref(), Ok(&manifest));
    }
}

/// First byte: whether the rest is a text, or what a right checksum was made of, in which version.
pub fn ticket(script: &[u8]) {
    let Some((&how, rest)) = script.split_first() else { return };
    let read = match how % 4 {
        0 | 2 => String::from_utf8_lossy(rest).parse::<Ticket>(),
        version => Ticket::decode(rest, version == 3),
    };
    let Ok(ticket) = read else { return };
    assert!(ticket.relays().count() <= TICKET_RELAYS_MAX, "it names few relays");
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
