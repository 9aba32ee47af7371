#!/usr/bin/env python3
"""How the time for a delivered gigabyte changes with the number of clients, and with cores.

  bench/scale.py

1 to 10,000 clients, about 10 GB delivered in each run: files are shorter for many clients. Nothing
is delivered before all clients are there (a spread waits for them), so the time to connect is left
out, and shown apart. `--cores 1` and 2 apply to both programs.
"""

import os

import measure as m

# Clients and MiB of the file. With one and five the relay takes in as much as it gives out, or a
# good part of it, and with one all of it comes from the origin.
SIZES = {1: 2000, 5: 1000, 10: 500, 50: 200, 100: 100, 1_000: 10, 10_000: 1}
QUICK = {1: 20, 10: 5, 1_000: 1}
REFERENCE = 100 if not m.QUICK else 10

# The same chunks for all, small enough that the shortest file has more than one.
CHUNK = "256K"


def run(clients, cores):
    size_mib = (QUICK if m.QUICK else SIZES)[clients]
    report = m.loadgen("--clients", clients, "--file", f"{size_mib}M", "--chunk", CHUNK, "--cores",
                       cores, "--relay-args", f"--cores {cores}")
    gigabytes = clients * size_mib * m.MIB / 1e9
    seconds = report["wall_seconds"] - report["connect_seconds"]
    return {
        "s per GB": seconds / gigabytes,
        "GB": gigabytes,
        "s to connect": report["connect_seconds"],
        "relay CPU s per GB": report["relay"]["cpu_seconds"] / gigabytes,
        "loadgen CPU s per GB": report["loadgen"]["cpu_seconds"] / gigabytes,
        "relay MiB": report["relay"]["rss_bytes_peak"] / m.MIB,
        "loadgen MiB": report["loadgen"]["rss_bytes_peak"] / m.MIB,
    }


def main():
    m.build()
    cores_max = min(2, os.cpu_count())
    m.title("Scale: seconds per delivered GB by number of clients and cores")
    cells = {(clients, cores): (lambda clients=clients, cores=cores: run(clients, cores))
             for clients in (QUICK if m.QUICK else SIZES) for cores in range(1, cores_max + 1)}
    rows = m.alternate(cells)
    columns = ["s per GB", "GB", "s to connect", "relay CPU s per GB", "loadgen CPU s per GB",
               "relay MiB", "loadgen MiB"]
    for cores in range(cores_max, 0, -1):
        of = {f"{clients} clients": r for (clients, c), r in rows.items() if c == cores}
        m.table(of, columns, against=f"{REFERENCE} clients", first=f"--cores {cores}")
    if cores_max > 1:
        def gain(clients):
            one, two = (m.median(rows[clients, cores], "s per GB") for cores in (1, 2))
            return {"times as fast": m.ratio(one, two)}
        m.table({f"{clients} clients": [gain(clients)] for clients in (QUICK if m.QUICK else SIZES)},
                ["times as fast"], first="two cores against one")


if __name__ == "__main__":
    main()
