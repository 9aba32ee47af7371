//! What a session has to say: single messages, and long lists cut into parts as there is room.
//!
//! Pure. Decides no content, only order and cutting: introduction first, then single messages,
//! then acknowledgements, then parts of the manifest.

use std::{collections::VecDeque, sync::Arc};

use relay_protocol::{
    Bitfield, ChunkRange, Claims, Hello, Manifest, Message,
    limits::{BITFIELD_PART_BYTES_MAX, HAVE_RANGES_MAX},
};

/// Messages of one connection that were not given to the transport yet.
///
/// The single messages answer the relay's, and a shell stops reading while its transport doesn't
/// take them, so there are at most as many as one read brings.
#[derive(Debug, Default)]
pub struct Outbox {
    single: VecDeque<Message>,
    bitfield: Option<(Vec<u8>, usize)>,
    have: Vec<ChunkRange>,
    manifest: Option<(Arc<Manifest>, u32)>,
}

impl Outbox {
    /// Says hello, and which chunks are here, if that is not said by the hello itself.
    pub fn introduce(&mut self, hello: Hello, have: &Bitfield) {
        if hello.claims == Claims::Some {
            self.bitfield = Some((have.to_bytes(), 0));
        }
        self.single.push_back(Message::Hello(hello));
    }

    /// Says one thing.
    pub fn push(&mut self, message: Message) {
        self.single.push_back(message);
    }

    /// Acknowledges a chunk; neighbours become one range.
    pub fn have(&mut self, chunk: u32) {
        extend(&mut self.have, chunk);
    }

    /// Says that these chunks, ascending, can't be supplied any longer; after what was acknowledged before.
    pub fn lost(&mut self, chunks: impl Iterator<Item = u32>) {
        while let Some(have) = self.poll_have() {
            self.single.push_back(have);
        }
        let mut ranges: Vec<ChunkRange> = Vec::new();
        for chunk in chunks {
            extend(&mut ranges, chunk);
        }
        for ranges in ranges.chunks(HAVE_RANGES_MAX) {
            self.single.push_back(Message::Lost { ranges: ranges.to_vec() });
        }
    }

    /// Sends the list of digests from its start.
    pub fn begin_manifest(&mut self, manifest: Arc<Manifest>) {
        self.manifest = Some((manifest, 0));
    }

    /// Nothing is left to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.single.is_empty()
            && self.bitfield.is_none()
            && self.have.is_empty()
            && self.manifest.is_none()
    }

    /// Something is left to say that is not an acknowledgement.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        !self.single.is_empty() || self.bitfield.is_some() || self.manifest.is_some()
    }

    /// The next message; acknowledgements only if they are not held back.
    pub fn poll(&mut self, hold_back: bool) -> Option<Message> {
        // A hello is the first of the single messages but for those that introduce it, and its
        // bitfield must follow at once.
        let first = self.single.front();
        if matches!(
            first,
            Some(Message::Hello(_) | Message::DatagramRequest { .. } | Message::Uplink { .. })
        ) {
            return self.single.pop_front();
        }
        // A peer that leaves may be let go at once. What it has got must be known before, or it does not
        // count as a copy.
        let says_goodbye = matches!(self.single.front(), Some(Message::Leaving));
        self.poll_bitfield()
            .or_else(|| if says_goodbye { self.poll_have() } else { None })
            .or_else(|| self.single.pop_front())
            .or_else(|| if hold_back { None } else { self.poll_have() })
            .or_else(|| self.poll_manifest())
    }

    fn poll_bitfield(&mut self) -> Option<Message> {
        let (bytes, sent) = self.bitfield.as_mut()?;
        let end = bytes.len().min(*sent + BITFIELD_PART_BYTES_MAX);
        let part = Message::BitfieldPart {
            offset_bytes: u32::try_from(*sent).expect("a bitfield is at most 32 KiB"),
            bytes: bytes[*sent..end].to_vec(),
        };
        *sent = end;
        if end == bytes.len() {
            self.bitfield = None;
        }
        Some(part)
    }

    fn poll_have(&mut self) -> Option<Message> {
        if self.have.is_empty() {
            return None;
        }
        let batch = self.have.len().min(HAVE_RANGES_MAX);
        Some(Message::Have { ranges: self.have.drain(..batch).collect() })
    }

    fn poll_manifest(&mut self) -> Option<Message> {
        let (manifest, next) = self.manifest.as_mut()?;
        let part = manifest.part(*next);
        if let Some(Message::ManifestPart { digests, .. }) = &part {
            *next += u32::try_from(digests.len()).expect("a part is short");
        }
        if part.is_none() || *next == manifest.key().chunk_count() {
            self.manifest = None;
        }
        part
    }
}

/// Neighbours become one range.
fn extend(ranges: &mut Vec<ChunkRange>, chunk: u32) {
    match ranges.last_mut() {
        Some(last) if last.first + last.count == chunk => last.count += 1,
        _ => ranges.push(ChunkRange { first: chunk, count: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_chunks_are_acknowledged_as_one_range() {
        let mut outbox = Outbox::default();
        for chunk in [4, 5, 6, 9, 10, 3] {
            outbox.have(chunk);
        }
        let ranges = [(4, 3), (9, 2), (3, 1)].map(|(first, count)| ChunkRange { first, count });
        assert_eq!(outbox.poll(false), Some(Message::Have { ranges: ranges.to_vec() }));
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_lost_is_said_after_what_was_had_before_and_before_what_is_had_again() {
        let mut outbox = Outbox::default();
        outbox.have(7);
        outbox.lost([6, 7, 9].into_iter());
        outbox.have(7);
        let ranges = |ranges: &[(u32, u32)]| -> Vec<ChunkRange> {
            ranges.iter().map(|&(first, count)| ChunkRange { first, count }).collect()
        };
        for message in [
            Message::Have { ranges: ranges(&[(7, 1)]) },
            Message::Lost { ranges: ranges(&[(6, 2), (9, 1)]) },
            Message::Have { ranges: ranges(&[(7, 1)]) },
        ] {
            assert_eq!(outbox.poll(false), Some(message));
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn whoever_leaves_says_first_what_it_has() {
        let mut outbox = Outbox::default();
        outbox.push(Message::Pong { token: 1 });
        outbox.push(Message::Leaving);
        outbox.have(7);
        assert_eq!(outbox.poll(true), Some(Message::Pong { token: 1 }));
        let ranges = vec![ChunkRange { first: 7, count: 1 }];
        assert_eq!(outbox.poll(true), Some(Message::Have { ranges }), "held back or not");
        assert_eq!(outbox.poll(true), Some(Message::Leaving));
    }

    #[test]
    fn many_acknowledgements_take_several_messages() {
        let mut outbox = Outbox::default();
        (0..250).for_each(|chunk| outbox.have(chunk * 2));
        let mut ranges_len = 0;
        while let Some(Message::Have { ranges }) = outbox.poll(false) {
            assert!(ranges.len() <= HAVE_RANGES_MAX);
            ranges_len += ranges.len();
        }
        assert_eq!(ranges_len, 250);
    }
}
