//! Tests of files of secrets: who may read them, first starts at once, and every way in which one can't be made.
//! Some run this program once more, as a process of its own.

use std::{
    collections::BTreeSet,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    process::{Command, Output, Stdio},
    sync::Barrier,
};

use tempfile::TempDir;

use super::*;

/// What tests put into a file, and never want to see in a message.
const CONTENT: &[u8] = b"hush-hush-hush";

/// How many come at once.
const MANY: usize = 16;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory is made")
}

fn open_at(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut make = || Ok(Zeroizing::new(CONTENT.to_vec()));
    open(Some(path), "secret", "the secret of tests", "--secret-file", &mut make)
}

/// The message, which must say these things and nothing of the content.
fn refused(path: &Path, says: &[&str]) -> String {
    let error = open_at(path).expect_err("it can't be opened");
    for what in says.iter().chain(&["the secret of tests"]) {
        assert!(error.contains(what), "{what} in: {error}");
    }
    assert!(!error.contains("hush"), "{error}");
    error
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Names in a directory: a temporary file that was left would be among them.
fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).expect("a directory");
    let name = |entry: io::Result<std::fs::DirEntry>| {
        String::from_utf8_lossy(entry.expect("an entry").file_name().as_bytes()).into_owned()
    };
    entries.map(name).collect()
}

/// Runs one of the tests below in a process of its own, with this variable set, by way of a shell that first runs
/// `before`.
fn child(before: &str, test: &str, state_home: &Path) -> Command {
    let program = std::env::current_exe().expect("a program knows where it is");
    let script = format!("{before}\nexec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program).args(["--exact", "--nocapture"]);
    command.arg(format!("secret_file::tests::{test}"));
    command.env(CHILD, "1").env("XDG_STATE_HOME", state_home).stdin(Stdio::null());
    command
}

/// Set in a child that is to act.
const CHILD: &str = "SECRET_FILE_TEST_CHILD";

/// What a child found, as it said on a line of its own.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("CHILD ").map(|(_, said)| said));
    line.unwrap_or_else(|| panic!("a child says what it found: {output:?}")).to_owned()
}

/// Acts only as a child: opens a secret of its own making by the environment's place, and says what it got.
#[test]
fn as_a_child_a_secret_is_opened() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let own = format!("hush of {}", std::process::id());
    let mut make = || Ok(Zeroizing::new(own.clone().into_bytes()));
    match open(None, "secret", "the secret of tests", "--secret-file", &mut make) {
        Ok(content) => println!("CHILD {}", String::from_utf8_lossy(&content)),
        Err(error) => println!("CHILD error: {error}"),
    }
}

#[test]
fn a_secret_is_made_once_and_is_its_owners_alone() {
    let home = directory();
    let path = home.path().join("state/relay/secret");
    assert_eq!(open_at(&path).expect("it is made").as_slice(), CONTENT);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&home.path().join("state")), 0o700);
    assert_eq!(mode(&home.path().join("state/relay")), 0o700);
    assert_eq!(names(path.parent().expect("it has one")), ["secret"]);
    let mut make = || panic!("it is there");
    let again = open(Some(&path), "secret", "the secret", "--secret-file", &mut make);
    assert_eq!(again.expect("it is read").as_slice(), CONTENT);
}

#[test]
fn a_secret_that_others_may_read_or_write_is_refused_with_what_to_do() {
    let home = directory();
    let path = home.path().join("secret");
    std::fs::write(&path, CONTENT).expect("it is written");
    for wrong in [0o604, 0o602, 0o644, 0o620, 0o666] {
        set_mode(&path, wrong);
        let command = format!("`chmod 600 {}`", path.display());
        refused(&path, &[&command, &format!("{wrong:04o}")]);
    }
    for right in [0o600, 0o400, 0o700] {
        set_mode(&path, right);
        assert!(open_at(&path).is_ok(), "{right:o}");
    }
    // One that root owns may be read by the group that root gave it, and by no more.
    for (owner, mode, is_right) in [
        (1000, 0o640, false),
        (1000, 0o440, false),
        (1000, 0o600, true),
        (0, 0o440, true),
        (0, 0o640, true),
        (0, 0o660, false),
        (0, 0o444, false),
        (0, 0o644, false),
    ] {
        assert_eq!(is_for_few(owner, mode), is_right, "{owner} {mode:o}");
    }
}

#[test]
fn a_mounted_secret_is_reached_through_its_links() {
    let home = directory();
    std::fs::create_dir(home.path().join("data")).expect("a directory is made");
    let real = home.path().join("data/secret");
    std::fs::write(&real, CONTENT).expect("it is written");
    set_mode(&real, 0o400);
    let link = home.path().join("secret");
    symlink("data/secret", &link).expect("a link is made");
    assert_eq!(open_at(&link).expect("it is read").as_slice(), CONTENT);
    set_mode(&real, 0o644);
    refused(&link, &["chmod 600"]);
    // Nothing is made at the other end of a link: it is someone else's place.
    let dangling = home.path().join("dangling");
    symlink("nowhere", &dangling).expect("a link is made");
    refused(&dangling, &["link", "--secret-file"]);
    assert_eq!(names(home.path()).len(), 3);
}

