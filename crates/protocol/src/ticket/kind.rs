//! What a ticket's bytes are to its reader.

/// What a ticket's bytes are to its reader. Relay and swarm know no difference.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TicketKind {
    /// A file.
    #[default]
    File,
    /// A file that its owner may execute.
    Executable,
    /// A tree of files, as a [`bundle`](crate::bundle).
    Bundle,
}

impl TicketKind {
    /// Of a file.
    #[must_use]
    pub fn of_file(is_executable: bool) -> Self {
        if is_executable { Self::Executable } else { Self::File }
    }
}
