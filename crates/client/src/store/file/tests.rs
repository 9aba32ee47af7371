//! A file store gives back what was put in, and nothing else.

use std::{os::unix::fs::FileExt as _, sync::mpsc};

use shards::{Driver, block_on};

use super::*;
use crate::store::{MemoryStore, OpeningStore};
use relay_protocol::{Manifest, Sealed, ShareSecret, digest_file};

const LOG2: u8 = 10;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// Runs a body on an event loop, and gives a failure in it to the test.
fn on_a_loop<F: Future<Output = ()> + 'static>(body: impl FnOnce(Disk) -> F + 'static) {
    let (sender, receiver) = mpsc::channel();
    let run = async move {
        body(Disk::start().unwrap()).await;
        sender.send(()).unwrap();
    };
    block_on(Driver::Epoll, run).unwrap();
    receiver.try_recv().expect("the body came to its end");
}

async fn next(store: &mut FileStore) -> StoreEvent {
    let bell = Rc::new(LocalBell::new());
    assert!(store.watch(&bell));
    loop {
        if let Some(event) = store.poll_event() {
            return event;
        }
        bell.wait().await;
    }
}

async fn get(store: &mut FileStore, manifest: &Manifest, chunk: u32) -> io::Result<Bytes> {
    assert!(store.get(7, chunk, manifest.digest(chunk)).unwrap().is_none());
    match next(store).await {
        StoreEvent::Read { tag: 7, chunk: read, result } if read == chunk => result,
        event => panic!("{event:?}"),
    }
}

#[test]
fn every_chunk_comes_back_for_awkward_sizes() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 1023, 1024, 1025, 2048, 5000] {
            let bytes = content(len);
            let manifest = Manifest::of(&bytes, LOG2).unwrap();
            let key = *manifest.key();
            let memory = MemoryStore::new(key, bytes.clone().into());
            let path = dir.path().join(format!("{len}"));
            let mut file = FileStore::create(key, &path, &disk).unwrap();
            let backwards: Vec<u32> = (0..key.chunk_count()).rev().collect();
            for &chunk in &backwards {
                file.put(chunk, memory.chunk(chunk));
            }
            for &chunk in &backwards {
                let kept = next(&mut file).await;
                assert!(
                    matches!(kept, StoreEvent::Kept { chunk: c, result: Ok(()) } if c == chunk),
                    "in the order of the puts: {kept:?}"
                );
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            let mut again = FileStore::open(key, &path, &disk).unwrap();
            for chunk in 0..key.chunk_count() {
                assert_eq!(get(&mut again, &manifest, chunk).await.unwrap(), memory.chunk(chunk));
            }
        }
    });
}

#[test]
fn a_file_that_changed_or_shrank_is_not_served() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes = content(5000);
        let manifest = Manifest::of(&bytes, LOG2).unwrap();
        let checksums: Vec<u64> = bytes.chunks(1 << LOG2).map(chunk_checksum).collect();
        for knows_checksums in [false, true] {
            std::fs::write(&path, &bytes).unwrap();
            let mut store = FileStore::open(*manifest.key(), &path, &disk).unwrap();
            if knows_checksums {
                store = store.with_checksums(checksums.clone().into());
            }
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"?", 1030).unwrap();
            assert!(get(&mut store, &manifest, 0).await.is_ok());
            let error = get(&mut store, &manifest, 1).await.unwrap_err();
            assert!(error.to_string().contains("has changed at bytes 1024"), "{error}");
            file.set_len(4999).unwrap();
            let error = get(&mut store, &manifest, 4).await.unwrap_err();
            assert!(error.to_string().contains("has shrunk: it had 5000 bytes"), "{error}");
        }
    });
}

#[test]
fn a_write_that_fails_is_told() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content(10)).unwrap();
        let manifest = Manifest::of(&content(10), LOG2).unwrap();
        let read_only = File::open(&path).unwrap();
        let mut store = FileStore::new(*manifest.key(), Arc::new(read_only), true, &disk);
        store.put(0, content(10).into());
        assert!(matches!(next(&mut store).await, StoreEvent::Kept { chunk: 0, result: Err(_) }));
        assert!(!store.is_full(), "what failed waits no longer");
    });
}

#[test]
fn a_store_with_much_to_write_is_full_until_the_disk_has_caught_up() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let key = SwarmKey { id: Digest([0; 32]), size_bytes: 1 << 30, chunk_size_log2: 24 };
        let mut store = FileStore::create(key, &dir.path().join("file"), &disk).unwrap();
        let bytes = Bytes::from(vec![1; 16 << 20]);
        for chunk in 0..3 {
            assert!(!store.is_full());
            store.put(chunk, bytes.clone());
        }
        assert!(store.is_full());
        for _ in 0..3 {
            next(&mut store).await;
        }
        assert!(!store.is_full());
    });
}

#[test]
fn a_file_of_another_length_is_refused() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content(10)).unwrap();
        let key = *Manifest::of(&content(11), LOG2).unwrap().key();
        let error = FileStore::open(key, &path, &disk).unwrap_err();
        assert!(error.to_string().contains("10 bytes now"), "{error}");
    });
}

