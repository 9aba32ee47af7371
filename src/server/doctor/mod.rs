//! `relay doctor`: what this machine allows a relay, what each of it means, and what mends it.
//!
//! Facts are gathered by [`facts`]; what they mean is decided here, from facts alone. It changes
//! nothing, and opens ports only to see whether they are free.

mod facts;

use std::{ffi::OsString, fmt, io::Write as _, process::ExitCode};

use clap::Parser;

use self::facts::Facts;
use crate::config::{RelayArgs, RelayConfig};

/// Checks this machine for a relay with the same options, and says what would mend what is amiss.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "relay doctor",
    after_help = "Example:\n  relay doctor --cores 8 --cache 1G\n\nExits with 0 if a relay with these \
                  options runs here, perhaps with less than it could;\n1 if it does not; 2 for wrong \
                  usage. Give it the options that the relay gets."
)]
struct DoctorArgs {
    #[command(flatten)]
    relay: RelayArgs,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Grade {
    Fine,
    /// It runs, and could be better.
    Note,
    /// It does not run like this.
    Bad,
}

/// One line, and what to do.
#[derive(Debug)]
struct Finding {
    grade: Grade,
    what: &'static str,
    found: String,
    mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Fine => "ok",
            Grade::Note => "note",
            Grade::Bad => "BAD",
        };
        write!(f, "{grade:>4}  {:<18} {}", self.what, self.found)?;
        match &self.mend {
            Some(mend) => write!(f, "\n      {:<18} -> {mend}", ""),
            None => Ok(()),
        }
    }
}

fn fine(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { grade: Grade::Fine, what, found: found.into(), mend: None }
}

fn note(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { grade: Grade::Note, what, found: found.into(), mend: Some(mend.into()) }
}

fn bad(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { grade: Grade::Bad, what, found: found.into(), mend: Some(mend.into()) }
}

/// The subcommand: arguments, its own name first, to exit code.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match DoctorArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nowhere to say it if even this can't be written.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let config = match RelayConfig::new(args.relay) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let findings = judge(&Facts::gather(&config));
    let worst = findings.iter().map(|finding| finding.grade).max();
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    text.push_str(match worst {
        Some(Grade::Bad) => "\nA relay with these options does not run here.\n",
        Some(Grade::Note) => "\nA relay with these options runs here; see the notes for more.\n",
        _ => "\nAll is well.\n",
    });
    if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    if worst == Some(Grade::Bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        event_loops(facts),
        locked_memory(facts),
        descriptors(facts),
        buffers(facts),
        congestion(facts),
        cores(facts),
        memory(facts),
        ipv6(facts),
    ];
    findings.extend(facts.ports.iter().map(|(what, addr, outcome)| match outcome {
        Ok(()) => fine("port", format!("{addr} is free for {what}")),
        Err(why) => bad(
            "port",
            format!("{addr} can't be used for {what}: {why}"),
            format!(
                "see who has it: ss -lntup 'sport = :{}'; or choose another with {}",
                addr.port(),
                if *what == "HTTP" { "--http" } else { "--listen" }
            ),
        ),
    }));
    findings
}

fn event_loops(facts: &Facts) -> Finding {
    let what = "event loops";
    match &facts.driver {
        Err(why) => bad(what, why.clone(), "relay --driver auto"),
        Ok((true, reason)) => fine(what, reason.clone()),
        Ok((false, reason)) => {
            let found = format!("{reason}; epoll serves as well, with more system calls");
            match facts.io_uring_disabled {
                Some(0) | None if facts.is_linux => note(
                    what,
                    found,
                    "in a container: podman run --security-opt seccomp=PROFILE, where PROFILE \
                     allows io_uring_setup, io_uring_enter and io_uring_register",
                ),
                Some(_) => note(what, found, "sysctl -w kernel.io_uring_disabled=0"),
                None => fine(what, found),
            }
        }
    }
}

/// What a ring of each shard may take on kernels that count it as locked memory.
const LOCKED_BYTES_PER_SHARD: u64 = 1 << 20;

fn locked_memory(facts: &Facts) -> Finding {
    let wanted = LOCKED_BYTES_PER_SHARD * facts.shard_count as u64;
    match facts.locked_bytes {
        Some(limit) if limit < wanted => note(
            "locked memory",
            format!(
                "{} KiB; kernels before 5.12 charge rings to it, {} KiB for {} shards",
                limit >> 10,
                wanted >> 10,
                facts.shard_count
            ),
            format!("ulimit -l {}   (systemd: LimitMEMLOCK={}K)", wanted >> 10, wanted >> 10),
        ),
        Some(limit) => fine("locked memory", format!("{} KiB are enough for rings", limit >> 10)),
        None => fine("locked memory", "not limited"),
    }
}

