//! What the facts mean for a relay, and the command that mends what is amiss.

use std::{io, net::SocketAddr, time::Duration};

use shards::{DriverChoice, driver::FORCE_EPOLL_VARIABLE};

use super::{
    facts::{self, BUFFERS, Facts},
    finding::{Finding, bad, fine, note},
    ports::{Port, Refusal, Use},
};
use relay_program::buffers;
use relay_server::{Congestion, Verdict};
use relay_units::option_text;

/// For what a setting means: a round trip from one continent to another.
const FAR: Duration = Duration::from_millis(100);

/// What a ring of each shard may take on kernels that count it as locked memory.
const LOCKED_BYTES_PER_SHARD: u64 = 1 << 20;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        event_loops(facts),
        locked_memory(facts),
        descriptors(facts),
        buffers(facts),
        congestion(facts),
        cores(facts),
        memory(facts),
        lending(facts),
        loopback(facts),
        ipv6(facts),
        identity(facts),
    ];
    findings.extend(facts.unreadable.iter().map(|(path, why)| {
        bad(
            "file to serve",
            format!("{} can't be read: {why}", path.display()),
            "give --serve a file that this user may read (ls -l, chmod)",
        )
    }));
    findings.extend(facts.ports.iter().map(port));
    findings
}

fn identity(facts: &Facts) -> Finding {
    let what = "identity";
    match &facts.pin {
        Ok(Some(pin)) => fine(what, format!("peers know this relay by the pin {pin}")),
        Ok(None) => fine(what, "the first start makes a key, and prints its pin"),
        Err(why) => bad(
            what,
            why.clone(),
            "relay --identity-file FILE   (--ephemeral-identity for one run)",
        ),
    }
}

fn event_loops(facts: &Facts) -> Finding {
    let what = "event loops";
    let (is_best, reason) = match &facts.driver {
        Err(why) => {
            return bad(what, why.clone(), "relay --driver auto   (then epoll serves as well)");
        }
        Ok((is_best, reason)) => (*is_best, reason.clone()),
    };
    if is_best || !facts.is_linux {
        return fine(what, reason);
    }
    let found = format!("{reason}; epoll serves as well, with more system calls");
    if facts.driver_wished == DriverChoice::Epoll {
        return fine(what, found);
    }
    if facts.is_uring_renounced {
        return note(what, found, format!("unset {FORCE_EPOLL_VARIABLE}"));
    }
    match facts.io_uring_disabled {
        Some(1 | 2) => note(what, found, "sysctl -w kernel.io_uring_disabled=0"),
        Some(_) => note(
            what,
            found,
            "in a container: podman run --security-opt seccomp=PROFILE, where PROFILE allows \
             io_uring_setup, io_uring_enter and io_uring_register",
        ),
        // Kernels from 6.6 on have the setting; before, only a profile or the kernel's age forbids.
        None => note(
            what,
            found,
            "a kernel from 5.11 on; in a container also podman run --security-opt seccomp=PROFILE, \
             where PROFILE allows io_uring_setup, io_uring_enter and io_uring_register",
        ),
    }
}

