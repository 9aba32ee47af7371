//! Patterns that choose some of a bundle's entries, as `--only` takes them. Knows no file system: a pattern is
//! compared with a path's text.
//!
//! | pattern | means |
//! |---|---|
//! | `*` | any characters of one component, or none; a dot at the beginning is nothing special |
//! | `**` | any components, or none; at the end at least one. It stands alone between slashes |
//! | `?` | one character of a component |
//! | `[a-z_]` | one of these characters; a `]` right at the beginning and a `-` at either end mean themselves |
//! | `[!a-z]` | one character that is none of these; `[^a-z]` as well |
//! | `\*` | this character itself, whichever it is |
//!
//! A pattern begins at the root: `*.txt` is what lies right there, `**/*.txt` what lies anywhere. What lies below a
//! directory that is meant is meant as well, so `photos`, `photos/` and `photos/**` choose the same files. Case counts.
//! A character is one of UTF-8; a byte that is part of none counts as one.
//!
//! Of crates that do this, `globset` and `wax` compile to regular expressions and bring ten packages; `glob` takes
//! text only and may need exponential time; `fast-glob` takes bytes and needs nothing, but takes a wrong pattern for
//! one that matches nothing, and has braces, which names of files hold more often than patterns do.

use crate::limits::GLOB_BYTES_MAX;

/// Beyond all characters: a byte that is part of none.
const BYTE: u32 = 0x11_0000;

/// A pattern that was understood. Matching takes at most as many steps as the pattern has characters, for each
/// character of the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob {
    /// The last is no [`Component::Any`].
    components: Vec<Component>,
}

