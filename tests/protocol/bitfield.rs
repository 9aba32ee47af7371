//! The bitfield agrees with a plain set, and its bytes are taken only if they are one.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::Index};
use relay::protocol::Bitfield;

fn assert_agree(set: &Bitfield, model: &BTreeSet<u32>, len: u32) {
    let model_list: Vec<u32> = model.iter().copied().collect();
    assert_eq!(set.iter().collect::<Vec<_>>(), model_list);
    let missing: Vec<u32> = (0..len).filter(|chunk| !model.contains(chunk)).collect();
    assert_eq!(set.iter_missing().collect::<Vec<_>>(), missing);
    assert_eq!(set.count() as usize, model.len());
    assert_eq!(set.is_full(), missing.is_empty());
    assert_eq!((set.len(), set.is_empty()), (len, len == 0));
    assert!((0..len + 70).all(|chunk| set.contains(chunk) == model.contains(&chunk)));
    let bytes = set.to_bytes();
    assert_eq!(bytes.len(), Bitfield::byte_len(len));
    assert_eq!(Bitfield::from_bytes(&bytes, len).as_ref(), Some(set));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bitfield_agrees_with_a_plain_set(
        len in 0..400u32,
        is_full_at_first: bool,
        steps in vec((any::<bool>(), any::<Index>()), 0..60),
    ) {
        let (mut set, mut model) = match is_full_at_first {
            true => (Bitfield::full(len), (0..len).collect()),
            false => (Bitfield::empty(len), BTreeSet::new()),
        };
        assert_agree(&set, &model, len);
        for (is_insert, index) in steps {
            if is_insert && len > 0 {
                let chunk = u32::try_from(index.index(len as usize)).unwrap();
                prop_assert_eq!(set.insert(chunk), model.insert(chunk));
            } else {
                // Beyond the end, too: nothing is there to be taken out.
                let chunk = u32::try_from(index.index(len as usize + 80)).unwrap();
                prop_assert_eq!(set.remove(chunk), model.remove(&chunk));
            }
            set.invariants();
        }
        assert_agree(&set, &model, len);
    }

    #[test]
    fn bytes_are_a_bitfield_only_of_the_right_length_and_with_zeros_beyond(
        bytes in vec(any::<u8>(), 0..60), len in 0..480u32,
    ) {
        let is_valid = bytes.len() == Bitfield::byte_len(len)
            && (len % 8 == 0 || bytes[bytes.len() - 1] >> (len % 8) == 0);
        let set = Bitfield::from_bytes(&bytes, len);
        prop_assert_eq!(set.is_some(), is_valid);
        if let Some(set) = set {
            set.invariants();
            prop_assert_eq!(set.to_bytes(), bytes);
        }
    }
}

#[test]
fn a_bit_beyond_the_end_is_refused_whichever_it_is() {
    for len in 0..200u32 {
        let bytes = Bitfield::full(len).to_bytes();
        assert!(Bitfield::from_bytes(&bytes, len).is_some());
        for bit in len..len.next_multiple_of(8) {
            let mut beyond = Bitfield::empty(len).to_bytes();
            beyond[(bit / 8) as usize] |= 1 << (bit % 8);
            assert_eq!(Bitfield::from_bytes(&beyond, len), None, "bit {bit} of {len}");
        }
    }
}
