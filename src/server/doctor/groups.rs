//! What control groups allow: processor time and memory, of version 2 and of version 1.
//!
//! A process is in one group of each hierarchy, and every group above it limits it as well. Where
//! they are to be seen is told by the mounts: containers often see only their own part.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The limits of all groups that this process is in.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Cores' worth of processor time.
    pub(super) cores: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
}

/// Where a hierarchy's groups are to be seen, and which of them are ours, the innermost first.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Hierarchy {
    /// Version 1 has one for each controller; version 2 has one in all.
    pub(super) controllers: Vec<String>,
    pub(super) groups: Vec<PathBuf>,
}

impl Groups {
    /// Reads them.
    pub(super) fn gather() -> Self {
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
pub(super) fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
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
pub(super) fn quota(read: &impl Fn(&str) -> Option<String>) -> Option<f64> {
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
pub(super) fn memory(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}
