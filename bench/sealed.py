#!/usr/bin/env python3
"""What sealing costs: the main job, `peer get` and `peer share` of 1 GiB, each sealed and as it is, in alternation.

  bench/sealed.py
  STORE=dir CLIENTS=100 bench/sealed.py

The main job is CLIENTS (100) clients and a file of FILE (100M), every byte verified; of a sealed one each client
opens each chunk and digests what comes out, as `peer get` does. STORE=dir has clients write real files to DIR
(/dev/shm) instead. On two cores or more the job runs once more with the relay on a core of its own and the clients on
another: what sealing makes the clients do then takes nothing of the relay's core. The gets and shares are of SIZE_MIB (1024) in DIR, on this machine with their relay. A share's
time is from its start to its ticket. See measure.py for the rest of what the environment sets. BUILT=1 skips the
build; PEER names another `peer`.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time

import measure as m

PEER = shlex.split(os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer")))
DIR = os.environ.get("DIR", "/dev/shm")
SIZE = (16 if m.QUICK else int(os.environ.get("SIZE_MIB", "1024"))) * m.MIB
CLIENTS = os.environ.get("CLIENTS", "10" if m.QUICK else "100")
FILE = os.environ.get("FILE", "2M" if m.QUICK else "100M")
KINDS = {"plain": ["--plain"], "sealed": []}


def job(place, kind):
    def run():
        store = os.path.join(place, "store")
        args = ["--clients", CLIENTS, "--file", FILE]
        args += ["--sealed"] if kind == "sealed" else []
        if os.environ.get("STORE") == "dir":
            args += ["--store", f"dir:{store}"]
        row = m.figures(m.loadgen(*args))
        shutil.rmtree(store, ignore_errors=True)
        return row
    return run


@contextlib.contextmanager
def on_core(core):
    """What is started meanwhile runs there."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def job_apart(relay_core, client_core, kind):
    """The main job by a relay and clients that have a core each."""
    def run():
        args = ["--clients", CLIENTS, "--file", FILE, "--seeding", "origin", "--cores", 1]
        args += ["--sealed"] if kind == "sealed" else []
        with contextlib.ExitStack() as stack:
            with on_core(relay_core):
                relay = stack.enter_context(m.RelayProcess("--cores", 1))
            with on_core(client_core):
                row = m.figures(m.loadgen(*args, "--relay", relay.address))
            row["relay CPU s"] = m.cpu_seconds(relay.pid)
            return row
    return run


def share(place, address, kind, more=()):
    """A share, its ticket, and the seconds that it took to come."""
    began = time.monotonic()
    command = [*PEER, "share", os.path.join(place, "content"), "--relay", address, "--quiet",
               *KINDS[kind], *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ticket = process.stdout.readline().strip()
    if not ticket:
        m.fail(f"{shlex.join(command)} printed no ticket")
    return process, ticket, time.monotonic() - began


def shares(place, address, kind):
    def run():
        process, _, seconds = share(place, address, kind)
        m.end(process)
        return {"wall s": seconds, "GB/s": SIZE / seconds / 1e9}
    return run


def warm(place):
    """Memory that was used just before: what was freed long ago a hypervisor may have taken."""
    with open(os.path.join(place, "warm"), "wb", buffering=0) as file:
        block = bytes(m.MIB)
        for _ in range(SIZE // m.MIB):
            file.write(block)
    os.remove(file.name)


def gets(place, relay, kind, ticket, sharing):
    def run():
        warm(place)
        path = os.path.join(place, "got")
        before = m.cpu_seconds(relay.pid), m.cpu_seconds(sharing.pid)
        began = time.monotonic()
        # A ticket that opens a file has no place on a command line.
        get = subprocess.Popen([*PEER, "get", "-", "--quiet", "-o", path], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        get.communicate(ticket)
        seconds = time.monotonic() - began
        if get.returncode:
            m.fail(f"a {kind} get failed")
        os.remove(path)
        after = m.cpu_seconds(relay.pid), m.cpu_seconds(sharing.pid)
        relay_cpu, share_cpu = (b - a for a, b in zip(before, after))
        return {"wall s": seconds, "GB/s": SIZE / seconds / 1e9, "relay CPU s": relay_cpu,
                "share CPU s": share_cpu}
    return run


def main():
    # What is measured decides for itself.
    os.environ.pop("PEER_PLAIN", None)
    if not os.environ.get("BUILT"):
        m.build("peer")
    place = tempfile.mkdtemp(prefix="relay-bench-", dir=DIR)
    os.environ["XDG_STATE_HOME"] = os.path.join(place, "state")
    # Each share is hashed, whatever was shared before.
    os.environ["PEER_REHASH"] = "1"
    try:
        measure(place)
    finally:
        shutil.rmtree(place)


def measure(place):
    m.title(f"{FILE} to {CLIENTS} clients, every byte verified")
    rows = m.alternate({kind: job(place, kind) for kind in KINDS})
    m.table(rows, ["wall s", "relay CPU s", "loadgen CPU s"], against="plain")
    m.table(rows, ["relay CPU s"], against="plain")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        m.title("The same, relay and clients on a core each")
        rows = m.alternate({kind: job_apart(cores[0], cores[1], kind) for kind in KINDS})
        m.table(rows, ["relay CPU s", "loadgen CPU s", "wall s"], against="plain")
    with open(os.path.join(place, "content"), "wb") as content:
        for _ in range(SIZE // m.MIB):
            content.write(os.urandom(m.MIB))
    with m.RelayProcess() as relay:
        m.title(f"peer share of {SIZE // m.MIB} MiB, to its ticket")
        cells = {kind: shares(place, relay.address, kind) for kind in KINDS}
        m.table(m.alternate(cells), ["wall s", "GB/s"], against="plain")
        sharing = {kind: share(place, relay.address, kind) for kind in KINDS}
        try:
            m.title(f"peer get of {SIZE // m.MIB} MiB")
            cells = {kind: gets(place, relay, kind, ticket, process)
                     for kind, (process, ticket, _) in sharing.items()}
            rows = m.alternate(cells)
            m.table(rows, ["wall s", "GB/s", "relay CPU s", "share CPU s"], against="plain")
            m.table(rows, ["relay CPU s"], against="plain")
        finally:
            for process, _, _ in sharing.values():
                m.end(process)


main()
