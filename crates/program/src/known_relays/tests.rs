//! Tests of known relays: what is remembered, what is refused, and many publishers at once.

use std::sync::Barrier;

use super::*;

/// Publishers at once.
const MANY: usize = 16;

fn relay(text: &str) -> RelayAddr {
    text.parse().expect("it is one")
}

fn pin(of: &str) -> Pin {
    Pin::of_public_key(of.as_bytes())
}

fn stage() -> (tempfile::TempDir, PathBuf, KnownRelays) {
    let home = tempfile::tempdir().expect("a directory is made");
    let path = home.path().join("state/relay/known_relays");
    let known = KnownRelays::at(path.clone());
    (home, path, known)
}

/// A file with this text, which its owner alone may write.
fn write(path: &Path, text: &str) {
    make_directories(path.parent().expect("it has one")).expect("it is made");
    std::fs::write(path, text).expect("it is written");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
}

#[test]
fn a_relay_is_believed_at_first_and_held_to_its_pin_then() {
    let (_home, path, known) = stage();
    let (here, old, new) = (relay("Relay.example.org:7440"), pin("old"), pin("new"));
    assert_eq!(known.look(&here), Ok(None));
    assert_eq!(known.meet(&here, old), Ok(Meeting::Remembered));
    assert_eq!(known.look(&here), Ok(Some(old)));
    assert_eq!(known.meet(&here, old), Ok(Meeting::Known));
    // Names have no case; another port is another relay.
    assert_eq!(known.meet(&relay("relay.EXAMPLE.org"), old), Ok(Meeting::Known));
    assert_eq!(known.meet(&relay("relay.example.org:80"), new), Ok(Meeting::Remembered));
    let error = known.meet(&here, new).expect_err("it has changed");
    let path_text = path.display().to_string();
    let advice = format!("--relay {here}#{new}");
    for what in [&*old.to_string(), &path_text, "line 1", "impostor", "operator", &advice] {
        assert!(error.contains(what), "{what} in: {error}");
    }
    assert_eq!(known.look(&here), Ok(Some(old)), "the file is as it was");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert_eq!(text, format!("{here} {old}\nrelay.example.org:80 {new}\n"));
    assert_eq!(path.metadata().expect("it is there").mode() & 0o7777, 0o600);
}

#[test]
fn what_people_write_stays_and_of_two_lines_the_first_counts() {
    let (_home, path, known) = stage();
    let (old, new) = (pin("old"), pin("new"));
    // The last line has no end.
    let text = format!("# of Oslo\n\n[2001:db8::1]:7440\t{old}\n  [2001:db8:0::1]:7440 {new}");
    write(&path, &text);
    let there = relay("[2001:0db8::0001]:7440");
    assert_eq!(known.meet(&there, old), Ok(Meeting::Known));
    assert_eq!(known.judge(&there, old), Ok(None));
    let error = known.meet(&there, new).expect_err("it is the second line's");
    assert!(error.contains("line 3"), "{error}");
    assert_eq!(known.judge(&there, new), Ok(Some(error)));
    assert_eq!(known.judge(&relay("other"), new), Ok(None), "a look remembers nothing");
    assert_eq!(known.meet(&relay("other"), new), Ok(Meeting::Remembered));
    let now = std::fs::read_to_string(&path).expect("it is there");
    assert_eq!(now, format!("{text}\nother:7440 {new}\n"));
}

#[test]
fn a_line_that_makes_no_sense_is_named_and_nothing_is_believed() {
    let (_home, path, known) = stage();
    let good = pin("good");
    for (line, says) in [
        ("relay:7440".to_owned(), "no pin"),
        ("relay:7440 short".to_owned(), "26 characters"),
        (format!("relay {good}"), "port"),
        (format!("relay:7440 {good} more"), "26 characters"),
        (format!("http://relay:7440 {good}"), "URL"),
    ] {
        write(&path, &format!("other:1 {good}\n{line}\n"));
        for found in [known.look(&relay("other:1")).err(), known.meet(&relay("a"), good).err()] {
            let error = found.expect("a line makes no sense");
            assert!(error.contains("line 2") && error.contains(says), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}

#[test]
fn a_file_that_others_may_write_or_that_does_not_end_is_refused() {
    let (home, path, known) = stage();
    write(&path, "");
    for wrong in [0o620, 0o602] {
        std::fs::set_permissions(&path, Permissions::from_mode(wrong)).expect("it is ours");
        let error = known.meet(&relay("a"), pin("a")).expect_err("others may write it");
        assert!(error.contains("chmod 600"), "{error}");
    }
    // To read it is harmless.
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
    assert_eq!(known.look(&relay("a")), Ok(None));
    File::create(&path).and_then(|file| file.set_len(FILE_BYTES_MAX + 1)).expect("it is long");
    assert!(known.look(&relay("a")).is_err_and(|error| error.contains("bytes")));
    assert!(KnownRelays::at(home.path().to_owned()).look(&relay("a")).is_err());
}

#[test]
fn publishers_at_once_lose_no_line_and_one_relay_has_one() {
    let (_home, path, known) = stage();
    let together = Barrier::new(MANY);
    let meet = |number: usize| {
        together.wait();
        let own = relay(&format!("relay{number}"));
        let of_all = relay("of-all");
        [known.meet(&own, pin("own")), known.meet(&of_all, pin("all"))]
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY).map(|number| scope.spawn(move || meet(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(found.iter().all(Result::is_ok), "{found:?}");
    let remembered = found.iter().filter(|found| **found == Ok(Meeting::Remembered)).count();
    assert_eq!(remembered, MANY + 1);
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert_eq!(text.lines().count(), MANY + 1, "{text}");
    assert_eq!(parse(&text).map(|known| known.len()), Ok(MANY + 1));
}

#[test]
fn of_publishers_that_meet_two_keys_at_once_one_is_told() {
    for _ in 0..20 {
        let (_home, _path, known) = stage();
        let together = Barrier::new(2);
        let here = relay("relay");
        let meet = |key: &'static str| {
            together.wait();
            known.meet(&here, pin(key))
        };
        let found = std::thread::scope(|scope| {
            let threads = ["one", "other"].map(|key| scope.spawn(move || meet(key)));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!(found.iter().filter(|found| found.is_err()).count(), 1, "{found:?}");
    }
}

#[test]
fn where_nothing_can_be_kept_the_user_sees_the_pin_and_goes_on() {
    let home = tempfile::tempdir().expect("a directory is made");
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("it is written");
    // What is below a file is no directory: as a home that can't be written, of root too.
    for known in [KnownRelays::at(file.join("relay/known_relays")), KnownRelays { path: None }] {
        let (here, pin) = (relay("relay"), pin("a"));
        assert_eq!(known.look(&here), Ok(None));
        let Ok(Meeting::NotRemembered(warning)) = known.meet(&here, pin) else {
            panic!("nothing can be kept");
        };
        for what in ["warning", &format!("--relay {here}#{pin}")] {
            assert!(warning.contains(what), "{what} in: {warning}");
        }
    }
}
