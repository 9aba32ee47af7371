//! What is remembered is told again, unless it is damaged, or too old among too many.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn remembered(len: usize) -> Remembered {
    let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    let manifest = Manifest::of(&bytes, 10).unwrap();
    let checksums = bytes.chunks(1024).map(crate::hashing::chunk_checksum).collect();
    Remembered { plain: manifest.key().id, manifest, checksums }
}

fn key(number: u8) -> CacheKey {
    CacheKey([number; 32])
}

fn cache() -> (tempfile::TempDir, HashCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = HashCache::at(dir.path().join("deep/er"));
    (dir, cache)
}

#[test]
fn what_is_remembered_is_told_again_until_it_is_forgotten() {
    let (_dir, cache) = cache();
    for (number, len) in [(1, 0), (2, 1), (3, 5000)] {
        assert_eq!(cache.get(&key(number)), None);
        cache.put(&key(number), &remembered(len)).unwrap();
        assert_eq!(cache.get(&key(number)), Some(remembered(len)));
    }
    cache.put(&key(3), &remembered(9000)).unwrap();
    assert_eq!(cache.get(&key(3)), Some(remembered(9000)), "the later one counts");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(cache.directory()), 0o700);
    assert_eq!(mode(&cache.path(&key(1))), 0o600);
    assert_eq!(fs::read_dir(cache.directory()).unwrap().count(), 3, "nothing else is left");
    cache.forget(&key(1));
    cache.forget(&key(9));
    assert_eq!(cache.get(&key(1)), None);
    assert_eq!(cache.get(&key(2)), Some(remembered(1)));
}

#[test]
fn a_damaged_entry_is_as_good_as_none() {
    let (_dir, cache) = cache();
    let path = cache.path(&key(1));
    cache.put(&key(1), &remembered(3000)).unwrap();
    let right = fs::read(&path).unwrap();
    for at in (0..right.len()).step_by(11) {
        let mut damaged = right.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        assert_eq!(cache.get(&key(1)), None, "byte {at}");
        assert!(!path.exists(), "it is gone");
    }
    for len in 0..right.len() {
        assert_eq!(decode(&key(1), &right[..len]), None, "{len} bytes");
    }
    // One with a right checksum under another's name, and one whose digests are those of another content.
    fs::write(&path, &right).unwrap();
    fs::rename(&path, cache.path(&key(2))).unwrap();
    assert_eq!(cache.get(&key(2)), None);
    let mut forged = right[..right.len() - CHECKSUM_BYTES].to_vec();
    forged[HEAD_BYTES] ^= 1;
    let sum = checksum(&forged);
    forged.extend_from_slice(&sum);
    assert_eq!(decode(&key(1), &forged), None);
}

#[test]
fn the_oldest_go_when_there_are_too_many() {
    let (_dir, cache) = cache();
    for number in 1..=6 {
        cache.put(&key(number), &remembered(1000)).unwrap();
        let file = File::open(cache.path(&key(number))).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(number));
        file.set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    }
    fs::write(cache.directory().join("not ours"), [0; 9000]).unwrap();
    assert!(cache.get(&key(1)).is_some(), "it was of use just now");
    let len = fs::metadata(cache.path(&key(1))).unwrap().len();
    cache.trim(5, u64::MAX).unwrap();
    cache.trim(9, 3 * len).unwrap();
    let left: Vec<u8> = (1..=6).filter(|&number| cache.path(&key(number)).exists()).collect();
    assert_eq!(left, [1, 5, 6]);
    assert!(cache.directory().join("not ours").exists());
}

#[test]
fn without_a_place_nothing_is_remembered_and_nothing_else_happens() {
    let cache = HashCache::at("/dev/null/relay".into());
    assert!(cache.put(&key(1), &remembered(10)).is_err());
    assert_eq!(cache.get(&key(1)), None);
    cache.forget(&key(1));
}

#[test]
fn what_was_touched_just_before_it_was_read_is_not_settled() {
    let began = (1000, 500);
    for (latest, settled) in [
        ((998, 499), true),
        ((998, 500), false),
        ((999, 0), false),
        ((1000, 500), false),
        ((2000, 0), false),
        ((-5, 0), true),
    ] {
        assert_eq!(is_settled(latest, began), settled, "{latest:?}");
    }
    let now = moment_now();
    assert!(now.0 > 1_700_000_000 && now.1 < 1_000_000_000, "{now:?}");
}

#[test]
fn what_others_could_have_put_there_is_not_believed() {
    let (_dir, cache) = cache();
    cache.put(&key(1), &remembered(3000)).unwrap();
    let allow = |mode| {
        fs::set_permissions(cache.directory(), fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(0o777);
    assert_eq!(cache.get(&key(1)), None);
    let error = cache.put(&key(2), &remembered(1)).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    allow(0o700);
    assert!(cache.get(&key(1)).is_some(), "it is still there");
    // A link, and a pipe whose other end nothing opens.
    let path = cache.path(&key(1));
    let elsewhere = cache.directory().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert_eq!(cache.get(&key(1)), None);
    let path = cache.path(&key(3));
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    assert_eq!(cache.get(&key(3)), None);
}