/// A file, how it is sealed, and what the swarm moves of it.
fn sealed(len: usize) -> (Vec<u8>, Sealed, Bytes, Manifest) {
    let bytes = content(len);
    let sealed = Sealed { secret: ShareSecret([5; 16]), plain: digest_file(&bytes) };
    let mut moved = bytes.clone();
    sealed.cipher(len as u64).apply(0, &mut moved);
    let manifest = Manifest::of(&moved, LOG2).unwrap();
    (bytes, sealed, moved.into(), manifest)
}

#[test]
fn a_sealed_file_lies_open_on_disk_and_leaves_it_sealed() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 1023, 1024, 1025, 5000] {
            let (bytes, sealed, moved, manifest) = sealed(len);
            let key = *manifest.key();
            let moved = MemoryStore::new(key, moved);
            let path = dir.path().join(format!("{len}"));
            let opening = Opening::new(&sealed, &key);
            let store = FileStore::create(key, &path, &disk).unwrap();
            let mut store = store.with_opening(opening.clone());
            for chunk in (0..key.chunk_count()).rev() {
                store.put(chunk, moved.chunk(chunk));
                let kept = next(&mut store).await;
                assert!(matches!(kept, StoreEvent::Kept { result: Ok(()), .. }), "{kept:?}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert!(opening.check().is_ok());
            let seal = Seal::new(&sealed, key.size_bytes);
            let mut shared = FileStore::open(key, &path, &disk).unwrap().with_seal(seal.clone());
            let memory = MemoryStore::new(key, bytes.clone().into());
            let mut memory = memory.with_seal(Some(seal));
            for chunk in 0..key.chunk_count() {
                let expected = moved.chunk(chunk);
                assert_eq!(get(&mut store, &manifest, chunk).await.unwrap(), expected);
                assert_eq!(get(&mut shared, &manifest, chunk).await.unwrap(), expected);
                let given = memory.get(1, chunk, manifest.digest(chunk)).unwrap();
                assert_eq!(given, Some(expected));
                assert!(memory.get(1, chunk, Digest([1; 32])).is_err(), "it is checked");
            }
        }
    });
}

#[test]
fn a_sealed_chunk_that_changed_by_one_bit_never_leaves_the_disk() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (bytes, sealed, _, manifest) = sealed(1024 + 40);
        std::fs::write(&path, &bytes).unwrap();
        let seal = Seal::new(&sealed, bytes.len() as u64);
        let mut store = FileStore::open(*manifest.key(), &path, &disk).unwrap().with_seal(seal);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(get(&mut store, &manifest, 1).await.is_ok(), "it is what it was");
        for bit in 0..40 * 8_u64 {
            let at = 1024 + bit / 8;
            let was = bytes[usize::try_from(at).unwrap()];
            file.write_all_at(&[was ^ 1 << (bit % 8)], at).unwrap();
            let error = get(&mut store, &manifest, 1).await.unwrap_err();
            assert!(error.to_string().contains("has changed at bytes 1024"), "{error}");
            file.write_all_at(&[was], at).unwrap();
        }
        assert!(get(&mut store, &manifest, 0).await.is_ok());
        assert!(get(&mut store, &manifest, 1).await.is_ok(), "it is what it was again");
    });
}

#[test]
fn the_last_chunk_of_a_wrong_ticket_is_not_kept_in_any_store() {
    on_a_loop(async |disk| {
        let dir = tempfile::tempdir().unwrap();
        let (_, right, moved, manifest) = sealed(5000);
        let key = *manifest.key();
        let moved = MemoryStore::new(key, moved);
        for (is_right, sealed) in [
            (true, right.clone()),
            (false, Sealed { secret: ShareSecret([6; 16]), ..right.clone() }),
            (false, Sealed { plain: Digest([6; 32]), ..right.clone() }),
        ] {
            let file = FileStore::create(key, &dir.path().join("x"), &disk).unwrap();
            let file = file.with_opening(Opening::new(&sealed, &key));
            let opens = OpeningStore::new(Opening::new(&sealed, &key), Box::new(moved.clone()));
            let (mut file, mut opens): (Box<dyn ChunkStore>, Box<dyn ChunkStore>) =
                (Box::new(file), Box::new(opens));
            for chunk in [4, 0, 3, 1, 2] {
                file.put(chunk, moved.chunk(chunk));
                let mut bytes = BytesMut::from(&*moved.chunk(chunk));
                let seal = opens.opens().expect("it opens").clone();
                let noted = opens.note_opened(chunk, seal.turn(&key, chunk, &mut bytes, None));
                let bell = Rc::new(LocalBell::new());
                assert!(file.watch(&bell));
                let kept = loop {
                    match file.poll_event() {
                        Some(StoreEvent::Kept { chunk: kept, result }) if kept == chunk => {
                            break result;
                        }
                        Some(event) => panic!("{event:?}"),
                        None => bell.wait().await,
                    }
                };
                for result in [kept, noted] {
                    assert_eq!(result.is_ok(), is_right || chunk != 2, "chunk {chunk}");
                    if let Err(error) = result {
                        let wrong = crate::sealing::wrong_plain(&error).expect("that is why");
                        assert_eq!(wrong.plain, sealed.plain);
                    }
                }
            }
        }
    });
}
