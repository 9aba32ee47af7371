//! A set of chunks, as dense bits.
//!
//! Invariant: bits at and beyond `len` are zero; `count` is the number of set bits.

/// A set of chunk indices below a fixed length.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// The empty set over `len` chunks.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, count: 0 }
    }

    /// The set of all `len` chunks.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut set = Self { words: vec![u64::MAX; len.div_ceil(64) as usize], len, count: len };
        if let (Some(last), rest @ 1..) = (set.words.last_mut(), len % 64) {
            *last = (1 << rest) - 1;
        }
        set
    }

    /// From wire bytes: bit `i % 8` (from the lowest) of byte `i / 8` stands for chunk `i`.
    /// `None` if the length is wrong or a bit beyond `len` is set.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != Self::byte_len(len) {
            return None;
        }
        let mut set = Self::empty(len);
        for (word, part) in set.words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..part.len()].copy_from_slice(part);
            *word = u64::from_le_bytes(eight);
        }
        if let (Some(last), rest @ 1..) = (set.words.last(), len % 64)
            && last >> rest != 0
        {
            return None;
        }
        set.count = set.words.iter().map(|word| word.count_ones()).sum();
        Some(set)
    }

    /// As wire bytes, [`Self::byte_len`] of them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(Self::byte_len(self.len));
        bytes
    }

    /// Wire bytes of a set over `len` chunks.
    #[must_use]
    pub fn byte_len(len: u32) -> usize {
        len.div_ceil(8) as usize
    }

    /// Number of chunks that the set ranges over.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set ranges over no chunk at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of chunks in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether every chunk is in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether the chunk is in the set; chunks out of range never are.
    #[must_use]
    #[inline]
    pub fn contains(&self, chunk: u32) -> bool {
        chunk < self.len && self.words[(chunk / 64) as usize] >> (chunk % 64) & 1 == 1
    }

    /// Puts the chunk in; whether it was not in before.
    ///
    /// # Panics
    /// If the chunk is out of range.
    #[inline]
    pub fn insert(&mut self, chunk: u32) -> bool {
        assert!(chunk < self.len, "chunk {chunk} of {}", self.len);
        let word = &mut self.words[(chunk / 64) as usize];
        let new = *word >> (chunk % 64) & 1 == 0;
        *word |= 1 << (chunk % 64);
        self.count += u32::from(new);
        new
    }

    /// Takes the chunk out; whether it was in before.
    #[inline]
    pub fn remove(&mut self, chunk: u32) -> bool {
        if !self.contains(chunk) {
            return false;
        }
        self.words[(chunk / 64) as usize] &= !(1 << (chunk % 64));
        self.count -= 1;
        true
    }

    /// The chunks in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words
            .iter()
            .zip(0u32..)
            .flat_map(|(&word, index)| Ones(word).map(move |bit| index * 64 + bit))
    }

    /// The chunks not in the set, ascending.
    pub fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        self.words
            .iter()
            .zip(0u32..)
            .flat_map(|(&word, index)| Ones(!word).map(move |bit| index * 64 + bit))
            .take_while(|&chunk| chunk < self.len)
    }

    /// The words, least significant bit first, for whole-word scans.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Checks what must hold between two calls; for tests.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn invariants(&self) {
        assert_eq!(self.words.len(), self.len.div_ceil(64) as usize);
        let set: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        assert_eq!(self.count, set);
        let unused = Self::full(self.len).words.into_iter().map(|word| !word);
        assert!(self.words.iter().zip(unused).all(|(word, unused)| word & unused == 0));
    }
}

struct Ones(u64);

impl Iterator for Ones {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}
