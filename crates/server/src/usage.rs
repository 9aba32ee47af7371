//! What the process and its threads use, as the kernel counts it.

use std::time::Duration;

/// Resident memory, the most so far, in bytes; 0 where the kernel does not tell.
pub(crate) fn rss_bytes_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// CPU time of the process in microseconds.
pub(crate) fn cpu_us() -> u64 {
    let spent = clock(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(id: rustix::time::ClockId) -> Duration {
    let spent = rustix::time::clock_gettime(id);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or(0),
        u32::try_from(spent.tv_nsec).unwrap_or(0),
    )
}
