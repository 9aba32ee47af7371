//! What may be shared, how it is sealed, and changes that are noticed.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use super::*;

fn open(path: &Path) -> Result<Source, OriginError> {
    Source::open(&[path.to_owned()], Looking::default(), &mut |_| {})
}

fn share(path: &Path) -> Origin {
    let source = open(path).unwrap();
    let log2 = source.chunk_size_log2(10).unwrap();
    source.hash(&HashJob::new(log2, Sealing::Plain), &mut |_| {}).unwrap()
}

fn how(origin: &Origin) -> Option<How> {
    origin.change().map(|change| change.how)
}

#[test]
fn a_file_of_another_length_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 3000]).unwrap();
    let origin = share(&path);
    assert_eq!(how(&origin), None);
    std::fs::write(&path, [7; 2000]).unwrap();
    let resized = How::Resized { before_bytes: 3000, size_bytes: 2000 };
    assert_eq!(how(&origin), Some(resized));
}

#[test]
fn a_file_that_was_replaced_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 3000]).unwrap();
    let origin = share(&path);
    let other = dir.path().join("other");
    std::fs::write(&other, [8; 3000]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(how(&origin), Some(How::Replaced));
}

#[test]
fn a_file_that_was_written_to_is_noticed_though_its_length_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 3000]).unwrap();
    let origin = share(&path);
    let file = File::options().write(true).open(&path).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    file.set_modified(then).unwrap();
    assert_eq!(how(&origin), Some(How::Modified));
}

#[test]
fn a_file_is_sealed_the_same_each_time_and_by_each_user_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for len in [0, 1, 1024, 3000] {
        let bytes = vec![7; len];
        std::fs::write(&path, &bytes).unwrap();
        let (one, two) = (UserSecret([1; 32]), UserSecret([2; 32]));
        let share = |sealing| {
            let mut done = 0;
            let file = open(&path).unwrap();
            let origin = file.hash(&HashJob::new(10, sealing), &mut |bytes| done = bytes).unwrap();
            assert_eq!(done, len as u64 * sealing.passes(), "it tells of all passes");
            let relay = "localhost:1".parse().unwrap();
            (origin.ticket(relay, Pin::of_public_key(b"a key"), None).unwrap().0, origin.plain())
        };
        let (plain_ticket, digest) = share(Sealing::Plain);
        assert!(plain_ticket.to_string().starts_with("relay1"));
        let (ticket, plain) = share(Sealing::By(&one));
        assert_eq!((plain, ticket.plain()), (digest, digest));
        assert_eq!(share(Sealing::By(&one)).0, ticket);
        let sealed = ticket.sealed.clone().unwrap();
        assert_eq!(share(Sealing::As(&sealed)).0, ticket);
        let (other, _) = share(Sealing::By(&two));
        assert_ne!(other.sealed, ticket.sealed);
        // Of nothing there is but one ciphertext.
        assert_eq!(other.key == ticket.key, len == 0);
        assert_eq!(ticket.key == plain_ticket.key, len == 0);
        std::fs::write(&path, vec![8; len + 1]).unwrap();
        let file = open(&path).unwrap();
        let error = file.hash(&HashJob::new(10, Sealing::As(&sealed)), &mut |_| {}).unwrap_err();
        assert!(matches!(error, OriginError::Another(_)), "{error}");
    }
}

#[test]
fn a_file_that_changes_between_the_passes_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let user = UserSecret([1; 32]);
    let bytes = vec![7; 3000];
    for changes in [false, true] {
        std::fs::write(&path, &bytes).unwrap();
        let file = open(&path).unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let mut change = |done: u64| {
            // Once the first pass is over, and the clock of the file does not tell.
            if changes && done == bytes.len() as u64 {
                writer.write_all_at(b"8", 1500).unwrap();
                writer.set_modified(modified).unwrap();
            }
        };
        let shared = file.hash(&HashJob::new(10, Sealing::By(&user)), &mut change);
        match changes {
            true => assert!(matches!(shared, Err(OriginError::Changing(_))), "{shared:?}"),
            false => assert!(shared.is_ok(), "{shared:?}"),
        }
    }
}

