//! Relays that this user has met before, and the pin that each showed: the file `known_relays`, one relay a line.
//!
//! A publisher believes a relay that it meets for the first time, remembers its pin, and from then on refuses another
//! one. Where the file can't be written the publisher goes on with a warning, since a first meeting is believed in any
//! case; where there is a file that can't be read it stops, since that file may say that the pin is wrong.
//!
//! The file is only ever added to, under a lock, so two publishers at once lose no line. Knows no TLS.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use relay_protocol::{Pin, RelayAddr};
use rustix::fs::{FlockOperation, flock};

use crate::{places::state_directory, secret_file::make_directories};

/// Name of the file.
const NAME: &str = "known_relays";

/// Bytes of the file, at most: some thousands of relays, and more than one user meets.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The file's permissions when it is made: which relays a user publishes through is of no interest to others.
const MODE: u32 = 0o600;

/// What others may not have: to write, as then they could say whom to believe.
const WRITE_OF_OTHERS: u32 = 0o022;

/// The user's file of relays, which may not be there yet.
#[derive(Clone, Debug)]
pub struct KnownRelays {
    /// `None` where programs have no place for their state.
    path: Option<PathBuf>,
}

/// A line of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    line: usize,
    relay: RelayAddr,
    pin: Pin,
}

/// Whether a relay may be believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meeting {
    /// It shows the pin that it showed before.
    Known,
    /// It was not met before, and is remembered from now on.
    Remembered,
    /// It was not met before, and can't be remembered: a sentence for the user, who should see the pin.
    NotRemembered(String),
}

impl KnownRelays {
    /// The file in the user's [`state_directory`].
    #[must_use]
    pub fn of_this_user() -> Self {
        Self { path: state_directory().map(|directory| directory.join(NAME)) }
    }

    /// Another file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// The pin that this relay showed before; of several lines the first counts.
    ///
    /// # Errors
    /// A sentence for the user: the file can't be read, or a line of it makes no sense.
    pub fn look(&self, relay: &RelayAddr) -> Result<Option<Pin>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        let known = read(path)?;
        Ok(known.iter().find(|known| is_same(&known.relay, relay)).map(|known| known.pin))
    }

    /// What is wrong with a relay that shows this pin: a sentence for the user, if it showed another before. Changes
    /// nothing.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn judge(&self, relay: &RelayAddr, pin: Pin) -> Result<Option<String>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        Ok(judge(path, &read(path)?, relay, pin).err())
    }

    /// A relay that shows this pin is met: believed if it showed that before, or was never met; remembered then.
    ///
    /// # Errors
    /// A sentence for the user: it showed another pin before, or the file can't be read.
    pub fn meet(&self, relay: &RelayAddr, pin: Pin) -> Result<Meeting, String> {
        let Some(path) = &self.path else {
            let why = "neither XDG_STATE_HOME nor HOME is set to an absolute path";
            return Ok(Meeting::NotRemembered(not_remembered(relay, pin, why)));
        };
        if let Some(meeting) = judge(path, &read(path)?, relay, pin)? {
            return Ok(meeting);
        }
        let mut file = match open_to_add(path) {
            Ok(file) => file,
            Err(why) => return Ok(Meeting::NotRemembered(not_remembered(relay, pin, &why))),
        };
        // Another publisher may have met it since: under the lock there is no other.
        if let Some(meeting) = judge(path, &read_from(&mut file, path)?, relay, pin)? {
            return Ok(meeting);
        }
        Ok(match add(&mut file, relay, pin) {
            Ok(()) => Meeting::Remembered,
            Err(error) => {
                let why = format!("could not write {}: {error}", path.display());
                Meeting::NotRemembered(not_remembered(relay, pin, &why))
            }
        })
    }
}

/// What the lines say of a relay that shows this pin; `None` if nothing.
fn judge(
    path: &Path,
    known: &[Known],
    relay: &RelayAddr,
    pin: Pin,
) -> Result<Option<Meeting>, String> {
    let first = known.iter().find(|known| is_same(&known.relay, relay));
    match first {
        None => Ok(None),
        Some(first) if first.pin == pin => Ok(Some(Meeting::Known)),
        Some(first) => Err(changed(path, first, relay, pin)),
    }
}

/// What a user is told of a relay that shows another pin than before.
fn changed(path: &Path, known: &Known, relay: &RelayAddr, pin: Pin) -> String {
    let Known { line, pin: old, .. } = known;
    let path = path.display();
    format!(
        "the relay at {relay} shows the pin {pin}, and showed {old} before ({path}, line {line}). Either it has a new \
         key, or an impostor answers. Ask the relay's operator for the pin that `relay` prints at its start. If that \
         is {pin}, remove line {line} of {path}, or give --relay {relay}#{pin}"
    )
}

