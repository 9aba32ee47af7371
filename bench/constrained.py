#!/usr/bin/env python3
"""Every program on a machine that has little of something: does it do its work, or say at once what it lacks?

  bench/constrained.py                     all limits, each as far as this machine lets it be set up
  bench/constrained.py memory-256M pids-8  only these (see the table's first column)

`peer share` and `peer get` of 100 MiB through a relay, and `loadgen --clients 20 --file 20M` with a relay of its
own, under each limit: all processes of a job are in it together. A job passes if it succeeds, or if it ends within
10 s in a sentence on stderr. It fails if a process is killed by a signal, panics, spins, goes on without getting
anywhere, or ends without a word.

As root it makes control groups of version 1 or 2, or lets systemd-run make them, and namespaces by unshare. What
can't be set up here is said and skipped. PEER names another `peer`; NORMAL_SECONDS (120) is for a job to be done,
ten times as long where processor time is short.
"""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import measure as m

PEER = shlex.split(os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer")))
NORMAL_SECONDS = float(os.environ.get("NORMAL_SECONDS", "120"))
SHARED_BYTES = (8 if m.QUICK else 100) * m.MIB
LOADGEN_FILE = "2M" if m.QUICK else "20M"
# Whoever can't do a job has to say so within this.
SAYS_SECONDS = 10
# A process that uses so much of a core over the last seconds of a job that never ends spins.
SPIN_RATIO = 0.9
CPU_PART = 0.05
RING_CALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
GROUPS = "/sys/fs/cgroup"


class Missing(Exception):
    """A limit that can't be set up on this machine, and why."""


# What a limit is made of: words before the command, and what is undone afterwards.

@contextlib.contextmanager
def group(controller, files_v1, files_v2):
    """A control group with these limits; processes that are started enter it."""
    with contextlib.ExitStack() as undo:
        try:
            yield enter_group(undo, *make_group(undo, controller, files_v1, files_v2))
        except OSError as error:
            yield systemd_scope(controller, files_v2, error)


def make_group(undo, controller, files_v1, files_v2):
    name = f"relay-constrained-{os.getpid()}-{controller}"
    first = os.path.join(GROUPS, controller)
    is_first = os.path.isdir(first)
    if not is_first and controller not in read(os.path.join(GROUPS, "cgroup.subtree_control")).split():
        with open(os.path.join(GROUPS, "cgroup.subtree_control"), "w") as file:
            file.write(f"+{controller}")
    path = os.path.join(first if is_first else GROUPS, name)
    os.mkdir(path)
    undo.callback(remove_group, path)
    for file, value in (files_v1 if is_first else files_v2).items():
        with open(os.path.join(path, file), "w") as limit:
            limit.write(str(value))
    return path, "version 1" if is_first else "version 2"


def enter_group(undo, path, version):
    return [sys.executable, os.path.abspath(__file__), "--enter", path], f"control group, {version}"


def remove_group(path):
    for _ in range(100):
        with contextlib.suppress(OSError):
            os.rmdir(path)
            return
        time.sleep(0.1)


def systemd_scope(controller, files_v2, error):
    if not shutil.which("systemd-run") or not os.path.isdir("/run/systemd/system"):
        raise Missing(f"no control group: {error}; no systemd either")
    names = {"memory.max": "MemoryMax", "pids.max": "TasksMax", "memory.swap.max": "MemorySwapMax"}
    properties = [f"-p{names[file]}={value}" for file, value in files_v2.items() if file in names]
    if controller == "cpu":
        properties = [f"-pCPUQuota={CPU_PART * 100:g}%"]
    # A slice of its own, or each process would have the limit for itself.
    return ["systemd-run", "--quiet", "--scope", *properties, "--"], "systemd-run, a scope for each process"


@contextlib.contextmanager
def words(*command, how):
    """A limit that a program sets before it becomes another."""
    if not shutil.which(command[0]):
        raise Missing(f"there is no {command[0]}")
    probe = subprocess.run([*command, "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        raise Missing(f"{command[0]}: {probe.stderr.strip() or probe.returncode}")
    yield list(command), how


def shell(text, how):
    return words("sh", "-c", f'{text}; exec "$0" "$@"', how=how)


def refused_call(name):
    own = [sys.executable, os.path.abspath(__file__), "--refuse", name]
    return words(*own, how=f"seccomp: {name} ends in EPERM")


def no_ipv6():
    how = "network namespace of its own, IPv6 turned off"
    return words("unshare", "-n", "sh", "-c",
                 "ip link set lo up && sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && "
                 'sysctl -qw net.ipv6.conf.lo.disable_ipv6=1 && exec "$0" "$@"', how=how)


def no_proc():
    return words("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"',
                 how="mount namespace with an empty /proc")


def read_only_home():
    home = os.path.expanduser("~")
    mount = f"mount --bind {shlex.quote(home)} {shlex.quote(home)} && " \
            f"mount -o remount,bind,ro {shlex.quote(home)}"
    return words("unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"',
                 how="mount namespace, home mounted read-only")


def memory(mib):
    return group("memory", {"memory.limit_in_bytes": mib * m.MIB},
                 {"memory.max": mib * m.MIB, "memory.swap.max": 0})


def pids(count):
    return group("pids", {"pids.max": count}, {"pids.max": count})


def cpu():
    period = 100_000
    quota = int(CPU_PART * period)
    return group("cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota},
                 {"cpu.max": f"{quota} {period}"})


# {name: (limit, how many times as long a job may take)}
LIMITS = {
    "none": (lambda: words("env", how="nothing is limited"), 1),
    "memory-256M": (lambda: memory(256), 1),
    "memory-128M": (lambda: memory(128), 1),
    "cpu-5%": (cpu, 10),
    "pids-40": (lambda: pids(40), 1),
    "pids-8": (lambda: pids(8), 1),
    "descriptors-96": (lambda: shell("ulimit -n 96", "ulimit -n 96"), 1),
    "addresses-1G": (lambda: shell("ulimit -v 1048576", "ulimit -v 1048576"), 1),
    "addresses-256M": (lambda: shell("ulimit -v 262144", "ulimit -v 262144"), 1),
    **{f"no-{name}": (lambda name=name: refused_call(name), 1) for name in RING_CALLS},
    "no-terminal": (lambda: words("setsid", "-w", how="setsid: no controlling terminal"), 1),
    "no-ipv6": (no_ipv6, 1),
    "no-proc": (no_proc, 1),
    "read-only-home": (read_only_home, 1),
}


# Jobs: each is one shell of processes under one limit, so that namespaces are shared.

def share_and_get(place):
    """A script that shares, gets and compares; each step's output goes to files."""
    quote = lambda command: shlex.join(command)
    relay = quote([*m.RELAY, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
    peer = quote(PEER)
    return f"""
        cd {shlex.quote(place)} || exit 9
        {relay} > relay.out 2> relay.err & relay=$!
        trap 'kill $relay $share 2>/dev/null; wait' EXIT
        n=0; until grep -q 'relay http on' relay.out; do
            kill -0 $relay 2>/dev/null || {{ wait $relay; echo "relay $?" > failed; exit 1; }}
            sleep 0.1; n=$((n+1)); [ $n -lt {{ticks}} ] || {{ echo 'relay silent' > failed; exit 1; }}
        done
        at=$(sed -n 's/^relay listening on //p' relay.out | head -1)
        {peer} share content --relay $at > share.out 2> share.err & share=$!
        n=0; until [ -s share.out ]; do
            kill -0 $share 2>/dev/null || {{ wait $share; echo "share $?" > failed; exit 1; }}
            sleep 0.1; n=$((n+1)); [ $n -lt {{ticks}} ] || {{ echo 'share silent' > failed; exit 1; }}
        done
        {peer} get "$(head -1 share.out)" -o got --timeout {{timeout}}s > get.out 2> get.err
        code=$?; [ $code = 0 ] || {{ echo "get $code" > failed; exit 1; }}
        cmp content got || {{ echo 'get wrong' > failed; exit 1; }}
    """.replace("{{", "{").replace("}}", "}")


def load(place):
    command = [*m.LOADGEN, "--clients", "20", "--file", LOADGEN_FILE, "--relay-args", "", "--seed", "1",
               "--timeout", "{timeout}s"]
    text = shlex.join(command).replace("'{timeout}s'", "{timeout}s")
    return f"""
        cd {shlex.quote(place)} || exit 9
        {text} > loadgen.out 2> loadgen.err
        code=$?; [ $code = 0 ] || {{ echo "loadgen $code" > failed; exit 1; }}
    """.replace("{{", "{").replace("}}", "}")


JOBS = {"share and get": share_and_get, "loadgen, 20 clients": load}


def try_job(job, limit, factor):
    """Runs one job; (outcome, seconds, what it said)."""
    place = tempfile.mkdtemp(prefix="relay-constrained-", dir=os.environ.get("TMPDIR", "/tmp"))
    try:
        if job is share_and_get:
            with open(os.path.join(place, "content"), "wb") as content:
                for _ in range(SHARED_BYTES // m.MIB):
                    content.write(os.urandom(m.MIB))
        seconds = NORMAL_SECONDS * factor
        script = job(place).replace("{ticks}", str(int(seconds * 10))).replace("{timeout}", f"{seconds:g}")
        before, _ = limit
        began = time.monotonic()
        process = subprocess.Popen([*before, "bash", "-c", script], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)
        busy = None
        try:
            _, stderr = process.communicate(timeout=seconds + SAYS_SECONDS)
        except subprocess.TimeoutExpired:
            busy = busiest(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            _, stderr = process.communicate()
        return judge(place, process.returncode, time.monotonic() - began, busy, stderr, seconds)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def judge(place, code, seconds, busy, stderr, patience):
    files = {name: read(os.path.join(place, name)) for name in sorted(os.listdir(place))
             if name.endswith((".err", ".out"))}
    said = {name: text for name, text in files.items() if name.endswith(".err")}
    everything = "\n".join(said.values()) + stderr
    if busy is not None:
        return ("SPINS" if busy > SPIN_RATIO else "HANGS"), seconds, f"{busy:.0%} of a core; {last_line(said)}"
    if "panicked" in everything:
        return "PANIC", seconds, next(l for l in everything.splitlines() if "panicked" in l)
    if code == 0:
        return "done", seconds, noted(said)
    failed = read(os.path.join(place, "failed")).strip()
    program, _, status = failed.partition(" ")
    number = int(status) if status.isdigit() else 0
    if number > 128:
        return "KILLED", seconds, f"{program} by signal {number - 128}; {last_line(said)}"
    own = said.get(f"{program}.err", "") if program else stderr
    sentence = next((l for l in reversed(own.splitlines()) if re.search(r"\w+ \w+", l)), "")
    if not sentence:
        return "SILENT", seconds, failed or f"exit code {code}"
    if seconds > SAYS_SECONDS:
        return "LATE", seconds, sentence
    return "says so", seconds, sentence


def last_line(said):
    lines = [f"{name}: {text.splitlines()[-1]}" for name, text in said.items() if text.strip()]
    return "; ".join(lines)[-300:]


def noted(said):
    """Warnings and what was lowered: what a user is told of the limit."""
    lines = [re.sub(r"^\S+ +", "", l) for text in said.values() for l in text.splitlines()
             if re.search(r"WARN|lowered|so --cache is|epoll: ", l)]
    return "; ".join(dict.fromkeys(lines))[:300]


def busiest(group_id):
    """The largest part of a core that a process of a session used over a second."""
    def used():
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = read(f"/proc/{pid}/stat").rsplit(") ", 1)[1].split()
                if int(stat[3]) == group_id:
                    found[pid] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        return found
    first = used()
    time.sleep(1)
    return max((seconds - first.get(pid, 0) for pid, seconds in used().items()), default=0.0)


def read(path):
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        return file.read()
    return ""


# What this script is when it stands before a command.

def become_limited(kind, what, *command):
    if kind == "--enter":
        with open(os.path.join(what, "cgroup.procs"), "w") as procs:
            procs.write(str(os.getpid()))
    else:
        refuse(RING_CALLS[what])
    os.execvp(command[0], command)


def refuse(call):
    """From now on the kernel refuses a system call to this process and all that it becomes or starts."""
    step = lambda code, jump_true, jump_false, value: struct.pack("HBBI", code, jump_true, jump_false, value)
    load_number, jump_if_equal, answer = 0x20, 0x15, 0x06
    refused, allowed = 0x0005_0001, 0x7FFF_0000  # SECCOMP_RET_ERRNO with EPERM, SECCOMP_RET_ALLOW
    steps = b"".join([step(load_number, 0, 0, 0), step(jump_if_equal, 0, 1, call),
                      step(answer, 0, 0, refused), step(answer, 0, 0, allowed)])
    buffer = ctypes.create_string_buffer(steps)
    program = struct.pack("HxxxxxxP" if ctypes.sizeof(ctypes.c_void_p) == 8 else "HxxP", len(steps) // 8,
                          ctypes.addressof(buffer))
    program = ctypes.create_string_buffer(program)
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, program, 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


def main():
    wanted = sys.argv[1:] or list(LIMITS)
    unknown = [name for name in wanted if name not in LIMITS]
    if unknown:
        m.fail(f"no limit {unknown[0]}; there are {', '.join(LIMITS)}")
    m.build("peer")
    m.REPS = 1
    m.title("Machines that have little of something")
    print("| limit | set up as | job | outcome | seconds | what is said |\n|---|---|---|---|---|---|")
    bad, missing = [], []
    for name in wanted:
        make, factor = LIMITS[name]
        for what, job in JOBS.items():
            m.progress(f"{name}: {what}")
            try:
                # A group of its own for each job, which ends with it.
                with make() as limit:
                    outcome, seconds, text = try_job(job, limit, factor)
                    how = limit[1]
            except Missing as why:
                missing.append(f"{name}: {why}")
                break
            if outcome not in ("done", "says so"):
                bad.append(f"{name}, {what}: {outcome}")
            text = text.replace("|", "\\|").replace("\n", " ")
            m.progress("")
            print(f"| {name} | {how} | {what} | {outcome} | {seconds:.1f} | {text} |", flush=True)
    print()
    for line in missing:
        print(f"not set up here: {line}")
    if bad:
        m.fail("neither done nor said:\n  " + "\n  ".join(bad))


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] in ("--enter", "--refuse"):
        become_limited(*sys.argv[1:])
    main()
