//! The live chunks of one shard: one entry for all sends of a chunk, as long as any of them holds it.

use std::{
    collections::HashMap,
    rc::{Rc, Weak},
};

use crate::message::{CachedChunk, SwarmRef};
use relay_transport::Payload;

/// By swarm and chunk.
#[derive(Debug, Default)]
pub(crate) struct Payloads(HashMap<(SwarmRef, u32), Weak<Payload>>);

impl Payloads {
    /// The chunk as this shard sends it: the one that others of its sends hold, unless that was taken back.
    pub(crate) fn live(&mut self, swarm: SwarmRef, chunk: CachedChunk) -> Rc<Payload> {
        let CachedChunk { index, bytes, crcs } = chunk;
        let live = self.0.get(&(swarm, index)).and_then(Weak::upgrade);
        live.filter(|payload| !payload.is_withdrawn()).unwrap_or_else(|| {
            let payload = Payload::new(index, bytes, crcs);
            self.0.insert((swarm, index), Rc::downgrade(&payload));
            payload
        })
    }

    /// The chunk is taken back: what its sends hold, if any do.
    pub(crate) fn remove(&mut self, swarm: SwarmRef, chunk: u32) -> Option<Rc<Payload>> {
        self.0.remove(&(swarm, chunk))?.upgrade()
    }

    /// Drops the entries of chunks that no send holds any longer.
    pub(crate) fn prune(&mut self) {
        self.0.retain(|_, payload| payload.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use shards::ShardId;

    #[test]
    fn sends_of_a_chunk_share_its_bytes_until_it_is_taken_back() {
        let swarm = SwarmRef { home: ShardId(0), index: 1, generation: 1 };
        let bytes = Bytes::from_static(b"chunk");
        let chunk = || CachedChunk { index: 7, bytes: bytes.clone().into(), crcs: [0].into() };
        let mut payloads = Payloads::default();
        let first = payloads.live(swarm, chunk());
        assert!(Rc::ptr_eq(&first, &payloads.live(swarm, chunk())));
        first.withdraw();
        let second = payloads.live(swarm, chunk());
        assert!(!Rc::ptr_eq(&first, &second), "what was taken back is not sent");
        payloads.prune();
        assert!(payloads.remove(swarm, 7).is_some_and(|payload| Rc::ptr_eq(&payload, &second)));
        drop(second);
        assert!(payloads.remove(swarm, 7).is_none());
    }
}
