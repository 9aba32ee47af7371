#!/usr/bin/env python3
"""What slow clients do to the others where the file is larger than the cache, beside LRU; and what they
cost the origin. Then peers of ten rates, log-uniform, beside equal ones.

  bench/pace.py                 all rows
  bench/pace.py TEXT...         only rows whose name has one of these

Each row runs the same job without slow clients, with some, and with some under LRU, in alternation. A
run ends when the others have been done for a while: it would take a slow client minutes. Rows that are
marked "to the end" let the slow ones finish: then the table says how much longer they took than
their own rate asks for, and how often each byte came in, against 1.2 × (1 + ln r).

Targets: others' median with slow clients at most 1.15 times that without; slow clients at most 1.1
times what their rate allows; ingress within the bound; all equal at 2% of the file at most 1.02.
"""

import json
import math
import subprocess
import sys

import measure as m

# name: (clients, slow, MiB/s of the slow, MiB of the file, whether to the end, more arguments)
ORIGIN = ("--seeding", "origin")
ROWS = {
    "defaults, 1 GiB, 1 of 8 at 1 MB/s": (8, 1, 1, 1024, False, ORIGIN),
    "defaults, 1 GiB, 1 of 2 at 1 MB/s": (2, 1, 1, 1024, False, ORIGIN),
    "cache 16M, 200M, 5 of 50": (50, 5, 1, 200, False, (*ORIGIN, "--cache", "16M")),
    "cache 8M, 80M, 5 of 15": (15, 5, 1, 80, False, (*ORIGIN, "--cache", "8M")),
    "the same, one core": (15, 5, 1, 80, False, (*ORIGIN, "--relay-args", "--cores 1 --cache 8M")),
    "the same, epoll": (15, 5, 1, 80, False,
                        (*ORIGIN, "--driver", "epoll", "--relay-args", "--driver epoll --cache 8M")),
    "the same, chunks of 16K": (15, 5, 1, 80, False, (*ORIGIN, "--cache", "8M", "--chunk", "16K")),
    "the same, chunks of 1M": (15, 5, 1, 80, False, (*ORIGIN, "--cache", "8M", "--chunk", "1M")),
    "the same, spread": (15, 5, 1, 80, False, ("--cache", "8M")),
    "spread, 100M, 50 of 100": (100, 50, 1, 100, False, ()),
    "the file in the cache": (15, 5, 1, 80, False, (*ORIGIN, "--cache", "100M")),
    "four chunks, 40M, 5 of 20": (20, 5, 1, 40, False, (*ORIGIN, "--cache", "1M", "--chunk", "256K")),
    "cache 8M, 80M, 20 of 40 at 8 MB/s, to the end": (40, 20, 8, 80, True, (*ORIGIN, "--cache", "8M")),
    "cache 8M, 80M, 5 of 15 at 20 MB/s, to the end": (15, 5, 20, 80, True, (*ORIGIN, "--cache", "8M")),
    "cache 16M, 200M, 5 of 20 at 10 MB/s, to the end": (20, 5, 10, 200, True, (*ORIGIN, "--cache", "16M")),
    "four chunks, 40M, 5 of 20 at 4 MB/s, to the end":
        (20, 5, 4, 40, True, (*ORIGIN, "--cache", "1M", "--chunk", "256K")),
    "a client stops for good": (15, 1, "stop", 80, False, (*ORIGIN, "--cache", "8M")),
    "half come late, 5 of 20 slow": (20, 5, 1, 80, False,
                                     (*ORIGIN, "--cache", "8M", "--churn", "kill=2,join=8")),
}
# name: (clients of no limit, MiB of the file, how many times slower each of the others is, more arguments for
# the relay). Each of the others is a loadgen of its own, with the same file.
RATES = {
    "cache 2M, 16M, 10 at 2 to 100 times less": (10, 16, [2 * 50 ** (i / 9) for i in range(10)], ("--cache", "2M")),
    "cache 16M, 160M, 10 at 2 to 10 times less": (10, 160, [2 * 5 ** (i / 9) for i in range(10)], ("--cache", "16M")),
    "cache 1M, 160M, 10 at 2 to 10 times less": (10, 160, [2 * 5 ** (i / 9) for i in range(10)], ("--cache", "1M")),
}
SEED, CHUNK_KIB = 7, 256
# A run that doesn't go to the end is cut short after so many times what it takes without slow clients.
CUT_AFTER = 3


