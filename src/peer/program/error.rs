//! How `peer` ends without having done its job.

use std::{io, path::Path, process::ExitCode};

use crate::protocol::Token;

/// Why, for people; decides the exit code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProgramError {
    /// The command line or what it names makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The job failed: exit code 1.
    #[error("{0}")]
    Job(String),
}

impl ProgramError {
    /// A job that failed.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
    pub fn job(why: impl ToString) -> Self {
        Self::Job(why.to_string())
    }

    /// What the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Job(_) => ExitCode::FAILURE,
        }
    }
}

/// What the program was to print is nowhere.
pub(super) fn output_error(error: &io::Error) -> ProgramError {
    ProgramError::Job(format!("failed to write to stdout: {error}"))
}

/// The first line of a token file that is not empty.
pub(super) fn read_token(path: Option<&Path>) -> Result<Option<Token>, ProgramError> {
    let Some(path) = path else { return Ok(None) };
    let fail = |why: &str| {
        ProgramError::Usage(format!("failed to read --token-file {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error.to_string()))?;
    let token = text.lines().find_map(Token::from_line);
    token.map(Some).ok_or_else(|| fail("it holds no token: write one on its first line"))
}
