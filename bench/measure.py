"""What the scripts of this directory share: running the two programs and a baseline in
alternation, watching a process from outside, and printing tables.

Settings come from the environment, so that they are the same for every script:

  REPS=5                rounds; tables show medians, and least and most in brackets
  LOADGEN='PATH ...'    another build of loadgen, or more options for it
  RELAY='PATH ...'      another build of relay, where a script starts one by itself
  LOADGEN_BUILT=1       don't build first
  BASELINE='COMMAND'    what to compare with: runs in every round, and prints "wall SECONDS", and
                        if it knows them, "snd user S sys S" and "rcv user S sys S"
  QUICK=1               small sizes and one round: tries the script, measures nothing

Absolute figures of one machine move between minutes: only those of one table may be compared,
and only if the machine had nothing else to do. Each table says what else it did.
"""

import atexit
import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUICK = bool(os.environ.get("QUICK"))
REPS = int(os.environ.get("REPS", "1" if QUICK else "5"))
LOADGEN = shlex.split(os.environ.get("LOADGEN", os.path.join(ROOT, "target/release/loadgen")))
RELAY = shlex.split(os.environ.get("RELAY", os.path.join(ROOT, "target/release/relay")))
BASELINE = os.environ.get("BASELINE")
MIB = 1 << 20

# Shares are measured as they are, and no secret is made in the state of the user who measures; sealed.py measures
# what sealing costs. An older build ignores both.
os.environ.setdefault("PEER_PLAIN", "1")
os.environ.setdefault("RELAY_PLAIN", "1")
# What is made once stays in a directory that goes with the script: relays that it starts have one key, so ports that
# come back are no surprise to peers.
STATE = tempfile.mkdtemp(prefix="relay-bench-")
os.environ["XDG_STATE_HOME"] = STATE
os.environ["XDG_CACHE_HOME"] = STATE
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
PAGE = os.sysconf("SC_PAGE_SIZE")


if {"-h", "--help"} & set(sys.argv):
    print(sys.modules["__main__"].__doc__ + "\nSettings of all scripts:\n" + __doc__)
    sys.exit(0)


def fail(text):
    sys.exit(f"error: {text}")


def build(*more):
    """Builds both programs and these, unless told that they are built."""
    if not os.environ.get("LOADGEN_BUILT"):
        command = ["cargo", "build", "--quiet", "--release", "--bin", "loadgen", "--bin", "relay"]
        command += [word for name in more for word in ("--bin", name)]
        subprocess.run(command, cwd=ROOT, check=True)


def title(text):
    """Says what is measured, of what, and where."""
    git = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    cpu = "unknown processor"
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        cpu = next((l.split(":")[1].strip() for l in info if l.startswith("model name")), cpu)
    print(f"### {text}\n")
    print(f"commit {commit}; {os.cpu_count()} cores of {cpu}, Linux {platform.release()}; "
          f"{REPS} rounds in alternation; load average at the start {os.getloadavg()[0]:.1f}\n")
    sys.stdout.flush()


def loadgen(*args, ok=True):
    """One run of loadgen; its report. One that fails ends the script, unless it may."""
    command = [*LOADGEN, *map(str, args), "--json", "-"]
    if not {"--relay", "--relay-args"} & set(args):
        # A relay that happens to run at the usual address is somebody else's, and of another build.
        command += ["--relay-args", ""]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if ok and run.returncode != 0:
        fail(f"{shlex.join(command)} exited with {run.returncode}:\n{run.stderr}")
    try:
        return json.loads(run.stdout)
    except ValueError:
        fail(f"{shlex.join(command)} printed no report:\n{run.stderr}")


def figures(report):
    """Of a report, what most tables show."""
    clients, chunks = report["client_seconds"], report["chunk_latency_seconds"]
    return {
        "wall s": report["wall_seconds"],
        "relay CPU s": report["relay"]["cpu_seconds"],
        "loadgen CPU s": report["loadgen"]["cpu_seconds"],
        "chunk p50 ms": chunks["p50"] * 1000,
        "chunk p99 ms": chunks["p99"] * 1000,
        "p99/p50": ratio(chunks["p99"], chunks["p50"]),
        "last/median client": ratio(clients["max"], clients["p50"]),
        "took in": report["relay"]["ingress_amplification"],
    }


def baseline():
    """One run of BASELINE."""
    return baseline_figures(BASELINE)


