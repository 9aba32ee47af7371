//! Chunk digests merge to exactly the file's BLAKE3, for every awkward size; what is not the
//! manifest of a file is not taken for it.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::Index};
use relay::protocol::{
    ChunkHasher, Digest, Manifest, ManifestBuilder, ManifestError, ManifestHasher, Message,
    SwarmKey, digest::Merger, digest_chunk, digest_file, limits::MANIFEST_PART_DIGESTS_MAX,
};

/// Content that differs everywhere, from a seed.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Sizes around everything at which the tree changes its shape.
fn awkward_sizes(chunk_size: usize) -> BTreeSet<usize> {
    let mut sizes = BTreeSet::from([0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049]);
    for chunks in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65] {
        let size = chunks * chunk_size;
        sizes.extend([size - 1, size, size + 1, size + 1023, size + 1025]);
    }
    sizes
}

#[test]
fn digests_merge_to_the_files_blake3_for_every_awkward_size() {
    for chunk_size_log2 in [10, 11, 12, 14, 16] {
        let sizes = awkward_sizes(1 << chunk_size_log2);
        let bytes = content(*sizes.last().unwrap(), 1);
        for size in sizes {
            let bytes = &bytes[..size];
            let manifest = Manifest::of(bytes, chunk_size_log2).unwrap();
            let key = manifest.key();
            assert_eq!(
                key.id.0,
                *blake3::hash(bytes).as_bytes(),
                "{size} bytes, 2^{chunk_size_log2}"
            );
            assert_eq!(key.size_bytes, size as u64);
            assert_eq!(manifest.digests().len(), size.div_ceil(1 << chunk_size_log2));
            assert_eq!(Manifest::verify(*key, manifest.digests()).as_ref(), Ok(&manifest));
        }
    }
}

#[test]
fn the_default_and_the_largest_chunk_size_merge_too() {
    let bytes = content((33 << 20) + 1, 2);
    for chunk_size_log2 in [17, 18, 20, 24] {
        let manifest = Manifest::of(&bytes, chunk_size_log2).unwrap();
        assert_eq!(manifest.key().id.0, *blake3::hash(&bytes).as_bytes());
    }
}

#[test]
fn the_longest_manifest_merges_as_a_recursive_tree_does() {
    fn tree(digests: &[[u8; 32]]) -> [u8; 32] {
        use blake3::hazmat::{Mode, merge_subtrees_non_root};
        if let [digest] = digests {
            return *digest;
        }
        let (left, right) = digests.split_at(digests.len().next_power_of_two() / 2);
        merge_subtrees_non_root(&tree(left), &tree(right), Mode::Hash)
    }
    let digests: Vec<[u8; 32]> =
        content(32 << 18, 3).chunks(32).map(|digest| digest.try_into().unwrap()).collect();
    for count in [2, 3, 4, 1000, (1 << 18) - 1, 1 << 18] {
        let digests = &digests[..count];
        let mut merger = Merger::new();
        digests.iter().for_each(|&digest| merger.push(Digest(digest)));
        merger.invariants();
        let (left, right) = digests.split_at(count.next_power_of_two() / 2);
        let root = blake3::hazmat::merge_subtrees_root(
            &tree(left),
            &tree(right),
            blake3::hazmat::Mode::Hash,
        );
        assert_eq!(merger.finish().0, *root.as_bytes(), "{count} digests");
    }
}

#[test]
fn an_empty_file_has_no_chunks_and_the_id_of_nothing() {
    let manifest = Manifest::of(&[], 18).unwrap();
    assert_eq!(manifest.key().id, digest_file(&[]));
    assert_eq!(manifest.digests(), []);
    assert_eq!(manifest.part(0), None);
    assert_eq!(manifest.parts(0).count(), 0);
    let builder = ManifestBuilder::new(*manifest.key());
    assert!(builder.is_complete());
    assert_eq!(builder.finish(), Ok(manifest));
    // Something else that claims to be empty.
    let liar = SwarmKey { id: Digest([1; 32]), size_bytes: 0, chunk_size_log2: 18 };
    assert!(matches!(Manifest::verify(liar, &[]), Err(ManifestError::Mismatch { .. })));
}

#[test]
fn the_only_chunks_digest_is_the_files_id() {
    for size in [1, 1024, 4095, 4096] {
        let manifest = Manifest::of(&content(size, 4), 12).unwrap();
        assert_eq!(manifest.digests(), [manifest.key().id]);
        assert!(manifest.matches(0, &content(size, 4)));
    }
}

#[test]
fn a_chunk_of_another_length_does_not_match_and_does_no_harm() {
    let bytes = content(3 * 4096 + 1, 10);
    let manifest = Manifest::of(&bytes, 12).unwrap();
    for chunk in 0..4 {
        assert!(!manifest.matches(chunk, &[]));
        assert!(!manifest.matches(chunk, &bytes));
        assert!(!manifest.matches(chunk, &bytes[..4097]));
    }
    assert!(manifest.matches(3, &bytes[3 * 4096..]));
}

/// Puts a manifest together from its parts, as a receiver does.
fn transfer(manifest: &Manifest) -> Result<Manifest, ManifestError> {
    let mut builder = ManifestBuilder::new(*manifest.key());
    while let Some(Message::ManifestPart { first_chunk, digests }) =
        manifest.part(builder.next_chunk())
    {
        let is_last = builder.push(first_chunk, &digests)?;
        builder.invariants();
        assert_eq!(is_last, builder.is_complete());
    }
    builder.finish()
}

