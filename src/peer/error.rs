//! How `peer` ends without having done its job.

use std::{io, path::Path, process::ExitCode};

use crate::{
    protocol::{Grant, Roles, Token},
    token_file,
};

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

/// The system refuses a thread: which, why, and what to do.
pub(super) fn no_thread(which: &str, error: &io::Error) -> String {
    format!("failed to start the thread {which}: {error}; {}", shards::mend_of_no_thread(error))
}

/// The first token of a token file, and what its line says that it is good for.
pub(super) fn read_grant(path: Option<&Path>) -> Result<Option<Grant>, ProgramError> {
    let Some(path) = path else { return Ok(None) };
    let grants = token_file::read_grants(path).map_err(|why| {
        ProgramError::Usage(format!("failed to read --token-file {}: {why}", path.display()))
    })?;
    Ok(grants.into_iter().next())
}

/// The first token of a token file, for this. The relay would refuse another, but later.
pub(super) fn read_token(path: Option<&Path>, need: Roles) -> Result<Option<Token>, ProgramError> {
    let Some(Grant { token, roles }) = read_grant(path)? else { return Ok(None) };
    if roles.union(need) == roles {
        return Ok(Some(token));
    }
    let (is, not) = if roles.may_get() { ("get", "publish") } else { ("publish", "get") };
    Err(ProgramError::Usage(format!(
        "the first line of --token-file {} is a token that may only {is} files ({is}:), and not {not} them: ask the \
         relay's operator for one that may",
        path.unwrap_or("".as_ref()).display()
    )))
}
