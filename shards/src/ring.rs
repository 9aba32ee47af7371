//! Whether this thread may use rings: each of their three system calls is tried, in every form in which the
//! event loop makes it.
//!
//! A seccomp profile may allow to set a ring up and refuse to enter it, and the event loop of the library
//! takes no notice of that. Knows nothing of what the loop does with its ring.

use std::io;

use io_uring::{IoUring, Probe, opcode, types};

/// Entries of the ring that is tried: room for what is submitted at once.
const ENTRIES: u32 = 2;

/// What a submission that does nothing may take. It is done before the call returns.
const PATIENCE_SECONDS: u64 = 5;

/// Sets a ring up, lets operations that do nothing go through it, and asks what it can do.
///
/// # Errors
/// The system's, with the name of the call that it refuses.
pub(crate) fn probe() -> io::Result<()> {
    let ring = probed()?;
    let answer = ring.submitter().register_probe(&mut Probe::new());
    answer.map_err(|error| named("io_uring_register", &error))
}

/// Other systems have no rings.
///
/// # Errors
/// The system's, with the name of the call that it refuses.
pub(crate) fn probe_enter() -> io::Result<()> {
    probed().map(drop)
}

/// A ring that operations went through: submitted alone, waited for, and waited for with a deadline.
fn probed() -> io::Result<IoUring> {
    let ring = IoUring::new(ENTRIES).map_err(|error| named("io_uring_setup", &error))?;
    let mut ring = ring;
    through(&mut ring, |ring| ring.submit())?;
    through(&mut ring, |ring| ring.submit_and_wait(1))?;
    if ring.params().is_feature_ext_arg() {
        through(&mut ring, |ring| {
            let time = types::Timespec::new().sec(PATIENCE_SECONDS);
            ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
        })?;
    }
    Ok(ring)
}

/// One operation, submitted by `submit`; it must have come back then.
fn through(ring: &mut IoUring, submit: impl Fn(&IoUring) -> io::Result<usize>) -> io::Result<()> {
    push_nothing(ring)?;
    let mut submitted = submit(ring);
    while submitted.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        submitted = submit(ring);
    }
    submitted.map_err(|error| named("io_uring_enter", &error))?;
    match ring.completion().next() {
        Some(_) => Ok(()),
        None => Err(io::Error::other("io_uring_enter: what was submitted did not come back")),
    }
}

#[expect(unsafe_code, reason = "whoever submits an operation answers for what it refers to")]
fn push_nothing(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: the operation refers to no memory and to no descriptor.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(io::Error::other)
}

fn named(call: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_refused_is_named() {
        let error = named("io_uring_enter", &io::ErrorKind::PermissionDenied.into());
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("io_uring_enter: "), "{error}");
    }

    #[test]
    fn what_may_be_entered_is_found_so() {
        // Where rings are refused altogether, that is what is told.
        match probe() {
            Ok(()) => probe_enter().expect("it was just entered"),
            Err(error) => assert!(error.to_string().starts_with("io_uring_"), "{error}"),
        }
    }
}
