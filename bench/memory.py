#!/usr/bin/env python3
"""What the relay holds, itself and in the kernel, with a file 50 times its cache.

  bench/memory.py
  CACHE_MIB=64 TIMES=8 bench/memory.py            a cache of 64 MiB (16), and a file of so many times that
  CGROUP=/sys/fs/cgroup/memory bench/memory.py    each relay runs in a group below this one, as root

With a cache of 64 MiB or more chunks are lent: their files are no part of a process's resident memory, and are added
to it here, with what sockets may refer to beyond the cache (a quarter of it, 64 MiB at most) in the bound.

Resident memory must stay below cache + 32 MiB + 64 KiB for each connection; what the kernel holds
for its sockets is bounded by the sum of windows: 128 MiB, or 32 KiB for each connection if that is
more. 100 clients take the whole file as fast as they can; 10,000 take 16 KB a second each, and the
run is cut off when the figures no longer change. Sampled twice a second.

With CGROUP the kernel enforces the bound: each relay is born into a new memory group (version 1, or 2
with the controller enabled), whose limit is that bound; the kernel's TCP memory has the sum of windows
as a limit of its own in version 1, and is part of the one limit in version 2. A group that would need
more ends its relay. "hits" counts how often a limit was met, and only reclaiming helped. The group is
removed after its run.
"""

import contextlib
import os
import re
import subprocess
import threading
import time

import measure as m

# 16 MiB hold too few chunks for any to be lent; with 64, those that a hundred clients want are.
CACHE_MIB = int(os.environ.get("CACHE_MIB", "16"))
FILE_MIB = 50 * CACHE_MIB
SLOW_SECONDS = float(os.environ.get("SECONDS_SLOW", "6" if m.QUICK else "45"))
PINNED_BYTES = min(CACHE_MIB // 4, 64) * m.MIB if CACHE_MIB >= 64 else 0
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


class Group:
    """A memory group for one relay, with its limits; without CGROUP none."""

    def __init__(self, memory_bytes, sockets_bytes):
        self.parent, self.path = os.environ.get("CGROUP"), None
        self.memory_bytes, self.sockets_bytes = memory_bytes, sockets_bytes

    def __enter__(self):
        if self.parent:
            self.path = os.path.join(self.parent, f"relay-bench-{os.getpid()}")
            try:
                os.mkdir(self.path)
                self._limit()
            except OSError as error:
                self.__exit__()
                m.fail(f"no memory group can be made below {self.parent}: {error}; be root, and name "
                       "the memory controller's directory")
        return self

    def _limit(self):
        self.is_second = not os.path.exists(os.path.join(self.path, "memory.limit_in_bytes"))
        if self.is_second:
            self._write("memory.max", self.memory_bytes + self.sockets_bytes)
        else:
            self._write("memory.limit_in_bytes", self.memory_bytes)
            self._write("memory.kmem.tcp.limit_in_bytes", self.sockets_bytes)

    def _write(self, name, value):
        with open(os.path.join(self.path, name), "w") as file:
            file.write(str(value))

    def _read(self, name):
        with open(os.path.join(self.path, name)) as file:
            return file.read()

    def figures(self):
        """What the kernel charged at most, and how often a limit was met."""
        if not self.path:
            return {}
        if self.is_second:
            events = dict(line.split() for line in self._read("memory.events").splitlines())
            return {"group MiB": int(self._read("memory.peak")) / m.MIB,
                    "group limit MiB": (self.memory_bytes + self.sockets_bytes) / m.MIB,
                    "hits": int(events["max"])}
        return {"group MiB": int(self._read("memory.max_usage_in_bytes")) / m.MIB,
                "group limit MiB": self.memory_bytes / m.MIB,
                "hits": int(self._read("memory.failcnt")),
                "group TCP MiB": int(self._read("memory.kmem.tcp.max_usage_in_bytes")) / m.MIB,
                "TCP limit MiB": self.sockets_bytes / m.MIB,
                "TCP hits": int(self._read("memory.kmem.tcp.failcnt"))}

    def __exit__(self, *_):
        if self.path:
            # The last process is off its group a moment after it has been waited for.
            for _ in range(50):
                with contextlib.suppress(OSError):
                    os.rmdir(self.path)
                    return
                time.sleep(0.1)


def run(clients, *args, seconds=None):
    bound = CACHE_MIB * m.MIB + PINNED_BYTES + 32 * m.MIB + clients * (64 << 10)
    kernel_bound = max(WINDOWS_BYTES, clients * WINDOW_BYTES_MIN)
    size = f"{4 * CACHE_MIB if m.QUICK else FILE_MIB}M"
    with (Group(bound, kernel_bound) as group,
          m.RelayProcess("--cache", f"{CACHE_MIB}M", group=group.path) as relay):
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
        charged = group.figures()
    chunk_peak = report["relay"]["chunk_bytes_peak"]
    # What the relay says has its chunk files in it.
    rss = max(watch.rss, status, report["relay"]["rss_bytes_peak"])
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
        **charged,
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
    rows = m.alternate(cells)
    first = next(iter(rows.values()))[0]
    columns += [name for name in first if "group" in name or "TCP" in name or "hits" in name]
    m.table(rows, columns)
    broken = [name for name, of in rows.items() for row in of if row["RSS MiB"] > row["bound MiB"]]
    if broken:
        m.fail(f"the bound does not hold: {', '.join(sorted(set(broken)))}")


if __name__ == "__main__":
    main()
