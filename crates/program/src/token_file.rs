//! Files of tokens, as every program reads them: one token a line, what surrounds it trimmed, empty lines
//! skipped. Nothing of a file is ever printed.

use std::{fs::File, io::Read as _, path::Path};

use relay_protocol::limits::TOKEN_BYTES_MAX;

/// Tokens of one file, at most: each of them is tried for every peer that comes.
pub const TOKENS_MAX: usize = 1024;

/// Bytes of a file, at most: as many as its tokens may have, and the ends of their lines. A device without
/// end is not read for ever.
const FILE_BYTES_MAX: u64 = (TOKENS_MAX * (TOKEN_BYTES_MAX + 2)) as u64;

/// The tokens of a file, at least one.
///
/// # Errors
/// Why there is none, or which of them can't be used, and what to do.
pub fn read(path: &Path) -> Result<Vec<String>, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(|error| error.to_string())?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "it has more than {FILE_BYTES_MAX} bytes, room for {TOKENS_MAX} tokens: give a file of tokens"
        ));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(format!(
                "line {} has {} bytes and a token at most {TOKEN_BYTES_MAX}: choose a shorter token",
                number + 1,
                token.len()
            ));
        }
        if !token.is_empty() {
            tokens.push(token.to_owned());
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

    #[test]
    fn a_token_has_a_longest_length_and_a_file_a_most_of_them() {
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert_eq!(parse(&format!("\n  {longest}\r\n")), Ok(vec![longest.clone()]));
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
