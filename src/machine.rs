//! What this machine lets a process use: memory, and processor time, less what control groups take.
//!
//! Control groups come in version 1 and 2. A process is in one group of each hierarchy, and every
//! group above it limits it as well. Where they are to be seen is told by the mounts: containers
//! often see only their own part.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The limits of all groups that this process is in.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Cores' worth of processor time.
    pub(crate) cores: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
}

/// The bytes of memory that may still be used: what is available, or less if a group limits it.
/// `None` where the system does not tell.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let limit = Groups::gather().memory_bytes.unwrap_or(u64::MAX);
    Some(limit.min(kilobytes << 10))
}

/// A kernel's setting, by its name.
pub(crate) fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Where a hierarchy's groups are to be seen, and which of them are ours, the innermost first.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Hierarchy {
    /// Version 1 has one for each controller; version 2 has one in all.
    pub(crate) controllers: Vec<String>,
    pub(crate) groups: Vec<PathBuf>,
}

impl Groups {
    /// Reads them.
    pub(crate) fn gather() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut found = Self::default();
        for hierarchy in hierarchies(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup")) {
            for group in &hierarchy.groups {
                let read = |file: &str| fs::read_to_string(group.join(file)).ok();
                found.narrow(quota(&read), memory(&read));
            }
        }
        found
    }

    fn narrow(&mut self, cores: Option<f64>, memory_bytes: Option<u64>) {
        self.cores = self.cores.into_iter().chain(cores).reduce(f64::min);
        self.memory_bytes = self.memory_bytes.into_iter().chain(memory_bytes).min();
    }
}

/// The hierarchies, from what the kernel tells of mounts and of this process's groups.
pub(crate) fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|line| hierarchy(line, own)).collect()
}

/// `ID PARENT DEVICE ROOT MOUNT OPTIONS.. - TYPE SOURCE OPTIONS`, and lines of `ID:CONTROLLERS:PATH`.
fn hierarchy(mount: &str, own: &str) -> Option<Hierarchy> {
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, at) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let controllers: Vec<String> = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => {
            options.split(',').filter(|o| *o != "rw" && *o != "ro").map(Into::into).collect()
        }
        _ => return None,
    };
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (of, path) = (parts.next()?, parts.next()?);
        let same = match controllers.first() {
            None => of.is_empty(),
            Some(first) => of.split(',').any(|controller| controller == first),
        };
        same.then_some(path)
    })?;
    let top = Path::new(at);
    // What is mounted may be only a part of the hierarchy, and the path may lie outside of it.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let groups = below.ancestors().map(|part| top.join(part)).collect();
    Some(Hierarchy { controllers, groups })
}

/// The cores that a group may use, if that is limited.
pub(crate) fn quota(read: &impl Fn(&str) -> Option<String>) -> Option<f64> {
    if let Some(text) = read("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return cores(quota, period);
    }
    cores(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

/// Microseconds of each so many; `max` and a negative quota are no limit.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0.0 && quota >= 0.0).then_some(quota / period)
}

/// The bytes that a group may use, if that is limited: version 1 says 2^63 for no limit.
pub(crate) fn memory(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, hierarchies};

    #[test]
    fn quotas_are_read_as_the_kernel_writes_them() {
        let files = |files: &'static [(&str, &str)]| {
            move |name: &str| {
                files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
            }
        };
        let quota = |of| super::quota(&files(of));
        assert_eq!(quota(&[("cpu.max", "max 100000\n")]), None);
        assert_eq!(quota(&[("cpu.max", "150000 100000\n")]), Some(1.5));
        assert_eq!(quota(&[("cpu.max", "")]), None);
        assert_eq!(quota(&[]), None);
        assert_eq!(quota(&[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]), None);
        assert_eq!(
            quota(&[("cpu.cfs_quota_us", "50000\n"), ("cpu.cfs_period_us", "100000\n")]),
            Some(0.5)
        );
        let memory = |of| super::memory(&files(of));
        assert_eq!(memory(&[("memory.max", "max\n")]), None);
        assert_eq!(memory(&[("memory.max", "1048576\n")]), Some(1 << 20));
        assert_eq!(memory(&[("memory.limit_in_bytes", "9223372036854771712\n")]), None);
        assert_eq!(memory(&[("memory.limit_in_bytes", "4096\n")]), Some(4096));
    }

    #[test]
    fn groups_are_found_where_they_are_mounted_in_both_versions() {
        let v2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let found = hierarchies(v2, "0::/system.slice/relay.service\n");
        let paths = |at: usize, found: &[Hierarchy]| {
            found[at].groups.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            paths(0, &found),
            [
                "/sys/fs/cgroup/system.slice/relay.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup/"
            ]
        );
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let found = hierarchies(v1, "3:cpu,cpuacct:/limited\n4:memory:/docker/abc\n0::/\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(paths(0, &found)[0], "/sys/fs/cgroup/cpu,cpuacct/limited");
        // A container sees only its own part, as the root of what is mounted.
        assert_eq!(paths(1, &found), ["/sys/fs/cgroup/memory/"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_how_much_memory_there_is() {
        assert!(super::memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
