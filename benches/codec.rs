//! What bytes cost: control messages, data frames, checksums, digests, seals, manifests.
//!
//! `cargo bench --bench codec`. Of what is on the hot path of a delivery, only the frame's header and
//! (once a chunk, not once a delivery) the checksums and digests are here; copies are the kernel's.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relay::{
    protocol::{
        DataHeader, Decoder, Digest, Manifest, ManifestHasher, Message, Sealed, ShareSecret,
        codec::{MessageDecoder, encode_message, encode_preamble},
        digest_chunk, frame_crc,
        limits::{CHUNK_COUNT_MAX, FRAME_PAYLOAD_BYTES_MAX},
        message::ChunkRange,
    },
    transport::payload::frame_crcs,
};

const CHUNK_BYTES: usize = 256 << 10;

fn chunk() -> Vec<u8> {
    let mut bytes = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn control(criterion: &mut Criterion) {
    let messages = [
        ("progress", Message::Progress { received_bytes: 123_456_789, granted_bytes: 127_651_093 }),
        ("have of 4", Message::Have { ranges: vec![ChunkRange { first: 77, count: 3 }; 4] }),
        ("fetch", Message::Fetch { fetch_id: 9_000, chunk: 300 }),
    ];
    let mut group = criterion.benchmark_group("control");
    group.throughput(Throughput::Elements(1));
    for (name, message) in messages {
        let mut out = Vec::new();
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_message(black_box(&message), &mut out);
            });
        });
        let mut wire = Vec::new();
        encode_message(&message, &mut wire);
        let mut decoder = MessageDecoder::new();
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter(|| {
                let mut input = black_box(&wire[..]);
                decoder.decode(&mut input).expect("our own message").is_some()
            });
        });
    }
    group.finish();
}

/// A decoder that has seen the preamble.
fn greeted() -> Decoder {
    let mut decoder = Decoder::new();
    let preamble = encode_preamble();
    let mut input = &preamble[..];
    decoder.decode(&mut input).expect("our own preamble");
    decoder
}

fn data(criterion: &mut Criterion) {
    let chunk = chunk();
    let mut wire = Vec::new();
    for (index, payload) in chunk.chunks(FRAME_PAYLOAD_BYTES_MAX).enumerate() {
        wire.extend_from_slice(&header(index, payload).encode());
        wire.extend_from_slice(payload);
    }
    let mut group = criterion.benchmark_group("data frames of one chunk of 256 KiB");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    let headers: Vec<DataHeader> =
        chunk.chunks(FRAME_PAYLOAD_BYTES_MAX).enumerate().map(|(i, p)| header(i, p)).collect();
    group.bench_function("encode headers", |bencher| {
        bencher.iter(|| headers.iter().map(|h| h.encode()[0]).fold(0, u8::wrapping_add));
    });
    let mut decoder = greeted();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut input = black_box(&wire[..]);
            let mut pieces = 0;
            while decoder.decode(&mut input).expect("our own frames").is_some() {
                pieces += 1;
            }
            pieces
        });
    });
    group.finish();
}

fn header(index: usize, payload: &[u8]) -> DataHeader {
    DataHeader {
        chunk: 7,
        offset: u32::try_from(index * FRAME_PAYLOAD_BYTES_MAX).expect("within a chunk"),
        payload_len: u32::try_from(payload.len()).expect("a frame"),
        tag: 0,
        checksum: frame_crc(payload),
    }
}

fn verification(criterion: &mut Criterion) {
    let chunk = chunk();
    let file = [&chunk[..], &chunk[..]].concat();
    let manifest = Manifest::of(&file, 18).expect("two chunks");
    let mut group = criterion.benchmark_group("verify one chunk of 256 KiB");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    group.bench_function("CRC-32C of its frames", |bencher| {
        bencher.iter(|| frame_crcs(black_box(&chunk)));
    });
    group.bench_function("BLAKE3", |bencher| {
        bencher.iter(|| digest_chunk(manifest.key(), 0, black_box(&chunk)));
    });
    group.bench_function("both, and compare", |bencher| {
        bencher.iter(|| (frame_crcs(black_box(&chunk)).len(), manifest.matches(0, &chunk)));
    });
    group.finish();
}

fn sealing(criterion: &mut Criterion) {
    let mut chunk = chunk();
    let sealed = Sealed { secret: ShareSecret([7; 16]), plain: Digest([8; 32]) };
    let cipher = sealed.cipher(1 << 30);
    let mut group = criterion.benchmark_group("seal one chunk of 256 KiB");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    group.bench_function("AES-256-CTR", |bencher| {
        bencher.iter(|| cipher.apply(black_box(1 << 20), &mut chunk));
    });
    // An offset within a block takes the crate `aes` alone, whatever wider instructions there are.
    group.bench_function("AES-256-CTR, by the library", |bencher| {
        bencher.iter(|| cipher.apply(black_box((1 << 20) + 1), &mut chunk));
    });
    group.finish();
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    for count in [400, CHUNK_COUNT_MAX] {
        let hashed = hashed(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("merge {count} digests"), |bencher| {
            bencher.iter(|| hashed.finish());
        });
    }
    group.finish();
}

/// A manifest's digests, made up.
fn hashed(count: u32) -> ManifestHasher {
    let mut hasher = ManifestHasher::new(u64::from(count) << 10, 10).expect("a valid size");
    (0..count).for_each(|chunk| {
        hasher.set(chunk, Digest(*blake3::hash(&chunk.to_le_bytes()).as_bytes()));
    });
    hasher
}

criterion_group!(benches, control, data, verification, sealing, manifests);
criterion_main!(benches);
