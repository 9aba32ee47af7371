#!/usr/bin/env python3
"""What the relay holds, itself and in the kernel, with a file 50 times its cache.

  bench/memory.py
  CGROUP=/sys/fs/cgroup/NAME bench/memory.py      the relay runs in this (empty, existing) group

Resident memory must stay below cache + 32 MiB + 64 KiB for each connection; what the kernel holds
for its sockets is bounded by the sum of windows: 128 MiB, or 32 KiB for each connection if that is
more. 100 clients take the whole file as fast as they can; 10,000 take 16 KB a second each, and the
run is cut off when the figures no longer change. Sampled twice a second.
"""

import os
import re
import subprocess
import threading
import time

import measure as m

CACHE_MIB = 16
FILE_MIB = 50 * CACHE_MIB
SLOW_SECONDS = float(os.environ.get("SECONDS_SLOW", "6" if m.QUICK else "45"))
WINDOWS_BYTES, WINDOW_BYTES_MIN = 128 * m.MIB, 32 << 10


class Watch(threading.Thread):
    """The most that a relay held, by two samples a second."""

    def __init__(self, relay):
        super().__init__(daemon=True)
        self.relay, self.stopping = relay, threading.Event()
        self.rss = self.tcp = self.sockets = self.peers = 0

    def run(self):
        while not self.stopping.wait(0.5):
            self.rss = max(self.rss, m.rss_bytes(self.relay.pid))
            self.tcp = max(self.tcp, m.tcp_bytes())
            # Asking for each socket takes a while where there are many.
            self.sockets = max(self.sockets, socket_bytes(self.relay.port()))

    def stop(self):
        self.stopping.set()
        self.join()


def socket_bytes(port):
    """Kernel memory of the relay's own ends: receive and send queues as the kernel accounts them."""
    text = subprocess.run(["ss", "-tmnH", f"sport = :{port}"], capture_output=True, text=True).stdout
    queues = re.findall(r"skmem:\(r(\d+),.*?,f(\d+),w(\d+),.*?,bl(\d+)", text)
    return sum(sum(map(int, of)) for of in queues)


def enter_group(pid):
    group = os.environ.get("CGROUP")
    if group:
        with open(os.path.join(group, "cgroup.procs"), "w") as procs:
            procs.write(str(pid))


def group_peak():
    """Of all memory that the group is charged for, sockets included where the kernel does so."""
    group = os.environ.get("CGROUP")
    for name in ("memory.peak", "memory.max_usage_in_bytes") if group else ():
        path = os.path.join(group, name)
        if os.path.exists(path):
            with open(path) as peak:
                return int(peak.read()) / m.MIB
    return None


def run(clients, *args, seconds=None):
    size = f"{4 * CACHE_MIB if m.QUICK else FILE_MIB}M"
    with m.RelayProcess("--cache", f"{CACHE_MIB}M") as relay:
        enter_group(relay.pid)
        watch = Watch(relay)
        watch.start()
        job = ("--relay", relay.address, "--clients", clients, "--file", size, *args)
        if seconds is None:
            report = m.loadgen(*job)
        else:
            # It can't be done by then: 2.5 TB at the rate of a modem. Its report says how far it got.
            report = m.loadgen(*job, "--timeout", f"{seconds:g}s", ok=False)
        watch.stop()
        status = status_bytes(relay.pid)
        chunk_peak = report["relay"]["chunk_bytes_peak"]
    bound = CACHE_MIB * m.MIB + 32 * m.MIB + clients * (64 << 10)
    kernel_bound = max(WINDOWS_BYTES, clients * WINDOW_BYTES_MIN)
    rss = max(watch.rss, status)
    return {
        "RSS MiB": rss / m.MIB,
        "bound MiB": bound / m.MIB,
        "chunks MiB": chunk_peak / m.MIB,
        "KiB per connection": max(0, rss - chunk_peak - 12 * m.MIB) / clients / 1024,
        "relay's sockets MiB": watch.sockets / m.MIB,
        "all sockets MiB": watch.tcp / m.MIB,
        "windows MiB": kernel_bound / m.MIB,
        "loadgen MiB": report["loadgen"]["rss_bytes_peak"] / m.MIB,
        "delivered GB": report["relay"]["egress_bytes"] / 1e9,
        "cgroup MiB": group_peak(),
    }


def status_bytes(pid):
    """The most that was ever resident, as the kernel noted it."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.M)[1]) * 1024


def main():
    m.build()
    m.title(f"Memory with --cache {CACHE_MIB}M and a file of {FILE_MIB} MiB")
    many = 1_000 if m.QUICK else 10_000
    cells = {
        "100 clients, spread": lambda: run(100),
        "100 clients, origin": lambda: run(100, "--seeding", "origin"),
        f"{many:,} slow clients": lambda: run(
            many, "--seeding", "origin", "--rate", "16KB", seconds=SLOW_SECONDS),
    }
    columns = ["RSS MiB", "bound MiB", "chunks MiB", "KiB per connection", "relay's sockets MiB",
               "all sockets MiB", "windows MiB", "loadgen MiB", "delivered GB"]
    if os.environ.get("CGROUP"):
        columns.append("cgroup MiB")
    rows = m.alternate(cells)
    m.table(rows, columns)
    broken = [name for name, of in rows.items() for row in of if row["RSS MiB"] > row["bound MiB"]]
    if broken:
        m.fail(f"the bound does not hold: {', '.join(sorted(set(broken)))}")


if __name__ == "__main__":
    main()
