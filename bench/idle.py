#!/usr/bin/env python3
"""What connections cost that do nothing: the relay's CPU time while its peers have all they want.

  bench/idle.py

Peers are real ones that have a small file and stay. The relay's CPU time is read from the
scheduler's own counters, to the nanosecond, over SECONDS (20), on both drivers.
"""

import os
import time

import measure as m

SECONDS = float(os.environ.get("SECONDS_IDLE", "2" if m.QUICK else "20"))
SETTLE_SECONDS = 4


def idle(clients, driver):
    with m.RelayProcess("--driver", driver) as relay:
        if clients == 0:
            return sample(relay)
        with m.clients("--relay", relay.address, "--clients", clients, "--file", "64K", "--seeding",
                       "origin", "--stay", "1h", "--json", "-") as load:
            m.wait_for_line(load, "stays connected")
            there = m.connections(relay)
            if there < clients:
                m.fail(f"{there} of {clients} clients are connected")
            return sample(relay)


def sample(relay):
    time.sleep(SETTLE_SECONDS)
    began, before = time.monotonic(), m.cpu_seconds(relay.pid)
    time.sleep(SECONDS)
    spent, seconds = m.cpu_seconds(relay.pid) - before, time.monotonic() - began
    return {"% of a core": 100 * spent / seconds, "RSS MiB": m.rss_bytes(relay.pid) / m.MIB}


def main():
    m.build()
    m.title(f"Idle: the relay's CPU time over {SECONDS:g} s")
    counts = (0, 100) if m.QUICK else (0, 100, 10_000)
    cells = {f"{clients:,} connections, {driver}":
             (lambda clients=clients, driver=driver: idle(clients, driver))
             for clients in counts for driver in ("io-uring", "epoll")}
    m.table(m.alternate(cells), ["% of a core", "RSS MiB"])


if __name__ == "__main__":
    main()
