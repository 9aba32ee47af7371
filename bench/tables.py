#!/usr/bin/env python3
"""The tables that choose by measurement what options can vary: one table an option, its rows in
alternation, ratios to what is the default.

  bench/tables.py                    all
  bench/tables.py chunk cache        only these

What needs a rebuild (gather size, receive size, allocator, λ) is compared by building both and
giving them as LOADGEN to main_job.py, or, in one table: BUILDS='a=PATH b=PATH' bench/tables.py builds
"""

import os
import shlex
import sys

import measure as m

COLUMNS = ["wall s", "relay CPU s", "loadgen CPU s", "chunk p50 ms", "chunk p99 ms",
           "last/median client", "took in"]


def job(*args):
    clients, size = (10, "8M") if m.QUICK else (100, "100M")
    return lambda: m.figures(m.loadgen("--clients", clients, "--file", size, *args))


def relay(args):
    return job("--relay-args", args)


def build_of(path):
    def run():
        usual, m.LOADGEN = m.LOADGEN, shlex.split(path)
        try:
            return job()()
        finally:
            m.LOADGEN = usual
    return run


def builds():
    pairs = (pair.split("=", 1) for pair in os.environ.get("BUILDS", "").split())
    return {name: build_of(path) for name, path in pairs}


# {table: (row that ratios refer to, {row: run})}
TABLES = {
    "chunk": ("256K", {c: job("--chunk", c) for c in
                       ("16K", "64K", "128K", "256K", "512K", "1M", "4M")}),
    "cores": ("relay 2, loadgen 2", {
        f"relay {r}, loadgen {g}": job("--cores", g, "--relay-args", f"--cores {r}")
        for r in (2, 1) for g in (2, 1)}),
    "driver": ("relay io-uring, loadgen io-uring", {
        f"relay {r}, loadgen {g}": job("--driver", g, "--relay-args", f"--driver {r}")
        for r in ("io-uring", "epoll") for g in ("io-uring", "epoll")}),
    "congestion": ("cubic", {c: relay(f"--congestion {c}") for c in ("cubic", "reno", "bbr")}),
    "cache": ("256M", {c: job("--cache", c) for c in ("256M", "64M", "16M", "8M", "4M", "2M")}),
    "eviction": ("demand, 8M", {f"{e}, 8M": job("--cache", "8M", "--eviction", e)
                                for e in ("demand", "lru")}),
    "order": ("relay", {o: job("--order", o) for o in ("relay", "sequential", "random")}),
    "seeding": ("spread", {s: job("--seeding", s) for s in ("spread", "origin")}),
    "builds": (None, builds()),
}


def main():
    wanted = sys.argv[1:] or [name for name in TABLES if name != "builds"]
    unknown = [name for name in wanted if name not in TABLES]
    if unknown:
        m.fail(f"no table {unknown[0]}; there are {', '.join(TABLES)}")
    m.build()
    m.title("Choices: the main job with one option changed")
    for name in wanted:
        against, cells = TABLES[name]
        if not cells:
            m.fail("BUILDS names no build: see --help")
        m.table(m.alternate(cells), COLUMNS, against=against or next(iter(cells)), first=name)


if __name__ == "__main__":
    main()
