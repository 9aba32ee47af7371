//! What this process uses and may use: CPU time, memory, descriptors.

use std::time::Duration;

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Descriptors beside those of clients: standard streams, event loops, doorbells, the content,
/// questions to the relay.
const DESCRIPTORS_BESIDE: u64 = 64;

/// CPU time of this process so far, all threads together.
pub(crate) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Resident memory of this process, the most so far; 0 where the system doesn't tell.
pub(crate) fn rss_bytes_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Makes room for so many descriptors of clients.
///
/// # Errors
/// What to do where the system doesn't allow as many.
pub(crate) fn raise_descriptor_limit(clients: u64) -> Result<(), String> {
    let needed = clients + DESCRIPTORS_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let too_low = limit.maximum.filter(|&maximum| maximum < needed);
    if let Some(maximum) = too_low {
        return Err(format!(
            "this run needs {needed} file descriptors and the system allows {maximum}: \
             raise the limit (ulimit -Hn {needed}, as root) or take fewer --clients"
        ));
    }
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..wanted }))
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
        }
    }

    #[test]
    fn what_no_system_allows_is_refused_with_advice() {
        let hard = getrlimit(Resource::Nofile).maximum;
        if let Some(hard) = hard {
            let error = raise_descriptor_limit(hard + 1).unwrap_err();
            assert!(error.contains("ulimit"), "{error}");
        }
        raise_descriptor_limit(10).unwrap();
    }
}
