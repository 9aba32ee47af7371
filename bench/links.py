#!/usr/bin/env python3
"""Transports on links of a known rate: two network namespaces, a veth pair between them, and a token
bucket on both of its ends. Needs root, ip and tc; touches nothing outside of its namespaces.

  bench/links.py [goodput|fairness] [MBITS...]          default: both, 100 1000

How much of the link each transport uses: one relay on one side, its clients and the origin on the
other; goodput is verified bytes of all clients over the time from the first connect to the last byte.
And what two transfers on one bottleneck get that begin together, one in datagrams, one on streams, once
both have found their pace.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import measure as m

TABLES = [name for name in sys.argv[1:] if name in ("goodput", "fairness")] or ["goodput", "fairness"]
RATES = [int(rate) for rate in sys.argv[1:] if rate not in TABLES] or [100, 1000]
TRANSPORTS = ["tcp", "udp-control", "udp-data"]
CONGESTION = ["cubic", "bbr"]
NAMES = [f"relay-{os.getpid()}", f"peers-{os.getpid()}"]
ADDRESSES = ["10.77.0.1", "10.77.0.2"]

# Clients, and seconds that a run takes if the link is full: the first round trips count, too.
CLIENTS = 4
SECONDS = 1 if m.QUICK else 6
WARM_SECONDS = 2
PEER = os.path.join(m.ROOT, "target/release/peer")


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
def relay(congestion, *options):
    """A relay for the block; the tickets of what it serves."""
    command = ["ip", "netns", "exec", NAMES[0], *m.RELAY, "--listen", f"{ADDRESSES[0]}:7440",
               "--http", "127.0.0.1:0", "--congestion", congestion, *options]
    environment = {"RELAY_LOG": "warn", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    if not process.stdout.readline().startswith("relay listening on"):
        m.fail("the relay did not start")
    try:
        tickets = []
        while len(tickets) < options.count("--serve"):
            tickets += re.findall(r"relay1[a-z0-9]+", process.stdout.readline())
        yield tickets
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


def shares(mbits, congestion):
    """A file over udp-data and another one over tcp, both from the relay itself, so that nothing but the
    bottleneck holds them up: what each has on disk after a while, and some seconds later."""
    def cell():
        size = mbits * 125_000 * (WARM_SECONDS + SECONDS + 4)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, link(mbits):
            files = [os.path.join(folder, name) for name in ("datagrams", "streams")]
            for path in files:
                block = os.urandom(1 << 20)
                with open(path, "wb") as file:
                    for _ in range(size >> 20):
                        file.write(block)
            serve = [option for path in files for option in ("--serve", path)]
            with relay(congestion, *serve, "--advertise", f"{ADDRESSES[0]}:7440") as tickets:
                gets = [get(ticket, transport, os.path.join(folder, transport))
                        for ticket, transport in zip(tickets, ("udp-data", "tcp"))]
                time.sleep(WARM_SECONDS)
                before = [stored(folder, transport) for transport in ("udp-data", "tcp")]
                time.sleep(SECONDS)
                after = [stored(folder, transport) for transport in ("udp-data", "tcp")]
                if any(process.poll() is not None for process in gets):
                    m.fail("a transfer ended too early")
                for process in gets:
                    m.end(process)
        datagrams, streams = ((b - a) / SECONDS / (mbits * 1250) for a, b in zip(before, after))
        return {"udp-data gets, times tcp": datagrams / streams, "udp-data %": datagrams, "tcp %": streams}
    return cell


def get(ticket, transport, folder):
    os.mkdir(folder)
    command = ["ip", "netns", "exec", NAMES[1], PEER, "get", ticket, "--transport", transport, "-o", folder,
               "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stored(folder, transport):
    """Verified bytes of a file that is still being got: holes take no room."""
    folder = os.path.join(folder, transport)
    sizes = [os.stat(os.path.join(folder, name)).st_blocks * 512
             for name in os.listdir(folder) if name.endswith(".part")]
    return sum(sizes)


def main():
    if os.geteuid() != 0:
        m.fail("namespaces need root")
    m.build("peer")
    for mbits in RATES:
        if "goodput" in TABLES:
            m.title(f"One link of {mbits} Mbit/s, {CLIENTS} clients")
            cells = {f"{transport}, {congestion}": goodput(mbits, congestion, transport)
                     for congestion in CONGESTION for transport in TRANSPORTS}
            m.table(m.alternate(cells), ["% of the link", "wall s", "chunk p50 ms"],
                    first="transport, congestion control of streams")
        if "fairness" in TABLES:
            m.title(f"One link of {mbits} Mbit/s, udp-data and tcp at once")
            cells = {f"the relay's streams on {c}": shares(mbits, c) for c in CONGESTION}
            m.table(m.alternate(cells), ["udp-data gets, times tcp", "udp-data %", "tcp %"])


if __name__ == "__main__":
    main()