#[test]
fn parts_must_follow_each_other_to_the_end_and_no_further() {
    let manifest = Manifest::of(&content(70 * 1024, 5), 10).unwrap();
    let digests = manifest.digests();
    let mut builder = ManifestBuilder::new(*manifest.key());
    assert_eq!(builder.push(0, &[]), Err(ManifestError::Empty));
    assert_eq!(
        builder.push(1, &digests[1..3]),
        Err(ManifestError::OutOfOrder { first_chunk: 1, expected: 0 })
    );
    assert_eq!(builder.push(0, &digests[..40]), Ok(false));
    assert_eq!(
        builder.push(0, &digests[..40]),
        Err(ManifestError::OutOfOrder { first_chunk: 0, expected: 40 })
    );
    let too_many = [&digests[40..], &[Digest([0; 32])]].concat();
    assert_eq!(builder.push(40, &too_many), Err(ManifestError::TooMany { chunk_count: 70 }));
    assert_eq!(
        builder.clone().finish(),
        Err(ManifestError::Incomplete { digests: 40, chunk_count: 70 })
    );
    // None of the errors did any harm.
    builder.invariants();
    assert_eq!(builder.push(40, &digests[40..]), Ok(true));
    assert_eq!(builder.finish(), Ok(manifest));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_survives_its_parts_and_proves_itself(
        size in 0..300_000usize, chunk_size_log2 in 10..=16u8, seed: u64,
    ) {
        let bytes = content(size, seed);
        let manifest = Manifest::of(&bytes, chunk_size_log2).unwrap();
        let arrived = transfer(&manifest);
        prop_assert_eq!(arrived.as_ref(), Ok(&manifest));
        let parts: Vec<Message> = manifest.parts(0).collect();
        prop_assert_eq!(parts.len(), manifest.digests().len().div_ceil(MANIFEST_PART_DIGESTS_MAX));
        for (chunk, part) in (0..).zip(bytes.chunks(1 << chunk_size_log2)) {
            prop_assert!(manifest.matches(chunk, part));
            prop_assert_eq!(digest_chunk(manifest.key(), chunk, part), manifest.digest(chunk));
        }
    }

    #[test]
    fn one_wrong_bit_in_a_manifest_does_not_verify(
        size in 1..100_000usize, at in any::<Index>(), bit in 0..256usize,
    ) {
        let manifest = Manifest::of(&content(size, 6), 10).unwrap();
        let mut digests = manifest.digests().to_vec();
        let at = at.index(digests.len());
        digests[at].0[bit / 8] ^= 1 << (bit % 8);
        let wrong = Manifest::verify(*manifest.key(), &digests);
        let is_mismatch = matches!(wrong, Err(ManifestError::Mismatch { .. }));
        prop_assert!(is_mismatch, "{:?}", wrong);
    }

    #[test]
    fn another_order_of_digests_does_not_verify(
        chunks in 2..90usize, one in any::<Index>(), other in any::<Index>(),
    ) {
        let manifest = Manifest::of(&content(chunks * 1024, 7), 10).unwrap();
        let mut digests = manifest.digests().to_vec();
        let (one, other) = (one.index(chunks), other.index(chunks));
        digests.swap(one, other);
        prop_assert_eq!(Manifest::verify(*manifest.key(), &digests).is_ok(), one == other);
    }

    #[test]
    fn a_wrong_byte_a_wrong_length_or_place_does_not_match(
        chunks in 2..20usize, at in any::<Index>(), mask in 1..=255u8,
    ) {
        let mut bytes = content(chunks * 2048, 8);
        let manifest = Manifest::of(&bytes, 11).unwrap();
        let at = at.index(bytes.len());
        let chunk = u32::try_from(at / 2048).unwrap();
        let range = (at / 2048) * 2048..(at / 2048 + 1) * 2048;
        prop_assert!(!manifest.matches(chunk, &bytes[range.start..range.end - 1]));
        let elsewhere = (chunk + 1) % u32::try_from(chunks).unwrap();
        prop_assert!(!manifest.matches(elsewhere, &bytes[range.clone()]));
        bytes[at] ^= mask;
        prop_assert!(!manifest.matches(chunk, &bytes[range]));
    }

    #[test]
    fn chunks_may_be_digested_in_any_order_and_pieces(
        size in 1..200_000usize,
        order in any::<u64>(),
        pieces in vec(1..5_000usize, 1..5),
    ) {
        let bytes = content(size, 9);
        let mut hasher = ManifestHasher::new(size as u64, 12).unwrap();
        let mut chunks: Vec<(u32, &[u8])> = (0..).zip(bytes.chunks(4096)).collect();
        chunks.sort_by_key(|(chunk, _)| (u64::from(*chunk) + 1).wrapping_mul(order | 1));
        let mut reused = ChunkHasher::new(hasher.chunk_count(), 0, 12);
        for (chunk, part) in chunks {
            prop_assert!(hasher.finish().is_none());
            reused.restart(hasher.chunk_count(), chunk, 12);
            let (mut rest, mut sizes) = (part, pieces.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                reused.update(piece);
                rest = after;
            }
            prop_assert_eq!(reused.fed_bytes(), part.len() as u64);
            hasher.set(chunk, reused.finalize());
            hasher.set(chunk, reused.finalize());
            hasher.invariants();
        }
        let (key, manifest) = hasher.finish().unwrap();
        prop_assert_eq!(key.id, digest_file(&bytes));
        prop_assert_eq!(&manifest, &Manifest::of(&bytes, 12).unwrap());
    }
}