def run(clients, slow, rate, size, to_end, args, eviction=(), within_s=None):
    """One job; the figures of its report."""
    if slow and rate == "stop":
        # So little that it takes its first bytes and then none within the run.
        args = (*args, "--slow", f"{slow}@1K")
    elif slow:
        args = (*args, "--slow", f"{slow}@{rate}M")
    within = ("--timeout", f"{within_s:.0f}s") if slow and not to_end else ()
    report = m.loadgen("--clients", clients, "--file", f"{size}M", *args, *eviction, *within,
                       ok=not within)
    others = report["unlimited_client_seconds"]
    # A run that was cut short while others were not done says so by its time-out.
    row = {"others' median s": others["p50"] or float("inf"), "others' last s": others["max"]}
    row["took in"] = report["relay"]["ingress_amplification"]
    if to_end and slow:
        row["slow / own ideal"] = report["client_seconds"]["max"] * rate / size
        ratio = size / others["p50"] / rate
        row["took in / bound"] = row["took in"] / (1.2 * (1 + math.log(max(ratio, 1))))
    return row


def cells_of(clients, slow, rate, size, to_end, args):
    """The cells of one row; those with slow clients are cut short by what the first one took."""
    alone = {"s": 1}

    def without():
        row = run(clients, 0, rate, size, to_end, args)
        alone["s"] = row["others' median s"]
        return row

    def beside(*eviction):
        return run(clients, slow, rate, size, to_end, args, eviction, 1 + CUT_AFTER * alone["s"])

    cells = {"nobody slow": without, "some slow": beside}
    if "--relay-args" not in args:
        cells["some slow, lru"] = lambda: beside("--eviction", "lru")
    return cells


def together(clients, size, rates, relay_args):
    """One file to unlimited clients and to one of each rate, in bytes a second; `None` is no limit."""
    def command(clients, rate):
        limit = ("--rate", int(rate)) if rate else ()
        return [*m.LOADGEN, *map(str, (
            "--relay", relay.address, "--clients", clients, "--file", f"{size}M", "--chunk", f"{CHUNK_KIB}K",
            "--seed", SEED, "--seeding", "origin", *limit, "--json", "-"))]

    with m.RelayProcess(*relay_args) as relay:
        runs = [subprocess.Popen(command(*of), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for of in ((clients, None), *((1, rate) for rate in rates))]
        reports = [json.loads(run.communicate()[0]) for run in runs]
        fetches = m.metric(relay, "relay_chunks_fetched_total") / (size * 1024 / CHUNK_KIB)
    fast = reports[0]["client_seconds"]
    stretch = [report["client_seconds"]["max"] * rate / (size * m.MIB)
               for report, rate in zip(reports[1:], rates) if rate]
    row = {"others' median s": fast["p50"], "others' last s": fast["max"], "took in": fetches}
    if stretch:
        bound = 1.2 * (1 + math.log(max(size * m.MIB / fast["p50"] / min(rates), 1)))
        row |= {"slow / own ideal": max(stretch), "took in / bound": fetches / bound}
    return row


def cells_of_rates(clients, size, times_less, relay_args):
    """All equal, and beside ten rates in terms of what the equal ones had."""
    alone = {"s": 1}

    def equal():
        row = together(clients, size, [None] * len(times_less), relay_args)
        alone["s"] = row["others' median s"]
        return row

    def mixed():
        fastest = size * m.MIB / alone["s"]
        return together(clients, size, [fastest / times for times in times_less], relay_args)

    return {"all equal": equal, "ten rates": mixed}


def main():
    m.build()
    m.title("Pace: what slow clients do to the others")
    wanted = sys.argv[1:]
    columns = ["others' median s", "others' last s", "took in", "took in / bound", "slow / own ideal"]
    for name, (clients, slow, rate, size, to_end, args) in ROWS.items():
        if wanted and not any(text in name for text in wanted):
            continue
        if m.QUICK:
            clients, slow, size = max(2, clients // 4), min(slow, 1), size // 8

        cells = cells_of(clients, slow, rate, size, to_end, args)
        m.table(m.alternate(cells), columns, against="nobody slow", first=name)
    for name, of in RATES.items():
        if not wanted or any(text in name for text in wanted):
            m.table(m.alternate(cells_of_rates(*of)), columns, against="all equal", first=name)


if __name__ == "__main__":
    main()
