//! What was shared before and is unchanged is not hashed again, and what was remembered wrongly does no harm.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use relay::client::hash_cache::RACY;
use rustix::process::Signal;

use crate::{
    programs::{peer, relay},
    support::{
        pause,
        process::{RelayProcess, run},
        wait_until,
    },
    trees_shared::{share, shared, tree},
};

/// After this a file that is not touched is believed to be the same by its stamp.
const SETTLED: Duration = RACY.saturating_add(Duration::from_millis(200));

fn names(place: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(place.join("relay"));
    entries.map_or(Vec::new(), |entries| entries.map(|e| e.expect("readable").path()).collect())
}

#[test]
fn an_unchanged_directory_or_file_is_not_hashed_again_unless_that_is_wished() {
    let relay = RelayProcess::start(relay(), &[]);
    let (dir, root) = tree();
    let (cache, state) = (dir.path().join("cache"), dir.path().join("state"));
    let file = root.join("README");
    pause(SETTLED);
    for path in [&root, &file] {
        let path = path.to_str().expect("text");
        let again = |more: &[&str]| {
            let mut command = share(&relay, &[path, "--json"]);
            command.args(more).env_remove("PEER_PLAIN");
            command.env("XDG_CACHE_HOME", &cache).env("XDG_STATE_HOME", &state);
            let (running, ticket) = shared(&mut command);
            let line: serde_json::Value =
                serde_json::from_str(running.stdout().lines().next().unwrap_or_default())
                    .expect("an object");
            let said = running.stderr();
            running.signal(Signal::INT);
            assert_eq!(running.wait().code, 0);
            let is_remembered = line["hashes_remembered"] == true;
            assert_eq!(said.contains("was hashed before"), is_remembered, "{said}");
            (is_remembered, ticket)
        };
        let (is_remembered, first) = again(&[]);
        assert!(!is_remembered);
        assert_eq!(again(&[]), (true, first.clone()));
        assert_eq!(again(&["--rehash"]), (false, first.clone()));
        assert_eq!(again(&["--ticket", &first.to_string()]).1, first);
        assert!(!again(&["--chunk", "64K"]).0);
    }
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&cache.join("relay")), 0o700);
    assert!(names(&cache).iter().all(|path| mode(path) == 0o600));
}

#[test]
fn without_a_place_to_remember_a_share_goes_on_with_one_note() {
    let relay = RelayProcess::start(relay(), &[]);
    let (_dir, root) = tree();
    pause(SETTLED);
    let mut command = share(&relay, &[root.to_str().expect("text")]);
    let (running, _) = shared(command.env("XDG_CACHE_HOME", "/dev/null"));
    let said = running.stderr();
    assert_eq!(said.matches("its hashes can't be remembered").count(), 1, "{said}");
    let mut command = share(&relay, &[root.to_str().expect("text")]);
    let (running, _) = shared(command.env("XDG_CACHE_HOME", "").env_remove("HOME"));
    assert!(!running.stderr().contains("hashes"), "{}", running.stderr());
}

/// An entry for what `key` names, with the hashes of what `of` is an entry for. The form is that of the cache, so what
/// is wrong with it is only that it is of another content.
fn forged(key: &Path, of: &Path) {
    const KEY: std::ops::Range<usize> = 8..40;
    let (own, other) = (fs::read(key).expect("it is there"), fs::read(of).expect("it is there"));
    let mut forged = other[..other.len() - 32].to_vec();
    forged[KEY].copy_from_slice(&own[KEY]);
    let context = "relay 2026 checksum of an entry of the hash cache";
    let sum = blake3::derive_key(context, &forged);
    forged.extend_from_slice(&sum);
    fs::write(key, forged).expect("writable");
}

#[test]
fn content_that_is_not_what_is_remembered_is_not_served_and_is_forgotten() {
    let relay = RelayProcess::start(relay(), &[]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let cache = dir.path().join("cache");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    for name in ["one", "two"] {
        fs::write(path(name), name.repeat(1000)).expect("writable");
    }
    pause(SETTLED);
    let with_cache = |command: &mut Command| {
        command.env("XDG_CACHE_HOME", &cache);
    };
    let mut entries = Vec::new();
    for name in ["one", "two"] {
        let mut command = share(&relay, &[&path(name)]);
        with_cache(&mut command);
        shared(&mut command).0.kill();
        entries.extend(names(&cache).into_iter().find(|path| !entries.contains(path)));
    }
    let [one, two] = &entries[..] else { panic!("{entries:?}") };
    forged(one, two);
    let mut command = share(&relay, &[&path("one")]);
    with_cache(&mut command);
    let (running, ticket) = shared(&mut command);
    assert!(running.stderr().contains("was hashed before"), "{}", running.stderr());
    let got = run(&mut peer(&["get", &ticket.to_string(), "-o", &path("got"), "--timeout", "5s"]));
    assert_eq!(got.code, 1, "{}", got.stderr);
    let end = running.wait();
    assert_eq!(end.code, 1, "{}", end.stderr);
    for part in
        ["looks unchanged since it was hashed", "peer share --rehash", "Nothing wrong was sent"]
    {
        assert!(end.stderr.contains(part), "{part}: {}", end.stderr);
    }
    assert!(!one.exists() && two.exists(), "the wrong entry is forgotten");
    let mut command = share(&relay, &[&path("one")]);
    with_cache(&mut command);
    let (running, right) = shared(&mut command);
    assert!(right.key != ticket.key && !running.stderr().contains("was hashed before"));
    wait_until("a new entry", || one.exists());
}
