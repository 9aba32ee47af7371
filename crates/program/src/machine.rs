//! What this machine lets a process use: memory, and processor time, less what control groups take.
//!
//! Control groups come in version 1 and 2. A process is in one group of each hierarchy, and every
//! group above it limits it as well. Where they are to be seen is told by the mounts: containers
//! often see only their own part.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

/// Where a container finds its own group if nothing tells what is mounted: version 2, then 1.
const GROUPS_USUAL: [&str; 3] =
    ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct"];

/// The limits of all groups that this process is in.
#[derive(Debug, Default)]
pub struct Groups {
    /// Cores' worth of processor time.
    pub cores: Option<f64>,
    /// The least limit on memory.
    pub memory_bytes: Option<u64>,
}

/// What bounds the memory of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitOf {
    /// There is no more.
    Machine,
    /// A control group, of this process or above it.
    Group,
    /// The limit on addresses, `RLIMIT_AS`.
    Addresses,
    /// The limit on writable memory, `RLIMIT_DATA`.
    Data,
}

impl fmt::Display for LimitOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "this machine's memory",
            Self::Group => "the memory limit of the control group",
            Self::Addresses => "the limit on addresses (ulimit -v)",
            Self::Data => "the limit on data (ulimit -d)",
        })
    }
}

/// The least of all bounds on the memory of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimit {
    /// Bytes that the process may have.
    pub bytes: u64,
    /// What bounds it.
    pub of: LimitOf,
}

/// What this process may use of memory, however much of it is in use: the least that the machine, control
/// groups and resource limits allow. `None` where the system does not tell.
#[must_use]
pub fn memory_limit() -> Option<MemoryLimit> {
    let own = [(Resource::As, LimitOf::Addresses), (Resource::Data, LimitOf::Data)];
    let own = own
        .map(|(resource, of)| getrlimit(resource).current.map(|bytes| MemoryLimit { bytes, of }));
    own.into_iter().flatten().chain(shared_memory_limit()).min_by_key(|limit| limit.bytes)
}

/// As the function above, without what is of this process alone: it is shared with all others of its group.
#[must_use]
pub fn shared_memory_limit() -> Option<MemoryLimit> {
    let limit = |of| move |bytes| MemoryLimit { bytes, of };
    let machine = meminfo("MemTotal:").map(limit(LimitOf::Machine));
    let group = Groups::gather().memory_bytes.map(limit(LimitOf::Group));
    machine.into_iter().chain(group).min_by_key(|limit| limit.bytes)
}

/// The bytes of memory that may still be used: what is available, or less if a limit says so.
/// `None` where the system does not tell.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let limit = memory_limit().map(|limit| limit.bytes);
    meminfo("MemAvailable:").into_iter().chain(limit).min()
}

/// A line of what the system tells of its memory.
fn meminfo(key: &str) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// A kernel's setting, by its name.
pub fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Where a hierarchy's groups are to be seen, and which of them are ours, the innermost first.
#[derive(PartialEq, Eq, Debug)]
pub struct Hierarchy {
    /// Version 1 has one for each controller; version 2 has one in all.
    pub controllers: Vec<String>,
    /// This process's group in it, and those above.
    pub groups: Vec<PathBuf>,
}

impl Groups {
    /// Reads them.
    pub fn gather() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut found = Self::default();
        let hierarchies = hierarchies(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
        let mut groups: Vec<_> = hierarchies.into_iter().flat_map(|of| of.groups).collect();
        if groups.is_empty() {
            groups = GROUPS_USUAL.map(PathBuf::from).into();
        }
        for group in groups {
            let read = |file: &str| fs::read_to_string(group.join(file)).ok();
            found.narrow(quota(&read), memory(&read));
        }
        found
    }

    fn narrow(&mut self, cores: Option<f64>, memory_bytes: Option<u64>) {
        self.cores = self.cores.into_iter().chain(cores).reduce(f64::min);
        self.memory_bytes = self.memory_bytes.into_iter().chain(memory_bytes).min();
    }
}

/// The hierarchies, from what the kernel tells of mounts and of this process's groups.
pub fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
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
pub fn quota(read: &impl Fn(&str) -> Option<String>) -> Option<f64> {
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

/// The bytes that a group may use, if that is limited. Version 1 says 2^63 for no limit, and the least of
/// all groups above in a file of its own; version 2 slows a group down long before it ends it.
pub fn memory(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let of_file = |file| read(file)?.trim().parse().ok();
    let above = || {
        let stat = read("memory.stat")?;
        let limit = |line: &str| line.strip_prefix("hierarchical_memory_limit ")?.parse().ok();
        stat.lines().find_map(limit)
    };
    let limits =
        [of_file("memory.max"), of_file("memory.high"), of_file("memory.limit_in_bytes"), above()];
    limits.into_iter().flatten().filter(|bytes| *bytes < 1 << 62).min()
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
        // Reclaim stops a group from going on there.
        let both = &[("memory.max", "8192\n"), ("memory.high", "4096\n")];
        assert_eq!(memory(both), Some(4096));
        // Of groups that a container does not see.
        let above = &[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "cache 0\nhierarchical_memory_limit 4096\n"),
        ];
        assert_eq!(memory(above), Some(4096));
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
        let limit = super::memory_limit().expect("Linux tells");
        assert!(limit.bytes > 1 << 20, "{limit:?}");
        assert!(super::memory_bytes().is_some_and(|bytes| bytes <= limit.bytes));
    }
}
