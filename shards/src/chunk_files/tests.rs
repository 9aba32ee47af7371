//! Files in a directory that takes some without a name: what is counted, and read. Whether their pages are large
//! is no matter here.

use std::{fs::File, io::IoSlice};

use super::{ChunkFile, ChunkFiles, SeqCst, place, taken_bytes};

const LEN: usize = 5 * 4096 + 1;

/// Files in the system's directory for temporary ones, which takes some without a name.
fn files(files_max: usize, pinned_max: usize) -> ChunkFiles {
    let directory = File::open(std::env::temp_dir()).expect("there is one");
    ChunkFiles::new(directory.into(), files_max, pinned_max)
}

fn file(files: &ChunkFiles) -> ChunkFile {
    let (head, rest) = ([1; 3], [2; LEN - 3]);
    let made = files.create(&[IoSlice::new(&head), IoSlice::new(&rest)]);
    made.expect("there is room").expect("it may exist")
}

#[test]
fn what_files_take_is_counted_and_no_more_exist_than_may() {
    let files = files(2, usize::MAX);
    let (first, second) = (file(&files), file(&files));
    assert!(first.taken_bytes() >= taken_bytes(LEN), "{}", first.taken_bytes());
    assert_eq!(files.bytes(), first.taken_bytes() + second.taken_bytes());
    assert!(files.create(&[IoSlice::new(b"third")]).expect("no error").is_none());
    let most = files.bytes();
    drop(first);
    assert_eq!((files.count(), files.bytes()), (1, second.taken_bytes()));
    drop((second, file(&files)));
    assert_eq!((files.count(), files.bytes(), files.bytes_peak()), (0, 0, most));
}

#[test]
fn a_file_is_read_as_it_was_written_and_not_beyond() {
    let files = files(1, 0);
    let file = file(&files);
    let mut out = vec![9];
    file.append_to(&mut out, 1, 4).expect("within");
    assert_eq!(out, [9, 1, 1, 2, 2]);
    assert!(file.append_to(&mut out, LEN - 1, 2).is_err());
}

#[test]
fn sockets_refer_to_no_more_than_they_may_and_what_is_dropped_counts_until_they_let_go() {
    let files = files(3, 2 * taken_bytes(LEN) + 4096);
    let [first, second, third] = [file(&files), file(&files), file(&files)];
    let taken = first.taken_bytes();
    let of_first = first.pin().expect("there is room");
    let again = first.pin().expect("it is counted");
    assert_eq!(files.pinned_bytes(), taken, "once for all that hold it");
    assert!(of_first.is_of(&first) && !of_first.is_of(&second));
    let of_second = second.pin().expect("there is room");
    assert!(third.pin().is_none());
    assert_eq!(files.pinned_bytes(), 2 * taken);
    drop((first, of_first));
    assert_eq!(files.pinned_bytes(), 2 * taken, "one still refers to it");
    drop(again);
    let of_third = third.pin().expect("there is room again");
    drop((of_second, of_third, second, third));
    assert_eq!((files.pinned_bytes(), files.count()), (0, 0));
}

/// Threads that take and drop pins of one file never let it be counted twice, or not at all.
#[test]
fn pins_of_many_threads_count_a_file_once() {
    let files = files(1, usize::MAX);
    let file = file(&files);
    let pin = || {
        for _ in 0..10_000 {
            let pin = file.pin().expect("there is room");
            let pinned = files.pinned_bytes();
            // Another thread that has reserved it and finds it counted gives that back at once.
            assert!(pinned >= file.taken_bytes() && pinned <= 4 * file.taken_bytes());
            drop(pin);
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(pin))));
    assert_eq!(files.pinned_bytes(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_is_one_with_large_pages_or_there_is_a_reason_and_what_mends_it() {
    use place::{Choice, find};
    let named = |path: &str| find(&path.parse().expect("any text is one"), 1 << 20);
    assert!(named("none").directory.is_none() && named("none").mend.is_none());
    let disk = named(env!("CARGO_MANIFEST_DIR"));
    assert!(disk.directory.is_none() && disk.mend.is_some(), "{disk}");
    let absent = named("/no/such/directory");
    assert!(absent.directory.is_none() && absent.to_string().contains("/no/such"), "{absent}");
    // What this machine allows is its own affair; whatever it is, it is told.
    let own = find(&Choice::Auto, 4 << 20);
    assert_eq!(own.directory.is_some(), own.mend.is_none(), "{own}");
    if let Some(directory) = own.directory {
        let files = ChunkFiles::new(directory, 1, usize::MAX);
        assert_eq!(file(&files).taken_bytes(), taken_bytes(LEN), "no more than it needs");
    }
}

/// The kernel's counters of large pages are of the whole system: what others make there is no sign of this place.
#[cfg(target_os = "linux")]
#[test]
fn large_pages_that_others_get_are_no_sign_of_a_place() {
    use place::{Choice, find};
    let shared = || find(&Choice::Directory("/dev/shm".into()), 1 << 20);
    let own = find(&Choice::Auto, 32 << 20);
    let is_usable = shared().directory.is_some();
    let Some(directory) = own.directory.filter(|_| !own.what.contains("/dev/shm")) else { return };
    let files = ChunkFiles::new(directory, 16, usize::MAX);
    let has_ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let parts = [1; 64 << 10];
            while !has_ended.load(SeqCst) {
                files.create(&[IoSlice::new(&parts)]).expect("there is room");
            }
        });
        let found = (0..50).filter(|_| shared().directory.is_some()).count();
        has_ended.store(true, SeqCst);
        assert_eq!(found, if is_usable { 50 } else { 0 });
    });
}

/// What a place has no room for is counted nowhere.
#[cfg(target_os = "linux")]
#[test]
fn a_full_place_refuses_and_takes_files_again_when_some_have_gone() {
    use place::{Choice, find};
    let Some(directory) = find(&Choice::Auto, 600 << 10).directory else { return };
    let files = ChunkFiles::new(directory, 16, usize::MAX);
    let parts = vec![1; 256 << 10];
    let create = || files.create(&[IoSlice::new(&parts)]);
    let kept: Vec<ChunkFile> = std::iter::from_fn(|| create().ok().flatten()).take(16).collect();
    if kept.len() == 16 {
        // It is /dev/shm, which has room for more.
        return;
    }
    let error = create().expect_err("it is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert_eq!((files.count(), files.bytes()), (2, 2 * taken_bytes(parts.len())));
    drop(kept);
    assert!(create().is_ok_and(|file| file.is_some()), "there is room again");
    assert_eq!((files.count(), files.bytes()), (0, 0));
}