fn descriptors(facts: &Facts) -> Finding {
    let wanted = facts.peers_wished as u64 + super::DESCRIPTORS_RESERVED;
    match facts.descriptors {
        Some(limit) if limit <= super::DESCRIPTORS_RESERVED => bad(
            "descriptors",
            format!("{limit}: not enough for a single peer"),
            format!("ulimit -Hn {wanted}   (systemd: LimitNOFILE={wanted})"),
        ),
        Some(limit) if limit < wanted => note(
            "descriptors",
            format!(
                "at most {limit}: --max-peers will be lowered from {} to {}",
                facts.peers_wished,
                limit - super::DESCRIPTORS_RESERVED
            ),
            format!("ulimit -Hn {wanted}   (systemd: LimitNOFILE={wanted})"),
        ),
        Some(limit) => fine("descriptors", format!("{limit}, for {} peers", facts.peers_wished)),
        None => fine("descriptors", "not limited"),
    }
}

/// The largest window that the relay gives one peer.
const BUFFER_BYTES_WANTED: u64 = super::window::WINDOW_BYTES_MAX;

fn buffers(facts: &Facts) -> Finding {
    let short: Vec<&(&str, u64)> =
        facts.buffers.iter().filter(|(_, most)| *most < BUFFER_BYTES_WANTED).collect();
    if short.is_empty() {
        return fine("socket buffers", "as large as a peer's largest window, 4 MiB");
    }
    let names: Vec<String> =
        short.iter().map(|(name, most)| format!("{name} {} KiB", most >> 10)).collect();
    let mends: Vec<String> = short
        .iter()
        .map(|(name, _)| match *name {
            "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => {
                format!("sysctl -w {name}='4096 131072 {BUFFER_BYTES_WANTED}'")
            }
            _ => format!("sysctl -w {name}={BUFFER_BYTES_WANTED}"),
        })
        .collect();
    note(
        "socket buffers",
        format!(
            "{} at most: a peer far away (long round trips) gets less than it could take",
            names.join(", ")
        ),
        mends.join("; "),
    )
}

fn congestion(facts: &Facts) -> Finding {
    let what = "congestion control";
    let Some(default) = &facts.congestion_default else {
        return fine(what, "this system does not tell; its default is used");
    };
    let wanted = facts.congestion_wanted.as_ref().unwrap_or(default);
    let is_there = facts.congestion_available.iter().any(|name| name == wanted);
    if !is_there && !facts.congestion_available.is_empty() {
        return bad(
            what,
            format!("{wanted} is not among {}", facts.congestion_available.join(", ")),
            format!("modprobe tcp_{wanted}; or choose one with --congestion"),
        );
    }
    if wanted == "bbr" && facts.is_loopback_only {
        return note(
            what,
            "bbr paces: on loopback it takes about twice as long",
            "relay --congestion cubic",
        );
    }
    fine(what, format!("{wanted} (the system's is {default})"))
}

#[expect(clippy::cast_precision_loss, reason = "a number of cores")]
fn cores(facts: &Facts) -> Finding {
    match facts.quota_cores {
        Some(quota) if quota + 0.01 < facts.shard_count as f64 => note(
            "cores",
            format!(
                "{} shards share a quota of {quota:.1} cores: the system stops them all when it is \
                 used up, for tens of milliseconds",
                facts.shard_count
            ),
            format!(
                "relay --cores {}; or raise the quota (podman run --cpus={}, systemd: CPUQuota={}%)",
                facts::floor(quota).max(1),
                facts.shard_count,
                100 * facts.shard_count
            ),
        ),
        _ if facts.cores_wished > facts.shard_count => note(
            "cores",
            format!("{} shards: --cores says {}", facts.shard_count, facts.cores_wished),
            "relay --oversubscribe starts more shards than cores, which is slower",
        ),
        _ => fine("cores", format!("{} shards, each on a core of its own", facts.shard_count)),
    }
}

/// Of the process beside chunks: fixed cost, and what 1,000 peers need.
const MEMORY_BESIDE_CHUNKS_BYTES: u64 = 128 << 20;

fn memory(facts: &Facts) -> Finding {
    let wanted = facts.cache_bytes.saturating_add(MEMORY_BESIDE_CHUNKS_BYTES);
    match facts.memory_bytes {
        Some(there) if there < wanted => note(
            "memory",
            format!(
                "{} MiB may be used; --cache {} MiB and what else a relay needs is more: under load \
                 the system may kill it",
                there >> 20,
                facts.cache_bytes >> 20
            ),
            format!("relay --cache {}M", ((there / 2) >> 20).max(1)),
        ),
        Some(there) => fine(
            "memory",
            format!("{} MiB may be used, --cache takes {}", there >> 20, facts.cache_bytes >> 20),
        ),
        None => fine("memory", "this system does not tell how much there is"),
    }
}

fn ipv6(facts: &Facts) -> Finding {
    match &facts.ipv6 {
        Ok(()) => fine("IPv6", "peers may come by it"),
        Err(why) => note(
            "IPv6",
            format!("not to be had ({why}): peers come by IPv4 only"),
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0; in a container, a network with IPv6",
        ),
    }
}

#[cfg(test)]
mod tests;
