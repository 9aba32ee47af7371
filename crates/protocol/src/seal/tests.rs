//! The cipher against published vectors, against itself at odd offsets, and far into a large file.

use super::*;

fn key() -> FileKey {
    FileKey(core::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap()))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|d| char::from(d).to_digit(16))
        .map(|d| u8::try_from(d.unwrap()).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The same by the crate alone, block after block.
fn apply_slowly(cipher: &Cipher, offset_bytes: u64, bytes: &mut [u8]) {
    for (at, byte) in (offset_bytes..).zip(bytes) {
        let piece = core::slice::from_mut(byte);
        cipher.apply_from(u128::from(at / BLOCK_BYTES), at % BLOCK_BYTES, piece);
    }
}

#[test]
fn the_cipher_is_that_of_nist_sp_800_38a_f_5_5() {
    let key = bytes_of("603deb1015ca71be2b73aef0857d7781 1f352c073b6108d72d9810a30914dff4");
    let mut text = bytes_of(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51 \
         30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710",
    );
    let sealed = bytes_of(
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5 \
         2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6",
    );
    let cipher = Cipher::new(&FileKey(key.try_into().unwrap()));
    cipher.apply_from(0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff, 0, &mut text);
    assert_eq!(text, sealed);
}

#[test]
fn pieces_of_any_length_at_any_offset_are_parts_of_one_key_stream() {
    let cipher = Cipher::new(&key());
    let mut whole = vec![0; 5000];
    apply_slowly(&cipher, 0, &mut whole);
    for start in (0..600).chain([1023, 1024, 1025, 2048]) {
        for len in [0, 1, 15, 16, 17, 255, 256, 257, 511, 512, 1024, 2900] {
            let mut piece = vec![0; len];
            cipher.apply(start as u64, &mut piece);
            assert!(piece == whole[start..start + len], "{len} bytes at {start}");
            let mut moved = vec![7; len];
            cipher.apply_to(start as u64, &piece, &mut moved);
            assert!(moved == vec![0; len], "{len} bytes at {start}, to another place");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn registers_of_either_width_make_the_same_key_stream() {
    let Some(keys) = vaes::RoundKeys::new(&key().0) else { return };
    for first_block in [0, 1, 255, u64::from(u32::MAX) - 3, (1 << 60) - 100] {
        let (mut widest, mut half) =
            (vec![0; 4 * vaes::STRIDE_BYTES], vec![0; 4 * vaes::STRIDE_BYTES]);
        keys.apply(first_block, &mut widest);
        keys.clone().narrowed().apply(first_block, &mut half);
        assert!(widest == half, "from block {first_block}");
    }
}

#[test]
fn the_counter_does_not_wrap_beyond_64_gib() {
    let cipher = Cipher::new(&key());
    // A counter of 32 bits would begin again at 64 GiB.
    for boundary in [1 << 36, 1 << 40, 1 << 42, u64::MAX - 4095] {
        let begin: u64 = boundary - 1024;
        let (mut fast, mut slow) = (vec![0; 3000], vec![0; 3000]);
        cipher.apply(begin, &mut fast);
        apply_slowly(&cipher, begin, &mut slow);
        assert!(fast == slow, "at {begin}");
        let mut first = vec![0; 3000];
        cipher.apply(0, &mut first);
        assert!(fast[1024..] != first[..1976], "it begins anew at {boundary}");
    }
}

#[test]
fn opening_is_the_inverse_of_sealing_and_another_key_opens_nothing() {
    let (cipher, other) = (Cipher::new(&key()), Cipher::new(&FileKey([1; 32])));
    let text: Vec<u8> = (0..3000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let mut bytes = text.clone();
    cipher.apply(777, &mut bytes);
    assert_ne!(bytes, text);
    let mut wrong = bytes.clone();
    other.apply(777, &mut wrong);
    assert_ne!(wrong, text);
    cipher.apply(777, &mut bytes);
    assert_eq!(bytes, text);
}

#[test]
fn each_of_secret_content_and_size_makes_another_key() {
    let (plain, other) = (Digest([1; 32]), Digest([2; 32]));
    let secret = |user: u8, plain, size| ShareSecret::derive(&UserSecret([user; 32]), plain, size);
    let base = secret(1, plain, 5);
    assert!(base == secret(1, plain, 5));
    assert!(
        base != secret(2, plain, 5) && base != secret(1, other, 5) && base != secret(1, plain, 6)
    );
    let key = |secret: u8, plain, size| FileKey::derive(&ShareSecret([secret; 16]), plain, size);
    let base = key(1, plain, 5);
    assert!(base == key(1, plain, 5));
    assert!(base != key(2, plain, 5) && base != key(1, other, 5) && base != key(1, plain, 6));
}

#[test]
fn nothing_secret_is_printed_for_debugging() {
    let user = UserSecret([0xab; 32]);
    let sealed = Sealed::by(&user, Digest([1; 32]), 1);
    let key = FileKey::derive(&sealed.secret, sealed.plain, 1);
    let cipher = sealed.cipher(1);
    for (text, secret) in [
        (format!("{user:?}"), &user.0[..]),
        (format!("{:?} {sealed:?}", sealed.secret), &sealed.secret.0[..]),
        (format!("{key:?} {cipher:?}"), &key.0[..]),
    ] {
        let shown: Vec<String> = secret.iter().map(|byte| byte.to_string()).collect();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(&shown.join(", ")) && !text.contains(&hex), "{text}");
    }
}