#[test]
fn what_has_no_size_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("is a character device") && error.contains("only files"), "{error}");
    let error = open(&dir.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("No such file"), "{error}");
    let error = open(Path::new("-")).unwrap_err().to_string();
    assert!(error.contains("stdin"), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_holds_more_than_the_system_states_is_not_shared_as_empty() {
    for made in ["/proc/self/status", "/proc/version"] {
        let error = open(Path::new(made)).unwrap_err().to_string();
        assert!(error.contains("more than the 0 bytes") && error.contains("copy"), "{error}");
    }
    let made = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if made.exists() {
        let file = open(made).unwrap();
        let error =
            file.hash(&HashJob::new(10, Sealing::Plain), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("less than the 4096 bytes"), "{error}");
    }
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    for (name, len) in [("a", 5000), ("d/b", 300), ("d/c", 0), ("e", 70_000)] {
        let bytes: Vec<u8> = (0..len).map(|i: u32| u8::try_from(i % 249).unwrap()).collect();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn a_tree_is_hashed_as_the_bytes_of_its_bundle_and_called_by_its_directory() {
    let (dir, other) = (tree(), tree());
    let user = UserSecret([3; 32]);
    for sealing in [Sealing::Plain, Sealing::By(&user)] {
        let share = |path: &Path| {
            let source = open(path).unwrap();
            let size_bytes = source.size_bytes();
            let mut done = 0;
            let job = HashJob::new(10, sealing);
            let origin = source.hash(&job, &mut |bytes| done = bytes).unwrap();
            assert_eq!(done, sealing.passes() * size_bytes);
            origin
        };
        let origin = share(dir.path());
        let mut bundle = origin.index().unwrap().header().to_vec();
        for name in ["a", "d/b", "d/c", "e"] {
            bundle.extend(std::fs::read(dir.path().join(name)).unwrap());
        }
        assert_eq!(origin.plain(), relay_protocol::digest_file(&bundle));
        let pin = Pin::of_public_key(b"a key");
        let ticket = |origin: &Origin, name| {
            origin.ticket("localhost:1".parse().unwrap(), pin, name).unwrap().0
        };
        let made = ticket(&origin, None);
        assert_eq!(made.kind, relay_protocol::TicketKind::Bundle);
        assert_eq!(made.name(), dir.path().file_name().unwrap().to_str().unwrap());
        assert_eq!(ticket(&origin, Some("x")).name(), "x");
        assert_eq!(ticket(&share(other.path()), None).key, made.key);
    }
}

#[test]
fn a_change_in_a_tree_is_noticed_with_the_name_of_the_file() {
    let change = |alter: &dyn Fn(&Path)| {
        let dir = tree();
        let origin = share(dir.path());
        assert_eq!(origin.change(), None);
        std::fs::write(dir.path().join("added"), "x").unwrap();
        assert_eq!(origin.change(), None, "what was added is none of it");
        alter(dir.path());
        origin.change().map(|change| (change.of[..4].to_owned(), change.how))
    };
    let resized = How::Resized { before_bytes: 300, size_bytes: 2 };
    let found = change(&|dir| std::fs::write(dir.join("d/b"), "xx").unwrap());
    assert_eq!(found, Some(("d/b ".into(), resized)));
    let found = change(&|dir| std::fs::remove_file(dir.join("d/c")).unwrap());
    assert_eq!(found, Some(("d/c ".into(), How::Gone)));
    let found = change(&|dir| std::fs::rename(dir.join("a"), dir.join("e")).unwrap());
    assert_eq!(found, Some(("a in".into(), How::Gone)));
    let found = change(&|dir| {
        let file = File::options().write(true).open(dir.join("e")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    });
    assert_eq!(found, Some(("e in".into(), How::Modified)));
    // What is no more is told before what may still be the same.
    let found = change(&|dir| {
        let file = File::options().write(true).open(dir.join("a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        std::fs::remove_file(dir.join("e")).unwrap();
    });
    assert_eq!(found, Some(("e in".into(), How::Gone)));
}

#[test]
fn a_tree_that_changes_while_it_is_hashed_is_not_shared() {
    let user = UserSecret([1; 32]);
    for (name, changes_at) in [("a", 0), ("e", 75_000)] {
        let dir = tree();
        let source = open(dir.path()).unwrap();
        if changes_at == 0 {
            std::fs::write(dir.path().join(name), [7; 5000]).unwrap();
        }
        let mut change = |done: u64| {
            if changes_at > 0 && done >= changes_at {
                std::fs::write(dir.path().join(name), vec![8; 70_000]).unwrap();
            }
        };
        let shared = source.hash(&HashJob::new(10, Sealing::By(&user)), &mut change);
        let error = shared.unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, OriginError::Changing(of) if of.starts_with(name)), "{text}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_tree_with_a_file_that_is_shorter_than_the_system_states_is_not_shared() {
    let made = Path::new("/sys/kernel/mm/transparent_hugepage");
    if made.exists() {
        let error = Source::open(&[made.into()], Looking::default(), &mut |_| {})
            .and_then(|source| source.hash(&HashJob::new(10, Sealing::Plain), &mut |_| {}))
            .unwrap_err()
            .to_string();
        assert!(error.contains("less than the 4096 bytes"), "{error}");
    }
}

#[test]
fn what_is_unchanged_is_not_hashed_again_until_that_is_wanted() {
    let (dir, place) = (tree(), tempfile::tempdir().unwrap());
    let cache = HashCache::at(place.path().join("relay"));
    let (one, two) = (UserSecret([1; 32]), UserSecret([2; 32]));
    let share = |paths: &[PathBuf], log2, sealing, rehashes| {
        let source = Source::open(paths, Looking::default(), &mut |_| {}).unwrap();
        let mut read = 0;
        let job = HashJob { cache: Some(&cache), rehashes, ..HashJob::new(log2, sealing) };
        let origin = source.hash(&job, &mut |done| read = done).unwrap();
        assert_eq!(origin.is_remembered(), read == 0);
        assert!(origin.memory_fault().is_none());
        origin
    };
    let whole = [dir.path().to_owned()];
    let fresh = share(&whole, 10, Sealing::By(&one), false);
    assert!(!fresh.is_remembered());
    // It was made just now, and may change once more without another time.
    assert!(!share(&whole, 10, Sealing::By(&one), false).is_remembered());
    let settled = crate::hash_cache::RACY + std::time::Duration::from_millis(100);
    #[expect(clippy::disallowed_methods, reason = "no test can set back the time of a change")]
    std::thread::sleep(settled);
    let file = [dir.path().join("e")];
    for paths in [&whole[..], &file] {
        for sealing in [Sealing::By(&one), Sealing::Plain, Sealing::By(&two)] {
            let first = share(paths, 10, sealing, false);
            assert!(!first.is_remembered());
            let again = share(paths, 10, sealing, false);
            assert!(again.is_remembered());
            assert_eq!(again.manifest(), first.manifest());
            assert_eq!((again.plain(), &again.checksums), (first.plain(), &first.checksums));
            assert!(!share(paths, 10, sealing, true).is_remembered(), "it was to be hashed");
            assert!(share(paths, 10, sealing, false).is_remembered());
        }
        assert!(!share(paths, 11, Sealing::Plain, false).is_remembered());
    }
    let (sealed, _) = fresh.sealed.clone().unwrap();
    assert!(!share(&whole, 10, Sealing::As(&sealed), false).is_remembered());
    let again = share(&whole, 10, Sealing::As(&sealed), false);
    assert!(again.is_remembered() && again.manifest() == fresh.manifest());
    assert!(again.forget() && !fresh.forget());
    let kept = share(&whole, 10, Sealing::As(&sealed), false);
    assert!(!kept.is_remembered() && kept.forget(), "what was kept just now can be forgotten, too");
    assert!(!share(&whole, 10, Sealing::As(&sealed), false).is_remembered());
    // No entry has the secret of a user or of a share.
    for entry in std::fs::read_dir(cache.directory()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [&one.0[..], &sealed.secret.0] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    std::fs::rename(dir.path().join("d/b"), dir.path().join("d/f")).unwrap();
    assert!(!share(&whole, 10, Sealing::Plain, false).is_remembered(), "it has another name");
    let (unwritable, source) = (HashCache::at("/dev/null/x".into()), open(&file[0]).unwrap());
    let job = HashJob { cache: Some(&unwritable), ..HashJob::new(10, Sealing::Plain) };
    assert!(source.hash(&job, &mut |_| {}).unwrap().memory_fault().is_some());
}

#[test]
fn a_block_device_has_the_size_of_what_it_holds() {
    let names = std::fs::read_dir("/sys/class/block").map(|names| names.flatten().collect());
    let names: Vec<std::fs::DirEntry> = names.unwrap_or_default();
    let device = names.iter().find_map(|name| {
        let sectors = std::fs::read_to_string(name.path().join("size")).ok()?;
        let bytes =
            sectors.trim().parse::<u64>().ok()?.checked_mul(512).filter(|&size| size > 0)?;
        let source = open(&Path::new("/dev").join(name.file_name())).ok()?;
        Some((source.size_bytes(), bytes, source.0.is_lasting()))
    });
    match device {
        Some((size_bytes, bytes, is_lasting)) => {
            assert_eq!((size_bytes, is_lasting), (bytes, false), "its times tell of no write");
        }
        None => println!("NOT CHECKED: there is no block device that this user may read"),
    }
}
