//! A session's part in the manifest: it is asked of the peer, or sent to it in parts.

use std::sync::Arc;

use super::effects::Fault;
use relay_protocol::{Digest, FailureCode, Manifest, ManifestBuilder, Message, SwarmKey};

/// How far the manifest is, each way.
#[derive(Debug, Default)]
pub(super) struct ManifestState {
    /// Being received from this peer.
    builder: Option<ManifestBuilder>,
    /// The peer waits for it.
    wanted: bool,
    /// Being sent to this peer: from this chunk on.
    sending: Option<(Arc<Manifest>, u32)>,
}

impl ManifestState {
    /// The peer is to be asked for it; whether it is not at it already: a peer that goes on would be blamed
    /// for that.
    pub(super) fn ask(&mut self, key: SwarmKey) -> bool {
        let is_new = self.builder.is_none();
        if is_new {
            self.builder = Some(ManifestBuilder::new(key));
        }
        is_new
    }

    /// A part of it came; with the last one all of it, or the fault of a peer that lied.
    pub(super) fn handle_part(
        &mut self,
        first_chunk: u32,
        digests: &[Digest],
    ) -> Result<Option<Result<Arc<Manifest>, Fault>>, Fault> {
        let Some(builder) = &mut self.builder else {
            return Err(Fault::protocol("a manifest that the relay did not ask for"));
        };
        builder.push(first_chunk, digests).map_err(|error| Fault::protocol(error.to_string()))?;
        if !builder.is_complete() {
            return Ok(None);
        }
        let lied = |_| {
            Fault::new(
                FailureCode::Banned,
                "manifest",
                "the manifest does not merge to the file's id",
            )
        };
        Ok(self.builder.take().map(|builder| builder.finish().map(Arc::new).map_err(lied)))
    }

    /// The peer does not have it; whether it was asked.
    pub(super) fn handle_refused(&mut self) -> bool {
        self.builder.take().is_some()
    }

    /// The peer waits for it, from its beginning.
    pub(super) fn want(&mut self) {
        self.wanted = true;
        let known = self.sending.take().map(|(manifest, _)| manifest);
        self.know(known);
    }

    /// The swarm's manifest is known. Told again it changes nothing: what was sent is not sent anew.
    pub(super) fn know(&mut self, manifest: Option<Arc<Manifest>>) {
        if let Some(manifest) = manifest.filter(|_| self.sending.is_none()) {
            let from = if self.wanted { 0 } else { u32::MAX };
            self.sending = Some((manifest, from));
        }
    }

    /// The swarm took the peer in, and told of its manifest, if that is known.
    pub(super) fn know_anew(&mut self, manifest: Option<Arc<Manifest>>) {
        self.sending = None;
        self.know(manifest);
    }

    /// Whether the peer waits for parts of the manifest that could be sent.
    pub(super) fn has_part(&self) -> bool {
        let sending = self.sending.as_ref();
        sending.is_some_and(|(manifest, from)| *from < manifest.key().chunk_count())
    }

    /// The next part of the manifest that the peer waits for.
    pub(super) fn poll_part(&mut self) -> Option<Message> {
        if !self.has_part() {
            return None;
        }
        let (manifest, from) = self.sending.as_mut()?;
        let part = manifest.part(*from)?;
        if let Message::ManifestPart { digests, .. } = &part {
            *from += u32::try_from(digests.len()).expect("a part is small");
        }
        Some(part)
    }
}
