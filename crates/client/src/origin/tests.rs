//! What may be shared, how it is sealed, and changes that are noticed.

use std::os::unix::fs::FileExt as _;

use super::*;

fn share(path: &Path) -> OriginFile {
    let file = OpenFile::open(path).unwrap();
    let log2 = file.chunk_size_log2(10).unwrap();
    file.hash(log2, Sealing::Plain, &mut |_| {}).unwrap()
}

#[test]
fn a_file_of_another_length_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [7; 3000]).unwrap();
    let origin = share(&path);
    assert_eq!(origin.change(), None);
    std::fs::write(&path, [7; 2000]).unwrap();
    assert_eq!(origin.change(), Some(Change::Resized { size_bytes: 2000 }));
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
    assert_eq!(origin.change(), Some(Change::Replaced));
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
    assert_eq!(origin.change(), Some(Change::Modified));
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
            let file = OpenFile::open(&path).unwrap();
            let origin = file.hash(10, sealing, &mut |bytes| done = bytes).unwrap();
            assert_eq!(done, len as u64 * sealing.passes(), "it tells of all passes");
            let relay = "localhost:1".parse().unwrap();
            (origin.ticket(relay, Pin::of_public_key(b"a key")).unwrap().0, origin.plain())
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
        let file = OpenFile::open(&path).unwrap();
        let error = file.hash(10, Sealing::As(&sealed), &mut |_| {}).unwrap_err();
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
        let file = OpenFile::open(&path).unwrap();
        let modified = file.file.metadata().unwrap().modified().unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let mut change = |done: u64| {
            // Once the first pass is over, and the clock of the file does not tell.
            if changes && done == bytes.len() as u64 {
                writer.write_all_at(b"8", 1500).unwrap();
                writer.set_modified(modified).unwrap();
            }
        };
        let shared = file.hash(10, Sealing::By(&user), &mut change);
        match changes {
            true => assert!(matches!(shared, Err(OriginError::Changing(_))), "{shared:?}"),
            false => assert!(shared.is_ok(), "{shared:?}"),
        }
    }
}

#[test]
fn only_regular_files_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let error = OpenFile::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is a directory") && error.contains("tar"), "{error}");
    let error = OpenFile::open(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("only regular files"), "{error}");
    let error = OpenFile::open(&dir.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("No such file"), "{error}");
    let error = OpenFile::open(Path::new("-")).unwrap_err().to_string();
    assert!(error.contains("stdin"), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_holds_more_than_the_system_states_is_not_shared_as_empty() {
    for made in ["/proc/self/status", "/proc/version"] {
        let error = OpenFile::open(Path::new(made)).unwrap_err().to_string();
        assert!(error.contains("more than the 0 bytes") && error.contains("copy"), "{error}");
    }
    let made = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if made.exists() {
        let file = OpenFile::open(made).unwrap();
        let error = file.hash(10, Sealing::Plain, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("less than the 4096 bytes"), "{error}");
    }
}