def baseline_figures(command):
    """One run of a command that prints what BASELINE does."""
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    text = run.stdout + run.stderr
    wall = re.search(r"\bwall ([0-9.]+)", text)
    if run.returncode != 0 or not wall:
        fail(f"{command} exited with {run.returncode} and printed no wall time:\n{text}")
    row = {"wall s": float(wall[1])}
    for side, name in (("snd", "relay CPU s"), ("rcv", "loadgen CPU s")):
        cpu = re.search(rf"\b{side} user ([0-9.]+) sys ([0-9.]+)", text)
        if cpu:
            row[name] = float(cpu[1]) + float(cpu[2])
    return row


def alternate(cells):
    """Runs each of {name: function that returns {column: number}} once a round. {name: [rows]}"""
    rows = {name: [] for name in cells}
    for number in range(REPS):
        for name, run in cells.items():
            progress(f"round {number + 1} of {REPS}: {name}")
            rows[name].append(run())
    progress("")
    return rows


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def median(rows, column):
    """None if a cell does not know this figure."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return statistics.median(values) if values else None


def ratio(a, b):
    return a / b if a is not None and b else None


def spread(rows, column):
    """Median, and least and most in brackets."""
    values = [row[column] for row in rows if row.get(column) is not None]
    if not values:
        return "-"
    middle, least, most = (number(v) for v in (statistics.median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({least}, {most})"


def number(value):
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def table(rows, columns, against=None, first="", extra=None):
    """A Markdown table of what `alternate` returned: of the first column least and most too.
    `against` names the cell that ratios of the first column refer to; `extra` is
    {title: function of (name, rows)} for what can't be taken row by row."""
    extra = extra or {}
    heads = [first, f"{columns[0]}: median (least, most)", *columns[1:], *extra]
    base = median(rows[against], columns[0]) if against else None
    if base:
        heads.append(f"ratio to {against}")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for name, of in rows.items():
        line = [name, spread(of, columns[0]), *(number(median(of, c)) for c in columns[1:])]
        line += [text(name, of) for text in extra.values()]
        if base:
            line.append(number(ratio(median(of, columns[0]), base)))
        print("| " + " | ".join(line) + " |")
    print(flush=True)


class RelayProcess:
    """A relay of the script's own, on loopback, on ports that are free; ends with the block."""

    def __init__(self, *args, group=None):
        """`group`: a directory of a control group that it is born into, so that all is charged."""
        self.args, self.group = args, group

    def __enter__(self):
        command = [*RELAY, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *map(str, self.args)]
        if self.group:
            enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            command = ["sh", "-c", enter, self.group, *command]
        environment = {"RELAY_LOG": "warn", **os.environ}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.address = self._line("relay listening on ")
        self.http = self._line("relay http on ")
        self.pid = self.process.pid
        return self

    def _line(self, start):
        line = self.process.stdout.readline()
        if not line.startswith(start):
            fail(f"the relay did not start: {shlex.join(RELAY)} {shlex.join(map(str, self.args))}")
        return line.removeprefix(start).strip()

    def __exit__(self, *_):
        end(self.process)

    def port(self):
        return int(self.address.rsplit(":", 1)[1])


def end(process):
    """Ends a process that the script started, whatever state it is in."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def clients(*args):
    """A loadgen that runs beside the script, with its log to read."""
    command = [*LOADGEN, *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        end(process)


def wait_for_line(process, text):
    """Reads the log of `clients` until a line has `text`."""
    log = []
    for line in process.stderr:
        log.append(line)
        if text in line:
            return
    fail(f"loadgen ended without saying {text!r}:\n{''.join(log[-20:])}")


def cpu_seconds(pid):
    """CPU time of all threads of a process, to the nanosecond; none of them may have ended."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


def rss_bytes(pid):
    """Resident memory of a process, its own and shared pages alike."""
    with open(f"/proc/{pid}/statm") as stat:
        return int(stat.read().split()[1]) * PAGE


def tcp_bytes():
    """What the kernel holds for all TCP sockets of this machine, both ends on loopback."""
    with open("/proc/net/sockstat") as stat:
        return int(re.search(r"^TCP:.* mem (\d+)", stat.read(), re.M)[1]) * PAGE


def connections(relay):
    """Introduced peers, as the relay's metrics say."""
    return int(metric(relay, "relay_peers"))


def metric(relay, name):
    """Sum of a metric over all its labels."""
    text = http_get(relay.http, "/metrics")
    lines = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    return sum(map(float, lines))


def http_get(address, path):
    from urllib.request import urlopen
    with urlopen(f"http://{address}{path}", timeout=30) as answer:
        return answer.read().decode()


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            fail(f"{what} did not happen within {seconds} s")
        time.sleep(0.2)
