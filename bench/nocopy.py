#!/usr/bin/env python3
"""Sending without copying: this build with it and without (`--chunk-dir none`), and another build beside both.

  OLD='PATH/TO/loadgen' bench/nocopy.py

The main job with both seedings; the same with 10, 20, 32, 40 and 64 clients (CLIENTS sets which); and with caches of
16 and 64 MiB. OLD is the other build's `loadgen`; without it there are two columns. TAKERS_MIN in
crates/server/src/lending.rs decides who is lent anything: with fewer clients both cells copy.
"""

import os
import shlex

import measure as m

OLD = shlex.split(os.environ.get("OLD", ""))
CLIENTS = os.environ.get("CLIENTS", "10 20 32 40 64").split()
SIZE = "2M" if m.QUICK else "100M"
DRIVER = os.environ.get("DRIVER", "io-uring")


def run(build, copies, clients, seeding, cache):
    relay = f"--driver {DRIVER}" + (" --chunk-dir none" if copies else "") + (f" --cache {cache}" if cache else "")

    def once():
        mine, m.LOADGEN = m.LOADGEN, build
        try:
            report = m.loadgen("--clients", clients, "--file", SIZE, "--seeding", seeding, "--driver", DRIVER,
                               "--seed", 7, "--relay-args", relay)
        finally:
            m.LOADGEN = mine
        row = m.figures(report)
        row["both CPU s"] = row["relay CPU s"] + row["loadgen CPU s"]
        return row
    return once


def compare(name, clients, seeding, cache=None):
    print(f"{name}:\n")
    cells = {"copied": run(m.LOADGEN, True, clients, seeding, cache),
             "lent": run(m.LOADGEN, False, clients, seeding, cache)}
    if OLD:
        cells["old"] = run(OLD, False, clients, seeding, cache)
    columns = ["wall s", "both CPU s", "relay CPU s", "loadgen CPU s", "chunk p99 ms", "took in"]
    m.table(m.alternate(cells), columns, against="copied")


def main():
    m.build()
    m.title("Lent and copied chunks")
    for seeding in ("origin", "spread"):
        compare(f"100 clients, {seeding}", "10" if m.QUICK else "100", seeding)
    if m.QUICK:
        return
    for clients in CLIENTS:
        compare(f"{clients} clients, origin", clients, "origin")
    for cache in ("16M", "64M"):
        compare(f"100 clients, a cache of {cache}", "100", "spread", cache)


if __name__ == "__main__":
    main()
