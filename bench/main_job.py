#!/usr/bin/env python3
"""The main job, both drivers and both seedings, in alternation with a baseline.

  bench/main_job.py
  REPS=9 BASELINE='COMMAND' bench/main_job.py

See measure.py for what the environment sets.
"""

import measure as m

COLUMNS = ["wall s", "relay CPU s", "loadgen CPU s", "chunk p50 ms", "chunk p99 ms",
           "last/median client", "took in"]


def job(driver, seeding):
    clients, size = (10, "2M") if m.QUICK else (100, "100M")
    return lambda: m.figures(m.loadgen(
        "--clients", clients, "--file", size, "--seeding", seeding, "--driver", driver,
        "--relay-args", f"--driver {driver}"))


def main():
    m.build()
    m.title("Main job: 100 MiB to 100 clients, every byte verified")
    cells = {"baseline": m.baseline} if m.BASELINE else {}
    for driver in ("io-uring", "epoll"):
        for seeding in ("spread", "origin"):
            cells[f"{driver}, {seeding}"] = job(driver, seeding)
    m.table(m.alternate(cells), COLUMNS, against="baseline" if m.BASELINE else None)


if __name__ == "__main__":
    main()
