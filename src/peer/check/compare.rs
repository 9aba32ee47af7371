//! Where two trees differ, by their indexes, and by the digests of their chunks where the indexes are equal. Pure.

use crate::{
    protocol::{
        Manifest,
        bundle::{Entry, Index, Kind, PieceOf, shown_path},
    },
    units::grouped_text,
};

/// So many entries of each kind are named.
const NAMED_MAX: usize = 5;

/// Where a directory is not the ticket's.
#[derive(Default, Debug)]
pub(super) struct Differences {
    pub(super) lacking: Named,
    pub(super) extra: Named,
    /// With what differs.
    pub(super) different: Named,
    /// Whether the content of files was compared.
    is_content_compared: bool,
}

/// Some entries, of which the first are named.
#[derive(Default, Debug)]
pub(super) struct Named {
    first: Vec<String>,
    count: usize,
}

impl Named {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.first.len() < NAMED_MAX {
            self.first.push(text());
        }
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn first(&self) -> &[String] {
        &self.first
    }

    /// "it lacks a, b and 7 more".
    fn text(&self, verb: &str) -> Option<String> {
        let more = match self.count - self.first.len() {
            0 => String::new(),
            more => format!(" and {} more", grouped_text(more as u64)),
        };
        (self.count > 0).then(|| format!("{verb} {}{more}", self.first.join(", ")))
    }
}

impl Differences {
    /// The indexes are equal, and nothing else was compared yet.
    pub(super) fn is_empty(&self) -> bool {
        self.lacking.count + self.extra.count + self.different.count == 0
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let parts = [
            self.lacking.text("it lacks"),
            self.extra.text("it has as well"),
            self.different.text("what differs is"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let text = match (parts.is_empty(), self.is_content_compared) {
            (false, _) => parts.join("; "),
            (true, true) => "its content differs".to_owned(),
            (true, false) => "its list of files is the ticket's".to_owned(),
        };
        match self.is_content_compared {
            true => text,
            false => format!("{text}. The content of files of equal size was not compared"),
        }
    }
}

/// What an own tree has otherwise than the ticket's.
pub(super) fn compare(own: &Index, theirs: &Index) -> Differences {
    let mut found = Differences::default();
    let is_preserving = own.is_preserving() && theirs.is_preserving();
    let (mut owns, mut others) = (own.entries().peekable(), theirs.entries().peekable());
    loop {
        let order = match (owns.peek(), others.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(own), Some(other)) => own.path.cmp(other.path),
        };
        let mine = if order.is_le() { owns.next() } else { None };
        let other = if order.is_ge() { others.next() } else { None };
        match (mine, other) {
            (Some(own), Some(other)) => {
                if let Some(how) = difference(&own, &other, is_preserving) {
                    found.different.add(|| format!("{} ({how})", shown_path(own.path)));
                }
            }
            (Some(own), None) => found.extra.add(|| shown_path(own.path)),
            (None, Some(other)) => found.lacking.add(|| shown_path(other.path)),
            (None, None) => {}
        }
    }
}

fn difference(own: &Entry<'_>, other: &Entry<'_>, is_preserving: bool) -> Option<String> {
    let what = |kind: &Kind<'_>| match kind {
        Kind::Directory => "a directory",
        Kind::File { .. } => "a file",
        Kind::Link { .. } => "a link",
    };
    let kinds = match (own.kind, other.kind) {
        (
            Kind::File { size_bytes, is_executable },
            Kind::File { size_bytes: other_bytes, is_executable: is_other },
        ) => {
            if size_bytes != other_bytes {
                Some(format!("it has {size_bytes} bytes, the ticket's has {other_bytes}"))
            } else if is_executable != is_other {
                let (is, other) = if is_other { ("not ", "") } else { ("", "not ") };
                Some(format!("it is {is}executable, the ticket's is {other}so"))
            } else {
                None
            }
        }
        (Kind::Link { target }, Kind::Link { target: other }) if target != other => Some(format!(
            "it leads to {}, the ticket's to {}",
            shown_path(target),
            shown_path(other)
        )),
        (own, other) if what(&own) != what(&other) => {
            Some(format!("it is {}, the ticket's is {}", what(&own), what(&other)))
        }
        _ => None,
    };
    kinds.or_else(|| match (own.preserved, other.preserved) {
        (Some(own), Some(other)) if is_preserving && own.mode != other.mode => {
            Some(format!("its mode is {:o}, the ticket's {:o}", own.mode, other.mode))
        }
        (Some(own), Some(other)) if is_preserving && own != other => {
            Some("it was modified at another time".to_owned())
        }
        _ => None,
    })
}

