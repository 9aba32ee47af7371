//! A bundle's header, read: where each entry stands in it, and where what belongs to the entry ends in the bundle.
//! Whether names and links are as they must be is not judged here.
//!
//! Invariants: entries can be read again from where they stand; ends never fall from one entry to the next, and
//! the last is at most `BUNDLE_BYTES_MAX`.

use super::{
    entry::{self, Entry},
    error::BundleError,
};
use crate::limits::{
    BUNDLE_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_INDEX_BYTES_MAX, BUNDLE_MAGIC, BUNDLE_VERSION,
};

/// Bytes before the index: magic, version, and the index's length.
pub const PREFACE_BYTES: usize = BUNDLE_MAGIC.len() + 1 + LENGTH_BYTES;

/// Bytes of the length of an index.
const LENGTH_BYTES: usize = 4;

/// Begins an index whose entries keep no mode and time.
const PLAIN: u8 = 0;

/// Begins an index whose entries do.
const PRESERVING: u8 = 1;

/// Bytes of an entry, at least: two lengths or kinds, and a byte of path.
const ENTRY_BYTES_LEAST: usize = 3;

/// A header and its entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    header: Vec<u8>,
    slots: Vec<Slot>,
    is_preserving: bool,
}

/// Of one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    /// Where it stands in the header.
    at: u32,
    /// Where its bytes end in the bundle; those of what has none would end there.
    end: u64,
}

impl Table {
    /// The table of these entries, in this order.
    pub(super) fn write(entries: &[Entry<'_>]) -> Result<Self, BundleError> {
        let is_preserving = entries.first().is_some_and(|entry| entry.preserved.is_some());
        let mut header = BUNDLE_MAGIC.to_vec();
        header.push(BUNDLE_VERSION);
        header.extend_from_slice(&[0; LENGTH_BYTES]);
        header.push(if is_preserving { PRESERVING } else { PLAIN });
        header = postcard::to_extend(&entries.len(), header).expect("a number can be encoded");
        for entry in entries {
            if entry.preserved.is_some() != is_preserving {
                return Err(BundleError::Mixed(super::shown::shown_path(entry.path)));
            }
            header = entry::write(entry, header);
            index_length(header.len() - PREFACE_BYTES)?;
        }
        let length = index_length(header.len() - PREFACE_BYTES)?;
        header[PREFACE_BYTES - LENGTH_BYTES..PREFACE_BYTES].copy_from_slice(&length.to_le_bytes());
        Self::read(header)
    }

    /// The table of a header, which is whole.
    pub(super) fn read(header: Vec<u8>) -> Result<Self, BundleError> {
        let index = &header[PREFACE_BYTES..];
        let (&form, rest) = index.split_first().ok_or(BundleError::Beginning)?;
        let is_preserving = match form {
            PLAIN => false,
            PRESERVING => true,
            _ => return Err(BundleError::Beginning),
        };
        let (count, mut rest) =
            postcard::take_from_bytes::<u32>(rest).map_err(|_| BundleError::Beginning)?;
        let count = count as usize;
        if count > BUNDLE_ENTRIES_MAX {
            return Err(BundleError::TooManyEntries(count));
        }
        let is_shortest = index.len() - rest.len() == 1 + varint_length(count);
        // An empty bundle keeps nothing: two forms of it would be two bundles.
        if !is_shortest || is_preserving && count == 0 {
            return Err(BundleError::Beginning);
        }
        // What was said of the count is believed as far as there are bytes for it.
        let mut slots = Vec::with_capacity(count.min(rest.len() / ENTRY_BYTES_LEAST));
        let (mut end, mut again) = (header.len() as u64, Vec::new());
        for number in 0..count {
            let (entry, behind) =
                entry::read(rest, is_preserving).ok_or(BundleError::Unreadable(number))?;
            let at = header.len() - rest.len();
            again.clear();
            again = entry::write(&entry, again);
            if again != rest[..rest.len() - behind.len()] {
                return Err(BundleError::NotShortest(number));
            }
            end = end
                .checked_add(entry.kind.size_bytes())
                .filter(|&end| end <= BUNDLE_BYTES_MAX)
                .ok_or(BundleError::TooLarge)?;
            slots.push(Slot { at: u32::try_from(at).expect("an index is shorter"), end });
            rest = behind;
        }
        match rest.len() {
            0 => Ok(Self { header, slots, is_preserving }),
            trailing => Err(BundleError::Trailing(trailing)),
        }
    }

    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    pub(super) fn is_preserving(&self) -> bool {
        self.is_preserving
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The entry of this number.
    pub(super) fn entry(&self, number: usize) -> Option<Entry<'_>> {
        let slot = self.slots.get(number)?;
        let bytes = &self.header[slot.at as usize..];
        let (entry, _) = entry::read(bytes, self.is_preserving).expect("it was read before");
        Some(entry)
    }

    /// All entries, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.slots.len()).map(|number| self.entry(number).expect("there are so many"))
    }

    /// Where this entry's bytes end in the bundle: where those of the next begin.
    pub(super) fn end(&self, number: usize) -> Option<u64> {
        self.slots.get(number).map(|slot| slot.end)
    }

    /// The first entry whose bytes end behind this place. It is a file that has some, or there is none.
    pub(super) fn first_ending_after(&self, place: u64) -> usize {
        self.slots.partition_point(|slot| slot.end <= place)
    }

    /// Number and entry of this path among those before `before`, which are sorted.
    pub(super) fn find(&self, path: &[u8], before: usize) -> Option<(usize, Entry<'_>)> {
        let slots = &self.slots[..before.min(self.slots.len())];
        let entry = |slot: &Slot| {
            let bytes = &self.header[slot.at as usize..];
            entry::read(bytes, self.is_preserving).expect("it was read before").0
        };
        let number = slots.binary_search_by(|slot| entry(slot).path.cmp(path)).ok()?;
        Some((number, entry(&slots[number])))
    }
}

/// The length that a prefix of a bundle names of its header, preface included; nothing if it ends before that.
pub(super) fn header_length(prefix: &[u8]) -> Result<Option<usize>, BundleError> {
    let begun = prefix.len().min(BUNDLE_MAGIC.len());
    if prefix[..begun] != BUNDLE_MAGIC[..begun] {
        return Err(BundleError::NotABundle);
    }
    match prefix.get(BUNDLE_MAGIC.len()) {
        None => return Ok(None),
        Some(&BUNDLE_VERSION) => {}
        Some(&version) => return Err(BundleError::Version(version)),
    }
    let Some(length) = prefix[BUNDLE_MAGIC.len() + 1..].first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = index_length(u32::from_le_bytes(*length) as usize)?;
    Ok(Some(PREFACE_BYTES + length as usize))
}

fn index_length(length: usize) -> Result<u32, BundleError> {
    u32::try_from(length)
        .ok()
        .filter(|_| length <= BUNDLE_INDEX_BYTES_MAX)
        .ok_or(BundleError::IndexTooLong(length))
}

/// Bytes of a number that is written as short as can be.
fn varint_length(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}
