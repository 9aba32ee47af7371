//! One line of what `relay doctor` says: how bad it is, and what mends it.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Grade {
    Fine,
    /// It runs, and could be better.
    Note,
    /// It does not run like this.
    Bad,
}

/// One line, and what to do.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Fine => "ok",
            Grade::Note => "note",
            Grade::Bad => "BAD",
        };
        write!(f, "{grade:>4}  {:<18} {}", self.what, self.found)?;
        match &self.mend {
            Some(mend) => write!(f, "\n      {:<18} -> {mend}", ""),
            None => Ok(()),
        }
    }
}

/// It is as it should be.
pub(super) fn fine(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { grade: Grade::Fine, what, found: found.into(), mend: None }
}

/// A relay runs, and could be better by this.
pub(super) fn note(
    what: &'static str,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { grade: Grade::Note, what, found: found.into(), mend: Some(mend.into()) }
}

/// A relay does not run, unless this is done.
pub(super) fn bad(
    what: &'static str,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { grade: Grade::Bad, what, found: found.into(), mend: Some(mend.into()) }
}
