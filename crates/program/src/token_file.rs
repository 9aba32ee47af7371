//! Files of tokens, as every program reads them: one token a line, what surrounds it trimmed, empty lines
//! skipped. A word before it may say what it is good for. Nothing of a file is ever printed.

use std::{fs::File, io::Read as _, path::Path};

use relay_protocol::{Grant, Roles, Token, limits::TOKEN_BYTES_MAX};

/// Tokens of one file, at most: each of them is tried for every peer that comes.
pub const TOKENS_MAX: usize = 1024;

/// Bytes of a file, at most: as many as its tokens may have, the longest word before each (`publish:`), and the ends
/// of their lines. A device without end is not read for ever.
const FILE_BYTES_MAX: u64 = (TOKENS_MAX * ("publish:".len() + TOKEN_BYTES_MAX + 2)) as u64;

/// The tokens of a file, at least one, each as it stands on its line.
///
/// # Errors
/// Why there is none, or which of them can't be used, and what to do.
pub fn read(path: &Path) -> Result<Vec<String>, String> {
    let text = read_text(path)?;
    let tokens = parse(&text, |line| (Roles::BOTH, line))?;
    Ok(tokens.into_iter().map(|(_, token)| token.to_owned()).collect())
}

/// The tokens of a file, at least one, and what each is good for: a line is `TOKEN`, `publish:TOKEN` or `get:TOKEN`.
///
/// # Errors
/// As [`read`]; a word without a token behind it.
pub fn read_grants(path: &Path) -> Result<Vec<Grant>, String> {
    let text = read_text(path)?;
    let grants = parse(&text, Roles::of_line)?.into_iter();
    Ok(grants
        .filter_map(|(roles, token)| Some(Grant { token: Token::from_line(token)?, roles }))
        .collect())
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(|error| error.to_string())?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "it has more than {FILE_BYTES_MAX} bytes, room for {TOKENS_MAX} tokens: give a file of tokens"
        ));
    }
    Ok(text)
}

/// What `split` makes of each line that is not empty.
fn parse(text: &str, split: impl Fn(&str) -> (Roles, &str)) -> Result<Vec<(Roles, &str)>, String> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        let (roles, token) = split(line);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(format!(
                "line {} has {} bytes and a token at most {TOKEN_BYTES_MAX}: choose a shorter token",
                number + 1,
                token.len()
            ));
        }
        if token.is_empty() && !line.is_empty() {
            return Err(format!(
                "line {} says what a token is good for, and has none: write the token behind the colon",
                number + 1
            ));
        }
        if !line.is_empty() {
            tokens.push((roles, token));
        }
    }
    match tokens.len() {
        0 => Err("it holds no token: write one on a line of its own".into()),
        1..=TOKENS_MAX => Ok(tokens),
        count => Err(format!("it holds {count} tokens and may hold {TOKENS_MAX}: remove some")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(Roles, &str)>, String> {
        super::parse(text, Roles::of_line)
    }

    #[test]
    fn a_word_before_a_token_says_what_it_is_good_for_and_needs_the_token() {
        let found = parse(" a\npublish:b\n\nget: c\r\n");
        let expected = [(Roles::BOTH, "a"), (Roles::PUBLISH, "b"), (Roles::GET, "c")];
        assert_eq!(found, Ok(expected.to_vec()));
        for (text, line) in [("publish:", "line 1"), ("a\n\n get: \n", "line 3")] {
            let error = parse(text).expect_err("there is no token");
            assert!(error.contains(line) && error.contains("colon"), "{error}");
        }
        // The word is no part of the token's length.
        let longest = format!("publish:{}", "x".repeat(TOKEN_BYTES_MAX));
        assert!(parse(&longest).is_ok() && parse(&format!("{longest}x")).is_err());
    }

    #[test]
    fn a_token_has_a_longest_length_and_a_file_a_most_of_them() {
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert_eq!(parse(&format!("\n  {longest}\r\n")), Ok(vec![(Roles::BOTH, &longest[..])]));
        let error = parse(&format!("first\n{longest}y\n")).expect_err("one byte too many");
        assert!(
            error.contains("line 2") && error.contains("1025") && !error.contains("xx"),
            "{error}"
        );
        let many = "t\n".repeat(TOKENS_MAX);
        assert_eq!(parse(&many).map(|tokens| tokens.len()), Ok(TOKENS_MAX));
        assert!(parse(&format!("{many}t")).is_err());
        assert!(parse(" \n\n").is_err());
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = read("/dev/zero".as_ref()).expect_err("it does not end");
        assert!(error.contains("bytes"), "{error}");
    }
}
