#!/usr/bin/env python3
"""How far the last of 100 equal clients is behind the median one, and slow chunks behind usual ones.

  bench/tail.py

Targets: slowest client at most 1.2 times the median client; chunk latency p99 at most 5 times p50.
The first is about the time that a client needs from connecting to having the file.
"""

import measure as m


def job(*args):
    clients, size = (10, "4M") if m.QUICK else (100, "100M")
    return lambda: m.figures(m.loadgen("--clients", clients, "--file", size, *args))


def main():
    m.build()
    m.title("Tail: 100 equal clients")
    cells = {f"{driver}, {seeding}": job("--driver", driver, "--relay-args", f"--driver {driver}",
                                         "--seeding", seeding)
             for driver in ("io-uring", "epoll") for seeding in ("spread", "origin")}
    cells["cache of 16 MiB, spread"] = job("--cache", "16M")
    cells["order of the clients (random)"] = job("--order", "random")
    m.table(m.alternate(cells), ["last/median client", "p99/p50", "chunk p50 ms", "chunk p99 ms",
                                 "wall s"])


if __name__ == "__main__":
    main()
