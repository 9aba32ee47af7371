//! Which signals `peer` listens to. Catches none itself. A relay listens to all that mean an end: that is what
//! scripts which start it in the background count on.

use signal_hook::consts::TERM_SIGNALS;

/// Those that mean an end, without those that this program's parent has it ignore: a shell does so
/// with what it starts in the background, so that Ctrl-C ends only what is in front.
#[must_use]
pub fn to_catch() -> Vec<i32> {
    let ignored = ignored();
    let is_heard = |signal: &i32| !is_in(ignored, *signal);
    TERM_SIGNALS.iter().copied().filter(is_heard).collect()
}

/// Ignored signals, as a set of bits: signal 1 is the lowest.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| in_status(&status))
}

/// Other systems tell it only by a call that no crate of ours has.
#[cfg(not(target_os = "linux"))]
fn ignored() -> u64 {
    0
}

#[cfg(any(target_os = "linux", test))]
fn in_status(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(set: u64, signal: i32) -> bool {
    let bit = u32::try_from(signal - 1).unwrap_or(u32::MAX);
    set.checked_shr(bit).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_ignored_signals_is_understood() {
        let status = "Name:\tpeer\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001006\n";
        let ignored = in_status(status);
        let of = |signal| is_in(ignored, signal);
        assert!(of(signal_hook::consts::SIGINT) && of(signal_hook::consts::SIGQUIT));
        assert!(!of(signal_hook::consts::SIGTERM) && !of(0) && !of(65));
        assert_eq!(in_status("nothing of the kind"), 0);
    }
}
