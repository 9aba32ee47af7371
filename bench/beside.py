#!/usr/bin/env python3
"""Another build beside this one: the main job, connecting, and what a connection holds that does nothing.

  OLD='PATH/TO/loadgen' bench/beside.py

OLD is the other build's `loadgen`, which starts its own relay; so is LOADGEN, this tree's unless the environment says
otherwise. Both run in alternation. The main job is 100 clients and 100 MiB, with both seedings. The long one is four
times as large: what differs there is paid for each chunk, and what differs in the short one alone is paid at the
start. Connecting is CONNECTS (10,000) clients and a file of 1 KiB, clients and relay on the same cores. A connection's
memory is the relay's most with so many clients, less that with one, divided by their number.
"""

import os
import shlex

import measure as m

OLD = shlex.split(os.environ.get("OLD", ""))
CONNECTS = int(os.environ.get("CONNECTS", "100" if m.QUICK else "10000"))
JOBS = {
    "main job, spread": ("100", "100M", "spread"),
    "main job, origin": ("100", "100M", "origin"),
    "long, spread": ("100", "400M", "spread"),
    "long, origin": ("100", "400M", "origin"),
}
QUICK = {"main job, spread": ("10", "2M", "spread")}


def run(build, *args):
    mine, m.LOADGEN = m.LOADGEN, build
    try:
        return m.loadgen(*args)
    finally:
        m.LOADGEN = mine


def job(build, clients, size, seeding):
    def once():
        report = run(build, "--clients", clients, "--file", size, "--seeding", seeding, "--seed", 7)
        row = m.figures(report)
        row["both CPU s"] = row["relay CPU s"] + row["loadgen CPU s"]
        return row
    return once


def connecting(build):
    def once():
        few = run(build, "--clients", 1, "--file", "1K", "--seeding", "origin")
        report = run(build, "--clients", CONNECTS, "--file", "1K", "--seeding", "origin")
        held = report["relay"]["rss_bytes_peak"] - few["relay"]["rss_bytes_peak"]
        relay, clients = report["relay"]["cpu_seconds"], report["loadgen"]["cpu_seconds"]
        return {"wall s": report["wall_seconds"], "relay CPU us each": relay * 1e6 / CONNECTS,
                "loadgen CPU us each": clients * 1e6 / CONNECTS, "relay KiB each": held / CONNECTS / 1024}
    return once


def both(rows, columns):
    m.table(rows, columns, against="old")


def main():
    if not OLD:
        m.fail("say which build to compare with: OLD='PATH/TO/loadgen' bench/beside.py")
    m.build()
    m.title("Another build beside this one")
    builds = {"old": OLD, "new": m.LOADGEN}
    for name, (clients, size, seeding) in (QUICK if m.QUICK else JOBS).items():
        print(f"{name}:\n")
        rows = m.alternate({which: job(build, clients, size, seeding) for which, build in builds.items()})
        both(rows, ["wall s", "both CPU s", "relay CPU s", "loadgen CPU s", "chunk p99 ms"])
    print(f"{CONNECTS:,} connections:\n")
    rows = m.alternate({which: connecting(build) for which, build in builds.items()})
    both(rows, ["wall s", "relay CPU us each", "loadgen CPU us each", "relay KiB each"])


if __name__ == "__main__":
    main()