/// What one component of a path is compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Component {
    /// `**`: any number of components.
    Any,
    /// One component.
    One(Vec<Token>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// `*`.
    AnyText,
    /// `?`.
    AnyCharacter,
    Character(u32),
    /// From and to, both included.
    Class {
        is_negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

/// Why a text is no pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GlobError {
    /// There is nothing.
    #[error("the pattern is empty")]
    Empty,
    /// It is longer than any path.
    #[error("the pattern has {0} bytes, and {GLOB_BYTES_MAX} are the most")]
    TooLong(usize),
    /// It begins with a slash.
    #[error("the pattern begins with a slash, and paths of a bundle are relative")]
    Absolute,
    /// Two slashes follow one another.
    #[error("the pattern has two slashes with nothing between them")]
    EmptyComponent,
    /// No path has such a component.
    #[error("the pattern has the component \"{0}\", which no path of a bundle has")]
    Dots(&'static str),
    /// Two asterisks beside something else than slashes.
    #[error("the pattern has ** beside other characters: it stands alone between slashes")]
    Asterisks,
    /// A set of characters has no end.
    #[error("the pattern has a [ without its ]: to mean the character itself, write \\[")]
    Unclosed,
    /// A range of characters is empty.
    #[error("the pattern has a range of characters that ends before it begins")]
    Range,
    /// A backslash before a slash or at the end.
    #[error("the pattern has a backslash without a character behind it")]
    Backslash,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(pattern: &[u8]) -> Result<Self, GlobError> {
        if pattern.len() > GLOB_BYTES_MAX {
            return Err(GlobError::TooLong(pattern.len()));
        }
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.starts_with(b"/") {
            return Err(GlobError::Absolute);
        }
        let mut rest = Characters(pattern);
        let mut components = Vec::new();
        loop {
            let (component, has_more) = parse_component(&mut rest)?;
            if component != Component::Any || components.last() != Some(&Component::Any) {
                components.push(component);
            }
            // One slash may stand at the end.
            if !has_more || rest.0.is_empty() {
                break;
            }
        }
        // What lies below is meant in any case, so at the end at least one component is.
        if let Some(last) = components.last_mut().filter(|last| **last == Component::Any) {
            *last = Component::One(vec![Token::AnyText]);
        }
        Ok(Self { components })
    }

    /// Whether this path is meant, or a directory that it lies in.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        // Where to go on when it does not match: behind the last `**`, one component later each time. What stood
        // before that one need not be tried in another way, for whatever follows can be found later as well.
        let mut again: Option<(usize, &[u8])> = None;
        let (mut at, mut rest) = (0, Some(path));
        loop {
            // What is below is meant as well, so the pattern's end is enough.
            let Some(component) = self.components.get(at) else { return true };
            // Nothing is left, and the last component of a pattern wants something.
            let Some(path) = rest else { return false };
            let tokens = match component {
                Component::Any => {
                    at += 1;
                    again = Some((at, path));
                    continue;
                }
                Component::One(tokens) => tokens,
            };
            let (name, behind) = split_component(path);
            if is_match(tokens, name) {
                (at, rest) = (at + 1, behind);
                continue;
            }
            let Some((from, tried)) = again else { return false };
            let Some(next) = split_component(tried).1 else { return false };
            again = Some((from, next));
            (at, rest) = (from, Some(next));
        }
    }
}

fn split_component(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// Whether a component is all of what the tokens mean. As above, only the last `*` is tried in other ways.
fn is_match(tokens: &[Token], name: &[u8]) -> bool {
    let mut again: Option<(usize, Characters<'_>)> = None;
    let (mut at, mut rest) = (0, Characters(name));
    loop {
        let mut behind = rest;
        let is_matched = match (tokens.get(at), behind.next()) {
            (None, None) => return true,
            (Some(Token::AnyText), _) => {
                at += 1;
                again = Some((at, rest));
                continue;
            }
            (None, Some(_)) => false,
            // Whatever else is tried, less is left.
            (Some(_), None) => return false,
            (Some(token), Some(character)) => token.means(character),
        };
        if is_matched {
            (at, rest) = (at + 1, behind);
            continue;
        }
        let Some((from, mut next)) = again else { return false };
        if next.next().is_none() {
            return false;
        }
        again = Some((from, next));
        (at, rest) = (from, next);
    }
}

impl Token {
    fn means(&self, character: u32) -> bool {
        match self {
            Self::AnyText | Self::AnyCharacter => true,
            Self::Character(own) => *own == character,
            Self::Class { is_negated, ranges } => {
                let is_in = ranges.iter().any(|&(from, to)| (from..=to).contains(&character));
                is_in != *is_negated
            }
        }
    }
}

/// Up to the next slash, and whether there is one.
fn parse_component(rest: &mut Characters<'_>) -> Result<(Component, bool), GlobError> {
    let mut tokens = Vec::new();
    let mut has_more = false;
    while let Some(character) = rest.next() {
        if character == u32::from(b'/') {
            has_more = true;
            break;
        }
        let token = match char::from_u32(character) {
            Some('*') => Token::AnyText,
            Some('?') => Token::AnyCharacter,
            Some('[') => parse_class(rest)?,
            Some('\\') => Token::Character(parse_escaped(rest)?),
            _ => Token::Character(character),
        };
        tokens.push(token);
    }
    let dot = Token::Character(u32::from(b'.'));
    match &tokens[..] {
        [] => Err(GlobError::EmptyComponent),
        [one] if *one == dot => Err(GlobError::Dots(".")),
        [one, two] if *one == dot && *two == dot => Err(GlobError::Dots("..")),
        [Token::AnyText, Token::AnyText] => Ok((Component::Any, has_more)),
        _ if tokens.windows(2).any(|pair| pair == [Token::AnyText, Token::AnyText]) => {
            Err(GlobError::Asterisks)
        }
        _ => Ok((Component::One(tokens), has_more)),
    }
}

/// Behind its bracket.
fn parse_class(rest: &mut Characters<'_>) -> Result<Token, GlobError> {
    let is_negated = rest.skip(b'!') || rest.skip(b'^');
    let mut ranges = Vec::new();
    loop {
        // Right at the beginning a bracket means itself.
        if !ranges.is_empty() && rest.skip(b']') {
            return Ok(Token::Class { is_negated, ranges });
        }
        let from = parse_member(rest)?;
        let is_range = rest.0.starts_with(b"-") && !rest.0.starts_with(b"-]");
        let to = if is_range && rest.skip(b'-') { parse_member(rest)? } else { from };
        if to < from {
            return Err(GlobError::Range);
        }
        ranges.push((from, to));
    }
}

fn parse_member(rest: &mut Characters<'_>) -> Result<u32, GlobError> {
    match rest.next().map(|character| (character, char::from_u32(character))) {
        None | Some((_, Some('/'))) => Err(GlobError::Unclosed),
        Some((_, Some('\\'))) => parse_escaped(rest),
        Some((character, _)) => Ok(character),
    }
}

/// Behind its backslash.
fn parse_escaped(rest: &mut Characters<'_>) -> Result<u32, GlobError> {
    rest.next().filter(|&character| character != u32::from(b'/')).ok_or(GlobError::Backslash)
}

/// Bytes, character by character.
#[derive(Clone, Copy)]
struct Characters<'a>(&'a [u8]);

impl Characters<'_> {
    /// The next one; a byte that is part of none counts as one of its own.
    fn next(&mut self) -> Option<u32> {
        let (&first, behind) = self.0.split_first()?;
        if first.is_ascii() {
            self.0 = behind;
            return Some(first.into());
        }
        let length = match first {
            0xf0.. => 4,
            0xe0.. => 3,
            _ => 2,
        };
        let char = self.0.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match char.and_then(|text| text.chars().next()) {
            Some(char) => {
                self.0 = &self.0[length..];
                Some(char.into())
            }
            None => {
                self.0 = behind;
                Some(BYTE + u32::from(first))
            }
        }
    }

    /// Leaves this byte behind, if it is the next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.0.first() == Some(&byte);
        self.0 = &self.0[usize::from(is_next)..];
        is_next
    }
}

#[cfg(test)]
mod tests;