#[test]
fn what_is_no_file_of_a_secrets_size_is_refused() {
    let home = directory();
    refused(home.path(), &["regular file", "--secret-file"]);
    refused("/dev/zero".as_ref(), &["regular file"]);
    let pipe = home.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("the command is there");
    assert!(made.success());
    refused(&pipe, &["regular file"]);
    let path = home.path().join("secret");
    for (size, says) in [(0, "empty"), (FILE_BYTES_MAX + 1, "bytes")] {
        std::fs::write(&path, vec![7; size]).expect("it is written");
        set_mode(&path, 0o600);
        refused(&path, &[says, "--secret-file"]);
    }
    std::fs::write(&path, vec![7; FILE_BYTES_MAX]).expect("it is written");
    assert_eq!(open_at(&path).expect("it is read").len(), FILE_BYTES_MAX);
}

#[test]
fn threads_that_make_one_at_once_agree() {
    for _ in 0..20 {
        let home = directory();
        let path = home.path().join("a/b/secret");
        let together = Barrier::new(MANY);
        let found = std::thread::scope(|scope| {
            let open_own = |number: usize| {
                let mut make = || {
                    // Now all of them have seen that there is none.
                    together.wait();
                    Ok(Zeroizing::new(format!("{number}").into_bytes()))
                };
                open(Some(&path), "secret", "the secret", "--secret-file", &mut make)
                    .expect("it is made")
            };
            let threads: Vec<_> =
                (0..MANY).map(|number| scope.spawn(move || open_own(number).to_vec())).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<u8>>| thread.join();
            threads.into_iter().map(join).collect::<Result<BTreeSet<_>, _>>().expect("no panic")
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(names(path.parent().expect("it has one")), ["secret"]);
    }
}

#[test]
fn processes_that_make_one_at_once_agree_whatever_their_umask() {
    for umask in ["umask 000", "umask 277"] {
        let home = directory();
        // The directories are there: with such a umask another's is closed for a moment.
        let place = home.path().join("relay");
        make_directories(&place).expect("it is made");
        let start = |_| {
            let mut command = child(umask, "as_a_child_a_secret_is_opened", home.path());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
        };
        let children: Vec<_> = (0..MANY).map(start).collect();
        let ended = children.into_iter().map(|child| child.wait_with_output().expect("it ends"));
        let found: BTreeSet<String> = ended.map(|output| said(&output)).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|said| said.starts_with("hush of ")), "{found:?}");
        assert_eq!(mode(&place.join("secret")), 0o600);
        assert_eq!(names(&place), ["secret"]);
    }
}

#[test]
fn directories_are_their_owners_alone_whatever_the_umask() {
    for umask in ["umask 000", "umask 777"] {
        let home = directory();
        let state = home.path().join("state");
        let mut command = child(umask, "as_a_child_a_secret_is_opened", &state);
        let found = said(&command.output().expect("it runs"));
        assert!(found.starts_with("hush of "), "{found}");
        assert_eq!([mode(&state), mode(&state.join("relay"))], [0o700; 2]);
    }
}

#[test]
fn a_disk_that_takes_no_byte_is_named_and_nothing_is_left() {
    let home = directory();
    // No file may grow: every write fails, as on a full disk, and the signal for it is not wanted.
    let full = "trap '' XFSZ; ulimit -f 0";
    let mut command = child(full, "as_a_child_a_secret_is_opened", home.path());
    let found = said(&command.output().expect("it runs"));
    let place = home.path().join("relay");
    for what in ["error", "could not write", "--secret-file", &place.display().to_string()] {
        assert!(found.contains(what), "{what} in: {found}");
    }
    assert!(!found.contains("hush"), "{found}");
    assert_eq!(names(&place), [""; 0]);
}

#[test]
fn a_place_that_can_not_be_written_is_named() {
    let home = directory();
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("it is written");
    // Of root too: what is below a file is no directory.
    let error = refused(&file.join("relay/secret"), &["--secret-file"]);
    assert!(error.contains(&file.display().to_string()), "{error}");
    if !rustix::process::geteuid().is_root() {
        let closed = home.path().join("closed");
        std::fs::create_dir(&closed).expect("it is made");
        set_mode(&closed, 0o500);
        refused(&closed.join("secret"), &["could not write", "denied", "--secret-file"]);
        refused(&closed.join("relay/secret"), &["make the directory", "--secret-file"]);
        set_mode(&closed, 0o700);
    }
}

#[test]
fn without_a_home_the_message_names_what_to_set() {
    let home = directory();
    let mut command = child("unset HOME", "as_a_child_a_secret_is_opened", home.path());
    // A relative path counts for nothing.
    let found = said(&command.env("XDG_STATE_HOME", "state").output().expect("it runs"));
    for what in ["error", "--secret-file", "XDG_STATE_HOME", "HOME is"] {
        assert!(found.contains(what), "{what} in: {found}");
    }
}

#[test]
fn what_can_not_be_made_says_why() {
    let home = directory();
    let path = home.path().join("secret");
    let mut make = || Err(io::Error::other("no randomness"));
    let error = open(Some(&path), "secret", "the secret of tests", "--secret-file", &mut make);
    assert_eq!(error.expect_err("it fails"), "failed to make the secret of tests: no randomness");
    assert_eq!(names(home.path()), [""; 0]);
}
