//! Entries of a tree that can't be shared: the first of them by name, and how many there are.

use relay_protocol::bundle::shown_path;
use relay_units::count_text;
use rustix::fs::FileType;

/// So many are named. What is wrong with the rest is most often the same.
const NAMED_MAX: usize = 5;

/// Entries that can't be shared.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Troubles {
    first: Vec<String>,
    count: usize,
    special: usize,
}

impl Troubles {
    /// Something can't be read, and why.
    pub(super) fn add(&mut self, path: &[u8], why: &str) {
        if self.first.len() < NAMED_MAX {
            self.first.push(format!("{} ({why})", shown_path(path)));
        }
        self.count += 1;
    }

    /// Something is no file.
    pub(super) fn add_special(&mut self, path: &[u8], what: &str) {
        self.add(path, what);
        self.special += 1;
    }

    /// What is wrong, and what to do.
    pub(super) fn text(&self) -> Option<String> {
        let advice = match (self.special, self.count - self.special) {
            (0, 0) => return None,
            (0, _) => "have them read by this user, or move them elsewhere",
            (_, 0) => "--skip-special leaves out what is no file",
            _ => {
                "have files read by this user, or move them elsewhere; --skip-special leaves out what is no file"
            }
        };
        let count = count_text(self.count as u64, "entry").replace("entrys", "entries");
        Some(format!("{count} can't be shared: {}: {advice}", self.names()))
    }

    /// What was left out.
    pub(super) fn skipped_text(&self) -> Option<String> {
        let count = self.count;
        let what = if count == 1 { "entry that is no file" } else { "entries that are no files" };
        (count > 0).then(|| format!("left out {count} {what}: {}", self.names()))
    }

    fn names(&self) -> String {
        let more = match self.count - self.first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", self.first.join(", "))
    }
}

/// What is no file, directory or link.
pub(super) fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "of no known kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_named_and_the_others_counted() {
        let mut troubles = Troubles::default();
        assert_eq!(troubles.text(), None);
        assert_eq!(troubles.skipped_text(), None);
        troubles.add_special(b"a\nb", special(FileType::Fifo));
        let text = troubles.text().unwrap();
        assert!(text.starts_with("1 entry can't be shared: a\\u{a}b (a pipe): --skip"), "{text}");
        for number in 0..6 {
            troubles.add(format!("d/{number}").as_bytes(), "Permission denied");
        }
        let text = troubles.text().unwrap();
        assert!(text.contains("7 entries") && text.contains("d/3 (Perm"), "{text}");
        assert!(text.contains(" and 2 more: have files") && !text.contains("d/4"), "{text}");
        let text = troubles.skipped_text().unwrap();
        assert!(text.starts_with("left out 7 entries that are no files: a"), "{text}");
    }
}
