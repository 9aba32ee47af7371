//! The programs' allocator: mimalloc, and a word on stderr where the system refuses memory. The standard library
//! would abort, and a program that asks for too much is no crash.
//!
//! Only where a limit was set (`ulimit -v`, `ulimit -d`, strict overcommit) does the system refuse memory. What a
//! control group allows is found out when memory is used, and too late to be told: [`crate::machine`] asks for
//! that before.

use std::{
    alloc::{GlobalAlloc, Layout},
    io::Write as _,
};

use mimalloc::MiMalloc;

/// Bytes of what is said when there is no memory: longer than it ever is.
const TEXT_BYTES_MAX: usize = 256;

/// What every program allocates from.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only passes on")]
// SAFETY: everything is passed on to an allocator that keeps the contract; a null pointer is never returned.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that are wanted here.
        given(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { MiMalloc.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        refused(bytes);
    }
    pointer
}

/// Ends the program. Allocates nothing.
#[cold]
#[expect(unsafe_code, reason = "what runs at a usual exit may want memory")]
fn refused(bytes: usize) -> ! {
    let mut text = [0; TEXT_BYTES_MAX];
    let mut left = &mut text[..];
    // What does not fit is not said.
    writeln!(
        left,
        "error: the system refuses {bytes} bytes of memory: raise the limit of this process (ulimit -v, ulimit \
         -d), or ask for less (relay: a smaller --cache, fewer --cores; loadgen: a smaller --file)"
    )
    .ok();
    let unused = left.len();
    std::io::stderr().write_all(&text[..TEXT_BYTES_MAX - unused]).ok();
    // SAFETY: it ends the process and does not return.
    unsafe { libc::_exit(1) }
}

/// At the start of a program: the C library keeps addresses in reserve for each thread that asks it for memory, 64
/// MiB a piece. Nothing of ours does, and where addresses are limited they would be missed.
pub fn reserve_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "no crate of ours has a safe wrapper for this call")]
        // SAFETY: it sets a number, before there is a second thread.
        let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        debug_assert_eq!(set, 1, "the C library knows the option");
    }
}
