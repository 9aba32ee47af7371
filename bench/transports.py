#!/usr/bin/env python3
"""The transports against each other: the main job, the latency of fetches under its load, and the
table of the ancestors (5 clients, a file of 116 KB in chunks of 1 KiB, in the clients' order).

  bench/transports.py [TRANSPORT...]

With BASELINE set, that runs in every round, too, and ratios are to it.

A fetch counts from the relay's asking a peer for a chunk until the chunk is there and verified, as
the relay's own histogram has it; p50 and p99 are interpolated within its buckets. It is measured
with every client at work both ways: a request that waits behind queued data shows. What was sent
again is a share of all file bytes that went out in datagrams.
"""

import re
import sys
import urllib.request

import measure as m

TRANSPORTS = sys.argv[1:] or ["tcp", "udp-control", "udp-data", "quic"]


def quantile(buckets, share):
    """Of cumulative (upper bound, count), in order; None if nothing was counted."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    below, counted = 0.0, 0.0
    for bound, count in buckets:
        if count >= share * total:
            if bound == float("inf"):
                return below
            return below + (bound - below) * (share * total - counted) / max(count - counted, 1)
        below, counted = bound, count
    return below


def metrics(relay):
    return urllib.request.urlopen(f"http://{relay.http}/metrics").read().decode()


def fetch_ms(page, share):
    sums = {}
    for bound, count in re.findall(r'relay_fetch_seconds_bucket\{[^}]*le="([^"]+)"\} (\S+)', page):
        bound = float(bound.replace("+Inf", "inf"))
        sums[bound] = sums.get(bound, 0.0) + float(count)
    seconds = quantile(sorted(sums.items()), share)
    return None if seconds is None else seconds * 1000


def total(page, metric):
    return sum(float(value) for value in re.findall(rf"^{metric}(?:\{{[^}}]*\}})? (\S+)", page, re.M))


def main_job(transport):
    def run():
        clients, size = (10, "4M") if m.QUICK else (100, "100M")
        with m.RelayProcess() as relay:
            report = m.loadgen("--relay", relay.address, "--transport", transport,
                               "--clients", clients, "--file", size)
            page = metrics(relay)
        resent = total(page, "relay_data_resent_bytes_total")
        return {**m.figures(report), "fetch p50 ms": fetch_ms(page, 0.5),
                "fetch p99 ms": fetch_ms(page, 0.99),
                "sent again %": 100 * resent / report["relay"]["egress_bytes"]}
    return run


def ancestors_job(transport):
    def run():
        report = m.loadgen("--transport", transport, "--clients", 5, "--file", "116K",
                           "--chunk", "1K", "--order", "sequential")
        mean = report["chunk_latency_seconds"]["mean"] * 1000
        return {"chunk mean ms": mean, **m.figures(report)}
    return run


def main():
    m.build()
    m.title("Transports: the main job, spread, 100 clients, 100 MiB, verified")
    cells = {"baseline": m.baseline} if m.BASELINE else {}
    cells.update({name: main_job(name) for name in TRANSPORTS})
    m.table(m.alternate(cells),
            ["wall s", "relay CPU s", "loadgen CPU s", "fetch p50 ms", "fetch p99 ms", "sent again %"],
            against="baseline" if m.BASELINE else "tcp" if "tcp" in TRANSPORTS else None)
    m.title("Transports: the ancestors' table, 5 clients, 116 KB in chunks of 1 KiB")
    print("theirs, on average: 33.4 ms (control over UDP), 21.0 ms (control over TCP)\n")
    m.table(m.alternate({name: ancestors_job(name) for name in TRANSPORTS}),
            ["chunk mean ms", "chunk p50 ms", "chunk p99 ms", "wall s"])


if __name__ == "__main__":
    main()