fn locked_memory(facts: &Facts) -> Finding {
    let wanted = LOCKED_BYTES_PER_SHARD * facts.shard_count as u64;
    match facts.locked_bytes {
        Some(limit) if limit < wanted => note(
            "locked memory",
            format!(
                "{} KiB; kernels before 5.12 charge rings to it, {} KiB for {} shards (later ones \
                 do not)",
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
    let what = "descriptors";
    let descriptors = &facts.descriptors;
    let places = match descriptors.places() {
        Ok(places) => places,
        Err(too_few) => {
            let least = too_few.least;
            let mend = format!("as root: ulimit -Hn {least}   (systemd: LimitNOFILE={least})");
            return bad(what, too_few.to_string(), mend);
        }
    };
    let wanted = descriptors.wanted();
    match (descriptors.shortage(&places), descriptors.limit) {
        (Some(text), _) => note(
            what,
            text,
            format!(
                "as root: ulimit -Hn {wanted}   (systemd: LimitNOFILE={wanted}; podman run --ulimit \
                 nofile={wanted})"
            ),
        ),
        (None, Some(limit)) => {
            fine(what, format!("at most {limit}, enough for --max-peers {}", places.peers))
        }
        (None, None) => fine(what, "not limited"),
    }
}

fn buffers(facts: &Facts) -> Finding {
    let what = "socket buffers";
    let short: Vec<(&str, &str, u64, u64)> = BUFFERS
        .iter()
        .filter_map(|&(name, wanted)| {
            let (_, value) = facts.buffers.iter().find(|(known, _)| *known == name)?;
            let most = buffers::most_bytes(value).filter(|most| *most < wanted)?;
            Some((name, &value[..], most, wanted))
        })
        .collect();
    if short.is_empty() {
        let most = buffers::WANTED_BYTES >> 20;
        return fine(
            what,
            format!("as large as the most that one peer may have under way, {most} MiB"),
        );
    }
    let effects: Vec<String> = short
        .iter()
        .map(|&(name, _, most, wanted)| {
            let bounds = format!("{name} {} KiB of {} KiB", most >> 10, wanted >> 10);
            if !name.contains("tcp") {
                return format!("{bounds} (datagrams are lost in bursts)");
            }
            let rate = buffers::rate_text(most, FAR);
            format!("{bounds} (at most {rate} to or from a peer {} ms away)", FAR.as_millis())
        })
        .collect();
    let mends: Vec<String> =
        short.iter().map(|(name, value, _, wanted)| buffers::mend(name, value, *wanted)).collect();
    note(what, effects.join(", "), mends.join("; "))
}

fn congestion(facts: &Facts) -> Finding {
    let what = "congestion control";
    let Some(default) = &facts.congestion_default else {
        return fine(what, "this system does not tell; its default is used");
    };
    let allow = |name: &str| {
        format!(
            "sysctl -w net.ipv4.tcp_allowed_congestion_control='{} {name}'",
            facts.congestion_allowed
        )
    };
    let denied = io::ErrorKind::PermissionDenied;
    match (&facts.congestion, &facts.congestion_outcome) {
        (Congestion::Asked(name), Err((kind, why))) if *kind == denied => {
            bad(what, format!("{name} is kept for the privileged ({why})"), allow(name))
        }
        (Congestion::Asked(name), Err((_, why))) => bad(
            what,
            format!("{name} is not among {} ({why})", facts.congestion_available),
            format!("modprobe tcp_{name}; or choose one of these with --congestion"),
        ),
        (Congestion::Preferred(name), Err((kind, why))) => note(
            what,
            format!("{default}: {name}, which suits loopback, is not available ({why})"),
            if *kind == denied { allow(name) } else { format!("modprobe tcp_{name}") },
        ),
        (Congestion::Asked(name), Ok(())) if name == "bbr" && facts.is_loopback_only => note(
            what,
            "bbr paces what it sends: on loopback it can take twice as long",
            "relay --congestion cubic",
        ),
        (asked, Ok(())) => match asked.name() {
            Some(name) => fine(what, format!("{name} (the system's is {default})")),
            None => fine(what, format!("{default}, as the system has it")),
        },
        (Congestion::System, Err(_)) => fine(what, format!("{default}, as the system has it")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of cores")]
fn cores(facts: &Facts) -> Finding {
    let (what, shards) = ("cores", facts.shard_count);
    match facts.quota_cores {
        Some(quota) if quota + 0.01 < shards as f64 => note(
            what,
            format!(
                "{shards} shards share a quota of {quota:.1} cores: the system stops them all when it \
                 is used up, for tens of milliseconds"
            ),
            format!(
                "relay --cores {}; or raise the quota (podman run --cpus={shards}, systemd: \
                 CPUQuota={}%)",
                facts::floor(quota).max(1),
                100 * shards
            ),
        ),
        _ if shards > facts.cores_available => note(
            what,
            format!("{shards} shards on {} cores take turns", facts.cores_available),
            format!("relay --cores {} without --oversubscribe", facts.cores_available),
        ),
        _ if facts.cores_wished > shards => note(
            what,
            format!("--cores {}: there are {shards}, and as many shards", facts.cores_wished),
            format!(
                "relay --cores {shards}   (--oversubscribe starts more shards, which is slower)"
            ),
        ),
        _ => fine(
            what,
            format!("{shards} shards, each on a core of its own; {} there", facts.cores_available),
        ),
    }
}

fn memory(facts: &Facts) -> Finding {
    let what = "memory";
    match facts.memory.verdict() {
        Verdict::Fits(text) | Verdict::Lowered(text) => fine(what, text),
        Verdict::TooMuch(text, fits) => {
            note(what, text, format!("relay --cache {}", option_text(fits)))
        }
    }
}

fn lending(facts: &Facts) -> Finding {
    let what = "sending";
    match &facts.lending {
        (found, None) => fine(what, found.clone()),
        (found, Some(mend)) => note(what, found.clone(), mend.clone()),
    }
}

fn loopback(facts: &Facts) -> Finding {
    match &facts.loopback {
        Ok(()) => fine("loopback", "this machine reaches itself"),
        Err(why) => note(
            "loopback",
            format!("this machine does not reach itself ({why}): no status page, no --serve"),
            "ip link set lo up",
        ),
    }
}

fn ipv6(facts: &Facts) -> Finding {
    match &facts.ipv6 {
        Ok(()) => fine("IPv6", "peers may come by it"),
        Err(why) if facts.loopback.is_err() => note(
            "IPv6",
            format!("not available ({why}): peers come by IPv4 only"),
            "ip link set lo up",
        ),
        Err(why) => note(
            "IPv6",
            format!("not available ({why}): peers come by IPv4 only"),
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0; in a \
             container, a network with IPv6",
        ),
    }
}

fn port(port: &Port) -> Finding {
    let (addr, option) = (port.addr, if port.what == Use::Http { "--http" } else { "--listen" });
    let purpose = match port.what {
        Use::Streams => "peers (TCP)",
        Use::Datagrams => "peers (UDP)",
        Use::Http => "HTTP",
    };
    let refusal = match &port.outcome {
        Ok(()) if addr.port() == 0 => {
            return fine("port", format!("{} has a free one for {purpose}", addr.ip()));
        }
        Ok(()) => return fine("port", format!("{addr} is free for {purpose}")),
        Err(refusal) => refusal,
    };
    let found = format!("{addr} can't be used for {purpose}: {}", refusal.text);
    let mend = mend_port(addr, option, port.what, refusal);
    // The relay then goes on without datagrams.
    let is_taken = refusal.kind == io::ErrorKind::AddrInUse && !refusal.is_own;
    if port.what == Use::Datagrams && is_taken && addr.port() != 0 {
        return note("port", format!("{found}; peers have --transport tcp only"), mend);
    }
    bad("port", found, mend)
}

fn mend_port(addr: SocketAddr, option: &str, what: Use, refusal: &Refusal) -> String {
    let port = addr.port();
    match refusal.kind {
        _ if refusal.is_own => format!("two options want it: choose another with {option}"),
        io::ErrorKind::AddrInUse => {
            let protocol = if what == Use::Datagrams { 'u' } else { 't' };
            format!(
                "see who has it: ss -ln{protocol}p 'sport = :{port}'; or choose another with {option}"
            )
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "no interface has this address: ip addr shows those there are; or choose another with \
             {option}"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "sysctl -w net.ipv4.ip_unprivileged_port_start={port}; or choose one from 1024 on with \
             {option}"
        ),
        _ => format!("choose another with {option}"),
    }
}
