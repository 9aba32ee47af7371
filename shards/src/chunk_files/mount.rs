//! A tmpfs with large pages that is attached nowhere: it goes with the last descriptor of it.
//!
//! A child process makes it and passes its descriptor back. So a system call that a seccomp profile answers with death
//! ends the child alone, and where the mount needs a user namespace, only the child enters one. The child never
//! executes a program: it makes a few system calls, allocates nothing, and ends.

use std::{
    ffi::CString,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    },
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{getgid, getuid},
    thread::{UnshareFlags, unshare_unsafe},
};

/// What the child did when it failed, by the first byte that it answers.
const STEPS: [&str; 4] =
    ["entering a user namespace", "naming its user", "opening a tmpfs", "mounting a tmpfs"];

const ENTER: u8 = 0;
const NAME: u8 = 1;
const OPEN: u8 = 2;
const MOUNT: u8 = 3;

/// The answer of a child that has a mount.
const DONE: u8 = u8::MAX;

/// What went wrong where.
type Failed = (u8, Errno);

/// What the child needs, made before it exists: it may not allocate.
struct Plan {
    size: CString,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
}

/// A directory of a mount of its own, for up to so many bytes.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn make(size_bytes: usize) -> Result<OwnedFd, String> {
    let told = |what: &str, error: &io::Error| format!("{what}: {error}");
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let plan = Plan {
        size: CString::new(size_bytes.to_string()).expect("digits"),
        uid_map: format!("{uid} {uid} 1").into_bytes(),
        gid_map: format!("{gid} {gid} 1").into_bytes(),
    };
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| told("a socket pair", &error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    #[expect(unsafe_code, reason = "only a child that does not execute can make the mount")]
    // SAFETY: the closure runs in a child with one thread. It makes system calls with what was made before, neither
    // allocates nor takes a lock, and ends the child without going back to this program's code.
    unsafe {
        command.pre_exec(move || {
            answer(&far, &in_child(&plan));
            libc::_exit(0)
        });
    }
    let mut child = command.spawn().map_err(|error| told("a child process", &error))?;
    let status = match child.wait() {
        Ok(status) => Some(status),
        // Who started this process had it ignore the ends of its children: the kernel has waited for it.
        Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => None,
        Err(error) => return Err(told("the end of a child process", &error)),
    };
    // It holds the other end.
    drop(command);
    if let Some(signal) = status.and_then(|status| status.signal()) {
        return Err(format!("signal {signal} ended the child that was to mount a tmpfs"));
    }
    take_answer(&near)
}

fn in_child(plan: &Plan) -> Result<OwnedFd, Failed> {
    match mounted(plan) {
        Err((_, Errno::PERM | Errno::ACCESS)) => {}
        outcome => return outcome,
    }
    #[expect(
        unsafe_code,
        reason = "rustix says that descriptors might be unshared; these flags don't"
    )]
    // SAFETY: the table of descriptors stays shared; there is one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .map_err(|error| (ENTER, error))?;
    // Without a name in the namespace, the user could make no file there.
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/uid_map", &plan.uid_map)?;
    write(c"/proc/self/gid_map", &plan.gid_map)?;
    mounted(plan)
}

fn write(path: &std::ffi::CStr, text: &[u8]) -> Result<(), Failed> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.map_err(|error| (NAME, error))?;
    rustix::io::write(&file, text).map(drop).map_err(|error| (NAME, error))
}

fn mounted(plan: &Plan) -> Result<OwnedFd, Failed> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| (OPEN, error))?;
    let fs = context.as_fd();
    // `always` would round every file up to 2 MiB.
    fsconfig_set_string(fs, c"huge", c"within_size").map_err(|error| (OPEN, error))?;
    fsconfig_set_string(fs, c"size", plan.size.as_c_str()).map_err(|error| (OPEN, error))?;
    fsconfig_set_string(fs, c"mode", c"700").map_err(|error| (OPEN, error))?;
    fsconfig_create(fs).map_err(|error| (MOUNT, error))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|error| (MOUNT, error))
}

/// In the child: one byte and an error's number, and the descriptor if there is one. A parent that does not hear it
/// takes the end for an answer.
fn answer(socket: &OwnedFd, outcome: &Result<OwnedFd, Failed>) {
    let (step, code) = match outcome {
        Ok(_) => (DONE, 0),
        Err((step, error)) => (*step, error.raw_os_error()),
    };
    let mut bytes = [0; 5];
    bytes[0] = step;
    bytes[1..].copy_from_slice(&code.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: [BorrowedFd<'_>; 1];
    if let Ok(mount) = outcome {
        descriptors = [mount.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).ok();
}

fn take_answer(socket: &OwnedFd) -> Result<OwnedFd, String> {
    let mut bytes = [0; 5];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let slices = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, slices, &mut control, flags);
    if !received.is_ok_and(|received| received.bytes == 5) {
        return Err("the child that was to mount a tmpfs ended without a word".to_owned());
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    match descriptors.next().and_then(|mut of_one| of_one.next()) {
        Some(mount) if bytes[0] == DONE => Ok(mount),
        _ => {
            let step = STEPS.get(usize::from(bytes[0])).copied().unwrap_or("passing it on");
            let code = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
            Err(format!("{step}: {}", io::Error::from_raw_os_error(code)))
        }
    }
}
