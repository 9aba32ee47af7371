//! What makes a tree of files: whatever bytes come as a bundle's first, only what an encoder makes is read, and every
//! byte of it is of one file. Whatever pattern is typed, a path that is escaped means itself.

use super::script::Script;
use relay_protocol::{
    bundle::{BundleError, Decoded, Entry, Glob, Index, Kind, Piece, PieceOf, Preserved},
    limits::{BUNDLE_MAGIC, BUNDLE_VERSION},
};

/// Entries that a script makes up, at most.
const ENTRIES_MAX: usize = 16;

/// First byte: whether the rest is a bundle, an index, entries, or a pattern and a path.
pub fn bundle(script: &[u8]) {
    let Some((&how, rest)) = script.split_first() else { return };
    match how % 4 {
        0 => read(rest),
        1 => {
            let length = u32::try_from(rest.len()).expect("a script is short").to_le_bytes();
            read(&[&BUNDLE_MAGIC[..], &[BUNDLE_VERSION], &length, rest].concat());
        }
        2 => make(&mut Script(rest)),
        _ => glob(&mut Script(rest)),
    }
}

/// All of a prefix, and what a getter would do who has less of it.
fn read(prefix: &[u8]) {
    let decoded = match Index::decode(prefix, u64::MAX) {
        Err(BundleError::Size { index_bytes, .. }) => Index::decode(prefix, index_bytes),
        other => other,
    };
    match decoded {
        Ok(Decoded::Whole(index)) => {
            assert!(prefix.starts_with(index.header()), "there is one form");
            look(&index);
        }
        Ok(Decoded::Needs { prefix_bytes }) => assert!(prefix_bytes > prefix.len()),
        Err(error) => check_error(&error),
    }
}

fn check_error(error: &BundleError) {
    assert!(!error.to_string().contains(char::is_control), "it can be shown: {error:?}");
}

fn look(index: &Index) {
    let again = Index::new(index.entries().collect());
    assert_eq!(again.as_ref(), Ok(index), "what was read can be written");
    let length = index.header_bytes();
    let prefix = &index.header()[..index.header().len() - 1];
    let needs = Index::decode(prefix, index.bundle_bytes());
    assert_eq!(needs, Ok(Decoded::Needs { prefix_bytes: index.header().len() }));
    let mut end = length;
    for (number, entry) in index.entries().enumerate() {
        assert!(!entry.path.starts_with(b"/") && !entry.path.ends_with(b"/"));
        let parts = || entry.path.split(|&byte| byte == b'/');
        assert!(parts().all(|name| !name.is_empty() && name != b".." && name != b"."));
        let place = index.place(number).expect("it is there");
        assert_eq!((place.start, place.end - place.start), (end, entry.kind.size_bytes()));
        end = place.end;
        assert_eq!(index.find(entry.path), Some((number, entry)));
    }
    assert_eq!(end, index.bundle_bytes());
    for (from, to) in [(0, end), (length / 2, end / 2), (length, length + 1), (end / 3, end)] {
        let mut at = from;
        for Piece { of, bytes } in index.pieces(from..to) {
            let begin = match of {
                PieceOf::Header => 0,
                PieceOf::File(number) => index.place(number).expect("it is there").start,
            };
            assert_eq!(begin + bytes.start, at, "pieces follow one another");
            at = begin + bytes.end;
        }
        assert_eq!(at, to.min(end).max(from));
    }
    assert!(index.same_but_for_case().len() <= index.len());
}

/// Entries as an encoder is given them.
fn make(script: &mut Script<'_>) {
    let is_preserving = script.byte().is_multiple_of(2);
    let mut entries = Vec::new();
    while !script.is_over() && entries.len() < ENTRIES_MAX {
        let length = usize::from(script.byte() % 12);
        let path = script.bytes(length);
        let kind = match script.byte() % 4 {
            0 | 1 => Kind::Directory,
            2 => Kind::File {
                size_bytes: script.count(),
                is_executable: script.byte().is_multiple_of(2),
            },
            _ => {
                let length = usize::from(script.byte() % 12);
                Kind::Link { target: script.bytes(length) }
            }
        };
        let preserved = is_preserving.then(|| Preserved {
            mode: script.byte().into(),
            modified_secs: script.count().cast_signed(),
            modified_nanos: script.number(),
        });
        entries.push(Entry { path, kind, preserved });
    }
    match Index::new(entries) {
        Ok(index) => {
            read(index.header());
            look(&index);
        }
        Err(error) => check_error(&error),
    }
}

fn glob(script: &mut Script<'_>) {
    let length = script.byte().into();
    let pattern = script.bytes(length);
    let path = script.0;
    let parsed = Glob::parse(pattern);
    if let Ok(glob) = parsed {
        let is_meant = glob.matches(path);
        let below = [path, b"/below"].concat();
        assert!(!is_meant || glob.matches(&below), "what is below is meant as well");
    }
    let parts = || path.split(|&byte| byte == b'/');
    if path.is_ascii() && parts().all(|name| !name.is_empty() && name != b"." && name != b"..") {
        let escape = |&byte: &u8| match byte {
            b'/' => vec![byte],
            byte => vec![b'\\', byte],
        };
        let escaped: Vec<u8> = path.iter().flat_map(escape).collect();
        if let Ok(glob) = Glob::parse(&escaped) {
            assert!(glob.matches(path), "a path that is escaped means itself");
        }
    }
}
