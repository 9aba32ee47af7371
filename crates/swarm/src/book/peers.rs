//! The table of peers.

use super::peer::Peer;
use crate::api::PeerSlot;

/// The peers by slot. A slot is used again only after its peer has gone.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
    free: Vec<u32>,
    /// Empty slots that actions may still name.
    left: Vec<u32>,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: Peer) -> PeerSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer peers than descriptors")
        });
        self.slots[slot as usize] = Some(Box::new(peer));
        PeerSlot(slot)
    }

    pub(super) fn remove(&mut self, slot: PeerSlot) -> Option<Box<Peer>> {
        let peer = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.left.push(slot.0);
        Some(peer)
    }

    #[inline]
    pub(crate) fn get(&self, slot: PeerSlot) -> Option<&Peer> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.slots.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.left.len()
    }

    /// No action names a peer that has gone any more: their slots may be used again.
    pub(super) fn recycle(&mut self) {
        self.free.append(&mut self.left);
    }

    /// How many slots there are, in use or not.
    pub(crate) fn slot_count(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("fewer peers than descriptors")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerSlot, &Peer)> {
        self.slots
            .iter()
            .zip(0u32..)
            .filter_map(|(peer, slot)| Some((PeerSlot(slot), peer.as_deref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerSlot, &mut Peer)> {
        self.slots
            .iter_mut()
            .zip(0u32..)
            .filter_map(|(peer, slot)| Some((PeerSlot(slot), peer.as_deref_mut()?)))
    }
}

impl std::ops::Index<PeerSlot> for Peers {
    type Output = Peer;
    #[inline]
    fn index(&self, slot: PeerSlot) -> &Peer {
        self.get(slot).expect("the caller holds a live slot")
    }
}

impl std::ops::IndexMut<PeerSlot> for Peers {
    #[inline]
    fn index_mut(&mut self, slot: PeerSlot) -> &mut Peer {
        self.get_mut(slot).expect("the caller holds a live slot")
    }
}
