#!/usr/bin/env python3
"""What a few slow clients do to the others: 5 of 50 at a twentieth of the rate.

  bench/mixed.py

First it finds the rate of 50 equal clients; then 50 equal ones run in alternation with 45 and 5 at
a twentieth of that. Target: the median of the others changes by at most a tenth. In a spread a slow
client also holds a fiftieth of the file, and everybody waits until it has taken that in: so the
criterion is the origin's mode, and the spread is shown beside it. The two sizes of cache are the
default, and one that the slow ones can't keep their chunks in.
"""

import measure as m

CLIENTS, SLOW = (10, 1) if m.QUICK else (50, 5)
SIZE_MIB = 8 if m.QUICK else 100


def run(*args, slow_rate=None):
    slow = ("--slow", f"{SLOW}@{slow_rate}") if slow_rate else ()
    report = m.loadgen("--clients", CLIENTS, "--file", f"{SIZE_MIB}M", *args, *slow)
    others = report["unlimited_client_seconds"]
    return {"others' median s": others["p50"], "others' last s": others["max"],
            "all s": report["wall_seconds"], "took in": report["relay"]["ingress_amplification"]}


def main():
    m.build()
    m.title(f"Mixed: {SLOW} of {CLIENTS} clients at 1/20 of the rate")
    modes = {
        "origin": ("--seeding", "origin"),
        "origin, cache of 16 MiB": ("--seeding", "origin", "--cache", "16M"),
        "spread": (),
    }
    for name, args in modes.items():
        equal = run(*args)
        rate = int(SIZE_MIB * m.MIB / equal["others' median s"] / 20)
        cells = {
            "all equal": lambda args=args: run(*args),
            f"{SLOW} at {rate / 1e6:.1f} MB/s": lambda args=args: run(*args, slow_rate=rate),
        }
        m.table(m.alternate(cells), ["others' median s", "others' last s", "all s", "took in"],
                against="all equal", first=name)


if __name__ == "__main__":
    main()
