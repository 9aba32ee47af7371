//! Results: on stdout, all of them, or an error. Knows nothing of what they are.
//!
//! A descriptor that a program was started without (`>&-`) is `/dev/null` by the time that its code runs: the
//! standard library opens that in its place, and takes every byte for written. So it is noted before.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::{fs::OFlags, io::Errno};

/// The number of stdout.
const STDOUT: RawFd = 1;

/// Whether the program was started without a stdout.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether anything can be written at all.
///
/// # Errors
/// Stdout is closed, or can only be read.
pub fn check() -> io::Result<()> {
    if WAS_CLOSED.load(Relaxed) {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "it is closed"));
    }
    let flags = rustix::fs::fcntl_getfl(io::stdout().as_fd())?;
    match flags & OFlags::ACCMODE {
        OFlags::RDONLY => Err(Errno::BADF.into()),
        _ => Ok(()),
    }
}

/// Whether the program was started without a stdout: then results have no reader.
#[must_use]
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Relaxed)
}

/// Writes all of it.
///
/// # Errors
/// [`check`]'s, or the system's: not all of it was written.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    open()?.write_all(bytes)
}

/// Stdout as a file, to be written to on another thread.
///
/// # Errors
/// [`check`]'s, or the system's.
pub fn open() -> io::Result<File> {
    check()?;
    // The standard library's own would hide some errors, and keep others until it is too late.
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Runs before `main`, and before the standard library looks at the descriptors.
extern "C" fn note() {
    #[expect(unsafe_code, reason = "a descriptor by its number, before anything owns it")]
    // SAFETY: nothing opens or closes descriptors yet, and whether it is open is what is asked.
    let stdout = unsafe { BorrowedFd::borrow_raw(STDOUT) };
    WAS_CLOSED.store(rustix::io::fcntl_getfd(stdout) == Err(Errno::BADF), Relaxed);
}

#[used]
#[expect(unsafe_code, reason = "the standard library opens what is closed before `main` runs")]
// SAFETY: a function of the type that the loader calls. It makes one system call and stores to an atomic,
// neither of which needs anything to be set up, and there is one thread.
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static NOTE: extern "C" fn() = note;