fn not_remembered(relay: &RelayAddr, pin: Pin, why: &str) -> String {
    format!(
        "warning: the relay at {relay} shows the pin {pin}, and that can't be remembered: {why}. Another key would not \
         be noticed next time: give --relay {relay}#{pin} then"
    )
}

/// Names have no case, and an address may be written in several ways.
fn is_same(one: &RelayAddr, other: &RelayAddr) -> bool {
    let address = |relay: &RelayAddr| relay.host().parse::<IpAddr>().ok();
    let is_same_host = match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.host().eq_ignore_ascii_case(other.host()),
    };
    is_same_host && one.port() == other.port()
}

/// All that the file says; nothing if it is not there.
fn read(path: &Path) -> Result<Vec<Known>, String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    // So that no line is read while it is being written. Not every file system has locks; a line that is cut off
    // there is an error, and not a wrong pin.
    flock(&file, FlockOperation::LockShared).ok();
    read_from(&mut file, path)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!(
        "failed to read the relays that are known, {}: {error}: let this user read it, or remove it",
        path.display()
    )
}

fn read_from(file: &mut File, path: &Path) -> Result<Vec<Known>, String> {
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        let error = io::Error::other("it is no regular file");
        return Err(unreadable(path, &error));
    }
    if metadata.mode() & WRITE_OF_OTHERS != 0 {
        let path = path.display();
        return Err(format!(
            "others may write to the relays that are known, {path} (its mode is {:04o}): look whether its lines are \
             right, and run `chmod 600 {path}`",
            metadata.mode() & 0o7777
        ));
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.map_err(|error| unreadable(path, &error))? as u64 > FILE_BYTES_MAX {
        let error = io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"));
        return Err(unreadable(path, &error));
    }
    parse(&text).map_err(|(line, why)| {
        let path = path.display();
        format!("line {line} of {path} is no known relay: {why}: write HOST:PORT PIN, or remove the line")
    })
}

/// The lines that name a relay; or the number of the first that makes no sense, and why.
fn parse(text: &str) -> Result<Vec<Known>, (usize, String)> {
    let mut known = Vec::new();
    for (index, content) in text.lines().map(str::trim).enumerate() {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let line = index + 1;
        let fail = |why: &dyn std::fmt::Display| (line, why.to_string());
        let (relay, pin) =
            content.split_once(char::is_whitespace).ok_or_else(|| fail(&"it has no pin"))?;
        let relay = RelayAddr::with_port(relay).map_err(|error| fail(&error))?;
        let pin = pin.parse().map_err(|error| fail(&error))?;
        known.push(Known { line, relay, pin });
    }
    Ok(known)
}

/// The file, to be read and added to, with a lock that no other process has; or why not.
fn open_to_add(path: &Path) -> Result<File, String> {
    if let Some(directory) = path.parent() {
        make_directories(directory).map_err(|(path, error)| {
            format!("could not make the directory {}: {error}", path.display())
        })?;
    }
    let fail =
        |what: &str, error: io::Error| format!("could not {what} {}: {error}", path.display());
    let open = |is_new: bool| {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(is_new).mode(MODE).open(path)
    };
    let file = match open(true) {
        Ok(file) => {
            // A umask may have taken even the owner's rights.
            let set = file.set_permissions(Permissions::from_mode(MODE));
            set.map_err(|error| fail("set the permissions of", error))?;
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            open(false).map_err(|error| fail("open", error))?
        }
        Err(error) => return Err(fail("make", error)),
    };
    flock(&file, FlockOperation::LockExclusive).map_err(|error| fail("lock", error.into()))?;
    Ok(file)
}

/// Adds a line, whole or not at all.
fn add(file: &mut File, relay: &RelayAddr, pin: Pin) -> io::Result<()> {
    let before = file.metadata()?.len();
    let mut line = format!("{relay} {pin}\n");
    if before > 0 && !ends_with_line(file, before)? {
        line.insert(0, '\n');
    }
    if before + line.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it would have more than {FILE_BYTES_MAX} bytes")));
    }
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // A full disk may have taken a part of it.
        file.set_len(before)?;
    }
    written
}

/// Whether the last line has an end: a person may have written it without one.
fn ends_with_line(file: &File, len: u64) -> io::Result<bool> {
    let mut last = [0];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut last, len - 1)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests;
