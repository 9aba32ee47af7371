//! The limits of a relay's rates: what its options say, and its settings file, which is read again while it runs.
//!
//! A line of the file is `NAME = RATE`, a comment that begins with `#`, or empty. What the file names counts, the
//! options say the rest. A file that can't be used changes nothing.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use relay_protocol::rate::Rate;
use relay_units::{parse_rate, rate_text};
use rustix::fs::{Mode, OFlags, open};

/// A settings file is a few lines: what is longer is something else.
const SETTINGS_BYTES_MAX: u64 = 64 << 10;

/// Bytes of file content a second; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// All that the relay sends.
    pub egress: Option<Rate>,
    /// All that it takes in.
    pub ingress: Option<Rate>,
    /// What each connection is sent, and what each supplies.
    pub peer: Option<Rate>,
}

/// What the options say of limits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Of the command line and the environment.
    pub options: Limits,
    /// What is read again on SIGHUP.
    pub file: Option<PathBuf>,
}

/// Why a settings file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The system says so.
    #[error(
        "failed to read --settings {path}: {why}; make it readable for the relay's user, or name another"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        why: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error(
        "failed to read --settings {0}: it is no regular file: write lines such as egress-rate = 100M into one"
    )]
    NoFile(String),
    /// It is not text of a few lines.
    #[error(
        "failed to read --settings {0}: it is no text of at most 64 KiB: write lines such as egress-rate = 100M"
    )]
    NoText(String),
    /// A line means nothing.
    #[error("line {line} of --settings {path}: {why}")]
    Line {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong, and what a line looks like.
        why: String,
    },
}

impl Settings {
    /// The limits as options and file say now.
    ///
    /// # Errors
    /// [`SettingsError`]: a sentence for people.
    pub fn read(&self) -> Result<Limits, SettingsError> {
        let Some(path) = &self.file else { return Ok(self.options) };
        let shown = path.display().to_string();
        let text = read(path, &shown)?;
        parse(&text, self.options).map_err(|(line, why)| SettingsError::Line {
            path: shown,
            line,
            why,
        })
    }
}

fn read(path: &Path, shown: &str) -> Result<String, SettingsError> {
    let unreadable = |why| SettingsError::Unreadable { path: shown.to_owned(), why };
    let mut bytes = Vec::new();
    // To open a pipe waits for what writes into it, and the thread that does this hears the signals, too.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|why| unreadable(io::Error::from(why)))?;
    let file = File::from(file);
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(SettingsError::NoFile(shown.to_owned()));
    }
    file.take(SETTINGS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= SETTINGS_BYTES_MAX);
    text.ok_or_else(|| SettingsError::NoText(shown.to_owned()))
}

/// What the lines say, over what the options say; or the number of the line that means nothing, and why.
fn parse(text: &str, options: Limits) -> Result<Limits, (usize, String)> {
    let mut limits = options;
    let mut seen = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| {
            (number, "it has no '=': write for example egress-rate = 100M".into())
        })?;
        let name = name.trim();
        let limit = limits.named(name).ok_or_else(|| {
            (number, format!("'{name}' is no setting: there are {}", NAMES.join(", ")))
        })?;
        let rate = parse_rate(value).map_err(|why| (number, why))?;
        *limit = Rate::new(rate);
        if seen.contains(&name) {
            return Err((number, format!("{name} is set twice: keep one of the lines")));
        }
        seen.push(name);
    }
    Ok(limits)
}

/// What may be set, as options without their dashes.
const NAMES: [&str; 3] = ["egress-rate", "ingress-rate", "peer-rate"];

impl Limits {
    fn named(&mut self, name: &str) -> Option<&mut Option<Rate>> {
        match name {
            "egress-rate" => Some(&mut self.egress),
            "ingress-rate" => Some(&mut self.ingress),
            "peer-rate" => Some(&mut self.peer),
            _ => None,
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [egress, ingress, peer] = [self.egress, self.ingress, self.peer]
            .map(|limit| rate_text(limit.map_or(0, Rate::bytes_per_second)));
        write!(f, "egress {egress}, ingress {ingress}, each peer {peer}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(egress: u64, ingress: u64, peer: u64) -> Limits {
        Limits { egress: Rate::new(egress), ingress: Rate::new(ingress), peer: Rate::new(peer) }
    }

    #[test]
    fn what_the_file_names_counts_and_the_options_say_the_rest() {
        let options = of(1, 2, 3);
        let text = "# at night\n egress-rate = 100M # all\n\npeer-rate=none\n";
        assert_eq!(parse(text, options), Ok(of(100 << 20, 2, 0)));
        assert_eq!(parse("", options), Ok(options));
        assert_eq!(parse("ingress-rate = 20MB/s", options), Ok(of(1, 20_000_000, 3)));
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        for (text, line, word) in [
            ("egress-rate 5M", 1, "no '='"),
            ("\nspeed = 5M", 2, "egress-rate, ingress-rate, peer-rate"),
            ("#\n#\negress-rate = fast", 3, "'fast' is not a size"),
            ("peer-rate = 1M\npeer-rate = 2M", 2, "twice"),
            ("peer-rate =", 1, "not a size"),
        ] {
            let (found, why) = parse(text, Limits::default()).expect_err(text);
            assert!(found == line && why.contains(word), "{text}: line {found}: {why}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("settings");
        let settings = Settings { options: of(1, 2, 3), file: Some(path.clone()) };
        let why = || settings.read().expect_err("it can't be used").to_string();
        assert!(why().contains("settings: No such file"), "{}", why());
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(why().contains("no text"), "{}", why());
        std::fs::write(&path, "#".repeat(70_000)).expect("written");
        assert!(why().contains("64 KiB"), "{}", why());
        let directory = Settings { file: Some(dir.path().to_owned()), ..settings.clone() };
        let why_not = directory.read().expect_err("it is no file").to_string();
        assert!(why_not.contains("no regular file"), "{why_not}");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let pipe = Settings { file: Some(pipe), ..settings.clone() };
        let why_not = pipe.read().expect_err("it waits for no writer").to_string();
        assert!(why_not.contains("no regular file"), "{why_not}");
        std::fs::write(&path, "peer-rate = 5M").expect("written");
        assert_eq!(settings.read().ok(), Some(of(1, 2, 5 << 20)));
    }

    #[test]
    fn limits_read_well() {
        assert_eq!(
            of(5 << 20, 0, 1000).to_string(),
            "egress 5 MiB/s, ingress none, each peer 1000 bytes/s"
        );
        assert!(Limits::default().is_none() && !of(0, 0, 1).is_none());
    }
}
