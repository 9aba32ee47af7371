#!/usr/bin/env python3
"""Transports on links of a known rate: two network namespaces, a veth pair between them, and a token
bucket on both of its ends. Needs root, ip and tc; touches nothing outside of its namespaces.

  bench/links.py [MBITS...]          default: 100 1000

How much of the link each transport uses: one relay on one side, its clients and the origin on the
other; goodput is verified bytes of all clients over the time from the first connect to the last byte.
And what two transfers on one bottleneck get that begin together, one in datagrams, one on streams: of
the one that ends first, and of what the other had by then, as its own end and the link's rate tell.
"""

import contextlib
import json
import os
import subprocess
import sys

import measure as m

RATES = [int(rate) for rate in sys.argv[1:]] or [100, 1000]
TRANSPORTS = ["tcp", "udp-control", "udp-data"]
CONGESTION = ["cubic", "bbr"]
NAMES = [f"relay-{os.getpid()}", f"peers-{os.getpid()}"]
ADDRESSES = ["10.77.0.1", "10.77.0.2"]

# Clients, and seconds that a run takes if the link is full: the first round trips count, too.
CLIENTS = 4
SECONDS = 1 if m.QUICK else 6


def run(*command):
    subprocess.run(list(map(str, command)), check=True)


@contextlib.contextmanager
def link(mbits):
    """Two namespaces with this link, for the block."""
    try:
        for name in NAMES:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "name", "way", "netns", NAMES[0], "type", "veth", "peer", "name", "way",
            "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES):
            inside = ["ip", "netns", "exec", name]
            run(*inside, "ip", "address", "add", f"{address}/24", "dev", "way")
            for device in ("lo", "way"):
                run(*inside, "ip", "link", "set", device, "up")
            # The bucket holds what a tick of the kernel lets through; the queue, 50 ms.
            burst = max(16_000, mbits * 125_000 // 250)
            run(*inside, "tc", "qdisc", "add", "dev", "way", "root", "tbf", "rate",
                f"{mbits}mbit", "burst", burst, "latency", "50ms")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def relay(congestion):
    command = ["ip", "netns", "exec", NAMES[0], *m.RELAY, "--listen", f"{ADDRESSES[0]}:7440",
               "--http", "127.0.0.1:0", "--congestion", congestion]
    environment = {"RELAY_LOG": "warn", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    if not process.stdout.readline().startswith("relay listening on"):
        m.fail("the relay did not start")
    try:
        yield
    finally:
        m.end(process)


def start(transport, size, clients):
    command = ["ip", "netns", "exec", NAMES[1], *m.LOADGEN, "--relay", f"{ADDRESSES[0]}:7440",
               "--transport", transport, "--clients", clients, "--file", size, "--seeding", "origin",
               "--timeout", "100s", "--json", "-"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def report(process):
    out, errors = process.communicate()
    if process.returncode != 0:
        m.fail(f"{' '.join(process.args)} exited with {process.returncode}:\n{errors}")
    return json.loads(out)


def goodput(mbits, congestion, transport):
    def cell():
        size = mbits * 125_000 * SECONDS // CLIENTS
        with link(mbits), relay(congestion):
            got = report(start(transport, f"{size // 1024}K", CLIENTS))
        return {"% of the link": got["goodput_bytes_per_second"] / (mbits * 1250),
                "wall s": got["wall_seconds"], "chunk p50 ms": got["chunk_latency_seconds"]["p50"] * 1000}
    return cell


def shares(mbits, congestion, others):
    """udp-data beside another transport: who got how much while both were there."""
    def cell():
        size = mbits * 125_000 * SECONDS // 2
        with link(mbits), relay(congestion):
            both = [start(transport, f"{size // 1024}K", 1) for transport in ("udp-data", others)]
            walls = [report(process)["wall_seconds"] for process in both]
        alone = abs(walls[0] - walls[1])
        # The slower one had the link to itself at the end; 94% of it are file bytes.
        left = max(size - alone * mbits * 125_000 * 0.94, 1)
        ratio = size / left
        return {"udp-data gets, times the other": ratio if walls[0] < walls[1] else 1 / ratio,
                "udp-data s": walls[0], "other s": walls[1]}
    return cell


def main():
    if os.geteuid() != 0:
        m.fail("namespaces need root")
    m.build()
    for mbits in RATES:
        m.title(f"One link of {mbits} Mbit/s, {CLIENTS} clients")
        cells = {f"{transport}, {congestion}": goodput(mbits, congestion, transport)
                 for congestion in CONGESTION for transport in TRANSPORTS}
        m.table(m.alternate(cells), ["% of the link", "wall s", "chunk p50 ms"], first="transport, congestion control of streams")
        m.title(f"One link of {mbits} Mbit/s, udp-data and tcp at once")
        cells = {f"udp-data and tcp with {c}": shares(mbits, c, "tcp") for c in CONGESTION}
        m.table(m.alternate(cells), ["udp-data gets, times the other", "udp-data s", "other s"])


if __name__ == "__main__":
    main()
