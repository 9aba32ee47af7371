//! A session's part in the manifest: it is asked of the peer, or sent to it in parts.

use std::sync::Arc;

use super::{Effect, Phase, Session};
use crate::fault::Fault;
use relay_protocol::{Digest, FailureCode, Manifest, ManifestBuilder, Message};
use relay_swarm::FetchFailure;

#[derive(Debug, Default)]
pub(super) struct ManifestState {
    /// Being received from this peer.
    pub(super) builder: Option<ManifestBuilder>,
    /// The peer waits for it.
    pub(super) wanted: bool,
    /// Being sent to this peer: from this chunk on.
    pub(super) sending: Option<(Arc<Manifest>, u32)>,
}

impl Session {
    pub(super) fn handle_manifest_part(
        &mut self,
        first_chunk: u32,
        digests: &[Digest],
    ) -> Result<(), Fault> {
        let Some(builder) = &mut self.manifest.builder else {
            return Err(Fault::protocol("a manifest that nobody asked for"));
        };
        let lied = |_| {
            Fault::new(
                FailureCode::Banned,
                "manifest",
                "the manifest does not merge to the file's id",
            )
        };
        builder.push(first_chunk, digests).map_err(|error| Fault::protocol(error.to_string()))?;
        if builder.is_complete()
            && let Some(builder) = self.manifest.builder.take()
        {
            let result = builder.finish().map(Arc::new).map_err(lied);
            let told = result.as_ref().map(Arc::clone).map_err(|_| FetchFailure::Lied);
            self.effects.push_back(Effect::Manifest(told));
            result?;
        }
        Ok(())
    }

    /// Ask the peer for the manifest, unless it is at it: who goes on would be blamed for that.
    pub(crate) fn handle_fetch_manifest(&mut self) {
        if let Phase::Joined(key) = self.phase
            && self.manifest.builder.is_none()
        {
            self.manifest.builder = Some(ManifestBuilder::new(key));
            self.send(Message::ManifestRequest);
        }
    }

    /// The swarm's manifest is known. Told again it changes nothing: what was sent is not sent anew.
    pub(crate) fn handle_manifest_known(&mut self, manifest: Option<Arc<Manifest>>) {
        if let Some(manifest) = manifest.filter(|_| self.manifest.sending.is_none()) {
            let from = if self.manifest.wanted { 0 } else { u32::MAX };
            self.manifest.sending = Some((manifest, from));
        }
    }

    /// Whether the peer waits for parts of the manifest that could be sent.
    pub(crate) fn has_manifest_part(&self) -> bool {
        let sending = self.manifest.sending.as_ref();
        sending.is_some_and(|(manifest, from)| *from < manifest.key().chunk_count())
    }

    /// The next part of the manifest that the peer waits for; the shell asks when there is room.
    pub(crate) fn poll_manifest_part(&mut self) -> Option<Message> {
        if !self.has_manifest_part() {
            return None;
        }
        let (manifest, from) = self.manifest.sending.as_mut()?;
        let part = manifest.part(*from)?;
        if let Message::ManifestPart { digests, .. } = &part {
            *from += u32::try_from(digests.len()).expect("a part is small");
        }
        Some(part)
    }
}
