//! What becomes of a loop whose system calls are refused, as seccomp profiles of containers do.

use std::{
    convert::Infallible,
    process::{Command, Stdio},
    time::Duration,
};

use shards::{Driver, DriverChoice, Shard, SpinWatch, clock};

use crate::common::start_of;

/// Tells a copy of this program that it is to become a process whose loop spins.
const CHILD_VARIABLE: &str = "SHARDS_TEST_SPINS";

/// What it ends with when that was found out.
const FOUND: i32 = 42;

/// `io_uring_setup`, `io_uring_enter` and `io_uring_register`, the same on every architecture.
const CALLS: [(u32, &str); 3] =
    [(425, "io_uring_setup"), (426, "io_uring_enter"), (427, "io_uring_register")];

/// From now on the kernel refuses a call to this thread.
#[expect(unsafe_code, reason = "no crate of ours has a safe wrapper for this call")]
fn refuse(call: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("a small number"),
        jt,
        jf,
        k,
    };
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("a small number");
    let mut filter = [
        // The number of the call comes first in what the filter looks at.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a small number"),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter lives until the kernel has taken a copy of it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn each_call_of_a_ring_that_is_refused_leads_to_epoll_and_is_named() {
    let before = shards::driver::choose(DriverChoice::Auto).expect("one of them works");
    for (call, name) in CALLS {
        // A filter holds for the thread that sets it, and for as long as that lives.
        let refused = move || {
            refuse(call);
            let chosen = shards::driver::choose(DriverChoice::Auto).expect("epoll always works");
            assert_eq!(chosen.driver, Driver::Epoll, "{}", chosen.reason);
            if before.driver == Driver::IoUring {
                assert!(chosen.reason.contains(name), "{}", chosen.reason);
            }
            let error = shards::driver::choose(DriverChoice::IoUring).expect_err("it is refused");
            assert!(error.to_string().contains("epoll"), "{error}");
            let forced = shards::block_on(Driver::IoUring, async {});
            assert!(forced.is_err() || name == "io_uring_register", "{name} is refused");
        };
        std::thread::scope(|scope| scope.spawn(refused).join()).expect("it does not panic");
    }
}

/// A loop whose ring may no longer be entered, and a look at it now and then.
fn spin_until_found() -> ! {
    let start_with = start_of(Driver::IoUring, 1, 1);
    let main = |_: Shard<Infallible, Infallible>| async {
        clock::sleep(Duration::from_millis(10)).await;
        refuse(426);
        clock::sleep(Duration::from_millis(10)).await;
    };
    let shards = shards::start(start_with, main).expect("a shard starts");
    let mut watch = SpinWatch::new(shards.heartbeats(), Duration::from_millis(700));
    let began = clock::now();
    while clock::now() - began < Duration::from_secs(60) {
        if let Some(why) = watch.look(clock::now()) {
            assert!(why.contains("shard 0") && why.contains("--driver epoll"), "{why}");
            std::process::exit(FOUND);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("nobody found out");
}

#[test]
fn a_loop_whose_ring_is_refused_later_is_found_out() {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        spin_until_found();
    }
    if shards::driver::choose(DriverChoice::IoUring).is_err() {
        println!("NOT CHECKED: there is no io_uring here");
        return;
    }
    let own = std::env::current_exe().expect("this program has a path");
    let name = "refused::a_loop_whose_ring_is_refused_later_is_found_out";
    // A process of its own, since that loop has no other end.
    let mut child = Command::new(own);
    child.args(["--exact", name, "--nocapture"]).env(CHILD_VARIABLE, "1").stdin(Stdio::null());
    let ended = child.output().expect("it can be started again");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(FOUND), "{said}");
}
