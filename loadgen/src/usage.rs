//! What this process uses and may use: CPU time, memory, descriptors.

use std::{path::Path, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Descriptors beside those of clients and event loops: standard streams, the content, questions to the
/// relay.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Of one event loop: its driver, its doorbell, its disk's bell, and what its driver asks for.
const DESCRIPTORS_PER_LOOP: u64 = 8;

/// CPU time of this process so far, all threads together.
pub(crate) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// CPU time of another process so far, as long as it has one thread; none where the system doesn't
/// tell.
pub(crate) fn cpu_time_of(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Resident memory of this process, the most so far; 0 where the system doesn't tell.
pub(crate) fn rss_bytes_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    bytes_of(&status, "VmHWM:").unwrap_or(0)
}

/// Resident memory now of the process whose status file this is, where the system tells.
pub(crate) fn rss_bytes(status: &Path) -> Option<u64> {
    bytes_of(&std::fs::read_to_string(status).ok()?, "VmRSS:")
}

fn bytes_of(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Of all threads that are called so, a dash and a number: the largest share of `time` that one of
/// them ran or was ready to run. 0 where the system doesn't tell.
pub(crate) fn demand_ratio_max(name: &str, time: Duration) -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let demands = tasks.filter_map(|task| demand(&task.ok()?.path(), name));
    let most = demands.max().unwrap_or_default();
    if time.is_zero() { 0.0 } else { (most.as_secs_f64() / time.as_secs_f64()).min(1.0) }
}

/// Time that a thread spent on a core and in the queue for one, if it is called so.
fn demand(task: &Path, name: &str) -> Option<Duration> {
    let comm = std::fs::read_to_string(task.join("comm")).ok()?;
    comm.strip_prefix(name)?.strip_prefix('-')?;
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let mut nanoseconds = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    Some(Duration::from_nanos(nanoseconds.next()? + nanoseconds.next()?))
}

/// Makes room for so many descriptors of clients on so many event loops: for as many as the system
/// allows, should those be more.
///
/// # Errors
/// What to do where the system doesn't allow as many.
pub(crate) fn raise_descriptor_limit(clients: u64, loops: usize) -> Result<(), String> {
    let loops = loops as u64;
    let needed = clients + DESCRIPTORS_BESIDE + loops * DESCRIPTORS_PER_LOOP;
    let limit = getrlimit(Resource::Nofile);
    let too_low = limit.maximum.filter(|&maximum| maximum < needed);
    if let Some(maximum) = too_low {
        return Err(format!(
            "this run needs {needed} file descriptors and the system allows {maximum}: \
             raise the limit (ulimit -Hn {needed}, as root) or take fewer --clients"
        ));
    }
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_enough = limit.current.is_none_or(|current| current >= needed);
    setrlimit(Resource::Nofile, wanted)
        .or_else(|_| match is_enough {
            true => Ok(()),
            false => setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..wanted }),
        })
        .map_err(|error| {
            format!("could not raise the limit of file descriptors to {needed}: {error}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told() {
        assert!(cpu_time() > Duration::ZERO);
        if cfg!(target_os = "linux") {
            assert!(rss_bytes_peak() > 1 << 20);
            assert!(rss_bytes("/proc/self/status".as_ref()).unwrap() > 1 << 20);
        }
    }

    #[test]
    fn a_thread_that_never_sleeps_is_in_full_demand() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let done = std::sync::atomic::AtomicBool::new(false);
        let busy = || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop()
            }
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("busybee-0".into());
            thread.spawn_scoped(scope, busy).unwrap();
            let began = shards::clock::now();
            let time = || shards::clock::now() - began;
            // It takes a while until the first turn of a thread counts; a stopped one never does.
            while demand_ratio_max("busybee", time()) < 0.7 && time() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            let demand = demand_ratio_max("busybee", time());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(demand >= 0.7, "{demand}");
            assert_eq!(demand_ratio_max("nobody", time()), 0.0);
        });
    }

    #[test]
    fn what_no_system_allows_is_refused_with_advice() {
        let hard = getrlimit(Resource::Nofile).maximum;
        if let Some(hard) = hard {
            let error = raise_descriptor_limit(hard + 1, 1).unwrap_err();
            assert!(error.contains("ulimit"), "{error}");
        }
        raise_descriptor_limit(10, 1).unwrap();
    }
}
