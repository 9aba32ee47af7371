//! A struct with many fields hides several things that have rules of their own. This counts fields; whether
//! those of a smaller struct belong together is for readers to judge.

mod tidy_support;

use tidy_support::{Source, imports::without_tests, is_of_tests, sources};

/// Where code of ours lies that is not for tests alone.
const CODE: [&str; 4] = ["crates", "loadgen/src", "shards/src", "src"];

/// A struct that needs more is several.
const FIELDS_MAX: usize = 12;

/// Structs that may have more, by the directory of their sources, with as many as they have and the reason.
const MORE_FIELDS: [(&str, &str, usize, &str); 17] = [
    ("crates/protocol/", "Stats", 13, "a message: its fields are the wire's"),
    ("src/", "RelayArgs", 22, "options, as the command line has them"),
    ("src/", "Facts", 25, "what was found, each by itself"),
    ("src/", "Status", 23, "figures that one thread counts and another shows"),
    ("loadgen/", "Args", 25, "options, as the command line has them"),
    ("loadgen/", "Config", 23, "options, checked"),
    ("loadgen/", "Record", 13, "what became of a client, for the report"),
    ("loadgen/", "Report", 26, "a report: its fields are promised keys"),
    ("loadgen/", "RelayFigures", 15, "part of a report"),
    ("crates/server/", "Config", 21, "options, checked"),
    ("crates/server/", "ShardCells", 51, "counters"),
    ("crates/server/", "SwarmSnapshot", 14, "what an onlooker may see, copied"),
    ("crates/server/", "Totals", 22, "figures of the status page"),
    ("crates/server/", "ShardFigures", 16, "figures of the status page"),
    ("crates/server/", "SwarmFrame", 28, "figures of the status page"),
    ("crates/server/", "SwarmEntry", 23, "an answer: its fields are promised keys"),
    ("crates/server/", "PeerEntry", 13, "an answer: its fields are promised keys"),
];

/// Every struct with named fields in this code, and how many it has.
fn structs(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("struct ") {
        let is_word_before = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[at + "struct ".len()..];
        let name_end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let (Some(name_end), false) = (name_end, is_word_before) else { continue };
        let Some(begin) = rest.find(['{', ';', '(']) else { break };
        if rest.as_bytes()[begin] == b'{' {
            found.push((rest[..name_end].to_owned(), fields(&rest[begin + 1..])));
        }
    }
    found
}

/// Fields of the body that begins here: names before a single colon that is in no type.
fn fields(body: &str) -> usize {
    let (mut depth, mut count, mut is_in_type) = (0_i32, 0, false);
    let mut before = ' ';
    for char in body.chars() {
        match char {
            '}' if depth == 0 => break,
            '{' | '(' | '[' | '<' => depth += 1,
            // The arrow of a function's type closes nothing.
            '}' | ')' | ']' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            ':' if depth == 0 && !is_in_type => (count, is_in_type) = (count + 1, true),
            ',' if depth == 0 => is_in_type = false,
            _ => {}
        }
        before = char;
    }
    count
}

#[test]
fn no_struct_that_is_not_plain_data_has_many_fields() {
    let mut offences = Vec::new();
    for source in sources(&CODE, ".rs").iter().filter(|source| !is_of_tests(&source.path)) {
        for (name, count) in structs(&without_tests(&source.code())) {
            let allowed = MORE_FIELDS
                .iter()
                .find(|(place, known, ..)| source.path.starts_with(place) && *known == name);
            if count > allowed.map_or(FIELDS_MAX, |(_, _, most, _)| *most) {
                offences.push(format!("{}: {name} has {count} fields", source.path));
            }
        }
    }
    assert!(
        offences.is_empty(),
        "group fields into parts that own their rules; plain data goes into the table:\n  {}",
        offences.join("\n  ")
    );
}

#[test]
fn fields_are_counted_whatever_their_types() {
    let text = "/// struct A { b: c }\npub(crate) struct Many<T: Clone> where T: Copy {\n\
                /// One: two.\n pub a: Map<K, (u8, [T; 2])>,\n #[serde(rename = \"x: y\")]\n b: Box<dyn Fn(u8) -> T>,\n\
                c: std::io::Result<()>, }\nstruct Tuple(u8, u16);\nstruct Unit;\nfn construct () { a: b }\n\
                #[cfg(test)] mod tests { struct Hidden { a: u8 } }";
    let source = Source { path: "x.rs".into(), text: text.into() };
    assert_eq!(structs(&without_tests(&source.code())), [("Many".to_owned(), 3)]);
}