/// Adds the files whose content differs, of two trees with equal indexes: those that have a chunk with another digest.
/// Files that share it can't be told apart.
pub(super) fn content_differs(
    found: &mut Differences,
    index: &Index,
    own: &Manifest,
    theirs: &Manifest,
) {
    found.is_content_compared = true;
    let key = own.key();
    let mut last = None;
    let pairs = (0u32..).zip(own.digests().iter().zip(theirs.digests()));
    for (chunk, _) in pairs.filter(|(_, (own, other))| own != other) {
        let begin = key.chunk_offset_bytes(chunk);
        let pieces = index.pieces(begin..begin + u64::from(key.chunk_len_bytes(chunk)));
        let numbers: Vec<usize> = pieces
            .filter_map(|piece| match piece.of {
                PieceOf::File(number) => Some(number),
                PieceOf::Header => None,
            })
            .collect();
        let Some((&first, more)) = numbers.split_first() else { continue };
        let path = |number| shown_path(index.entry(number).map_or(&b""[..], |entry| entry.path));
        match more {
            [] if last == Some(first) => {}
            [] => found.different.add(|| path(first)),
            [.., end] => found.different.add(|| {
                let count = grouped_text(numbers.len() as u64);
                format!("one or more of {count} files from {} to {}", path(first), path(*end))
            }),
        }
        last = if more.is_empty() { Some(first) } else { None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &'static str, size_bytes: u64) -> Entry<'static> {
        let kind = Kind::File { size_bytes, is_executable: false };
        Entry { path: path.as_bytes(), kind, preserved: None }
    }

    fn link(path: &'static str, target: &'static str) -> Entry<'static> {
        let kind = Kind::Link { target: target.as_bytes() };
        Entry { path: path.as_bytes(), kind, preserved: None }
    }

    fn index(entries: Vec<Entry<'_>>) -> Index {
        Index::new(entries).unwrap()
    }

    #[test]
    fn entries_that_lack_are_too_many_or_differ_are_named() {
        let own =
            index(vec![file("a", 1), file("b", 2), file("c", 3), link("l", "a"), file("x", 1)]);
        let theirs =
            index(vec![file("b", 2), file("c", 4), link("l", "b"), link("x", "a"), file("z", 1)]);
        let found = compare(&own, &theirs);
        assert_eq!(found.lacking.first(), ["z"]);
        assert_eq!(found.extra.first(), ["a"]);
        let differ = [
            "c (it has 3 bytes, the ticket's has 4)",
            "l (it leads to a, the ticket's to b)",
            "x (it is a file, the ticket's is a link)",
        ];
        assert_eq!(found.different.first(), differ);
        let text = found.text();
        assert!(text.starts_with("it lacks z; it has as well a; what differs is c"), "{text}");
        assert!(text.ends_with("was not compared"), "{text}");
        let same = compare(&own, &own);
        assert!(same.is_empty() && !same.text().contains("content differs"), "{}", same.text());
    }

    #[test]
    fn of_many_the_first_are_named() {
        let names: Vec<String> = (0..1100).map(|number| format!("{number:04}")).collect();
        let entries = names.iter().map(|name| {
            let kind = Kind::File { size_bytes: 0, is_executable: false };
            Entry { path: name.as_bytes(), kind, preserved: None }
        });
        let found = compare(&index(entries.collect()), &index(vec![]));
        assert!(
            found.text().starts_with("it has as well 0000, 0001, 0002, 0003, 0004 and 1,095 more")
        );
    }

    #[test]
    fn content_is_told_apart_as_far_as_chunks_do() {
        let index = index(vec![file("a", 5000), file("b", 100), file("c", 100)]);
        let bytes: Vec<u8> = [index.header(), &[7; 5200]].concat();
        let theirs = Manifest::of(&bytes, 10).unwrap();
        let different = |at: &[usize]| {
            let mut bytes = bytes.clone();
            at.iter().for_each(|&at| bytes[at] ^= 1);
            let mut found = compare(&index, &index);
            content_differs(&mut found, &index, &Manifest::of(&bytes, 10).unwrap(), &theirs);
            found.text()
        };
        assert_eq!(different(&[2000, 3000]), "what differs is a");
        let last = "what differs is one or more of 2 files from b to c";
        assert_eq!(different(&[bytes.len() - 1]), last);
    }
}
