#!/usr/bin/env python3
"""Transports on links of a known rate: network namespaces, veth pairs between them, and token buckets on
both ends of the link. Needs root, ip and tc; touches nothing outside of its namespaces.

  bench/links.py [goodput|fairness|far] [MBITS...]          default: goodput and fairness, 100 1000

goodput: how much of the link each transport uses: one relay on one side, its clients and the origin on
the other; verified bytes of all clients over the time from the first connect to the last byte.
fairness: what two transfers on one bottleneck get that begin together, once both have found their pace,
where the bottleneck is the relay's own network card. far: the same, where it is a router's.
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

NAMED = [name for name in sys.argv[1:] if name in ("goodput", "fairness", "far")]
TABLES = NAMED or ["goodput", "fairness"]
RATES = [int(rate) for rate in sys.argv[1:] if rate not in NAMED] or [100, 1000]
TRANSPORTS = ["tcp", "udp-control", "udp-data"]
PAIRS = [("udp-data", "tcp"), ("udp-data", "udp-data"), ("tcp", "tcp")]
CONGESTION = ["cubic", "bbr"]
RELAY_SIDE, PEERS_SIDE, ROUTER = (f"{name}-{os.getpid()}" for name in ("relay", "peers", "router"))
RELAY_ADDRESS = "10.77.0.1"

# Clients, and seconds that a run takes if the link is full: the first round trips count, too.
CLIENTS = 4
SECONDS = 1 if m.QUICK else 6
# What two transfers do in their first seconds is the noise of two slow starts.
WARM_SECONDS = 6
PEER = os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer"))


def run(*command):
    subprocess.run(list(map(str, command)), check=True)


def inside(namespace, *command):
    run("ip", "netns", "exec", namespace, *command)


def join(one, address, other, other_address):
    """A pair of devices between two namespaces, each named after where it leads to."""
    run("ip", "link", "add", "name", other, "netns", one, "type", "veth", "peer", "name", one, "netns", other)
    for namespace, device, own in ((one, other, address), (other, one, other_address)):
        inside(namespace, "ip", "address", "add", f"{own}/24", "dev", device)
        inside(namespace, "ip", "link", "set", device, "up")


def narrow(namespace, device, mbits):
    if not mbits:
        return
    # The bucket holds what a tick of the kernel lets through; the queue, 50 ms.
    burst = max(16_000, mbits * 125_000 // 250)
    inside(namespace, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{mbits}mbit",
           "burst", burst, "latency", "50ms")


@contextlib.contextmanager
def link(mbits, far=False):
    """Two namespaces with this link, for the block; if it is far, behind a router."""
    names = [RELAY_SIDE, PEERS_SIDE] + [ROUTER] * far
    try:
        for name in names:
            run("ip", "netns", "add", name)
            inside(name, "ip", "link", "set", "lo", "up")
        if far:
            join(RELAY_SIDE, RELAY_ADDRESS, ROUTER, "10.77.0.2")
            join(ROUTER, "10.77.1.1", PEERS_SIDE, "10.77.1.2")
            inside(ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            inside(RELAY_SIDE, "ip", "route", "add", "default", "via", "10.77.0.2")
            inside(PEERS_SIDE, "ip", "route", "add", "default", "via", "10.77.1.1")
            ends = ((ROUTER, PEERS_SIDE), (PEERS_SIDE, ROUTER))
        else:
            join(RELAY_SIDE, RELAY_ADDRESS, PEERS_SIDE, "10.77.0.2")
            ends = ((RELAY_SIDE, PEERS_SIDE), (PEERS_SIDE, RELAY_SIDE))
        for namespace, device in ends:
            narrow(namespace, device, mbits)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def relay(congestion, *options):
    """A relay for the block; the tickets of what it serves."""
    command = ["ip", "netns", "exec", RELAY_SIDE, *m.RELAY, "--listen", f"{RELAY_ADDRESS}:7440",
               "--http", "127.0.0.1:0", "--congestion", congestion, *options]
    environment = {"RELAY_LOG": "warn", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    if not process.stdout.readline().startswith("relay listening on"):
        m.fail("the relay did not start")
    try:
        tickets = []
        while len(tickets) < options.count("--serve"):
            tickets += re.findall(r"relay\d[a-z0-9]+", process.stdout.readline())
        yield tickets
    finally:
        m.end(process)


def start(transport, size, clients):
    command = ["ip", "netns", "exec", PEERS_SIDE, *m.LOADGEN, "--relay", f"{RELAY_ADDRESS}:7440",
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


def shares(mbits, congestion, transports, far):
    """Two files, each over its transport, both from the relay itself, so that nothing but the bottleneck
    holds them up: what each has on disk after a while, and some seconds later."""
    def cell():
        size = mbits * 125_000 * (WARM_SECONDS + SECONDS + 4)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, link(mbits, far):
            files = [os.path.join(folder, name) for name in ("first", "second")]
            for path in files:
                block = os.urandom(1 << 20)
                with open(path, "wb") as file:
                    for _ in range(size >> 20):
                        file.write(block)
            serve = [option for path in files for option in ("--serve", path)]
            with relay(congestion, *serve, "--advertise", f"{RELAY_ADDRESS}:7440") as tickets:
                targets = [f"{path}.got" for path in files]
                gets = [get(*how) for how in zip(tickets, transports, targets)]
                looks = []
                for seconds in (WARM_SECONDS, SECONDS):
                    time.sleep(seconds)
                    for process in gets:
                        if process.poll() is not None:
                            m.fail(f"a transfer ended too early ({process.returncode}): {process.stderr.read()}")
                    looks.append([stored(target) for target in targets])
                for process in gets:
                    m.end(process)
        first, second = ((b - a) / SECONDS / (mbits * 1250) for a, b in zip(*looks))
        return {"first gets, times second": first / second, "first %": first, "second %": second}
    return cell


def get(ticket, transport, target):
    command = ["ip", "netns", "exec", PEERS_SIDE, PEER, "get", ticket, "--transport", transport, "-o", target,
               "--quiet"]
    # Its last words are short.
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def stored(target):
    """Verified bytes of a file that is still being got: holes take no room."""
    return os.stat(f"{target}.part").st_blocks * 512


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
        for table in ("fairness", "far"):
            if table in TABLES:
                whose = "a router's" if table == "far" else "the relay's own"
                m.title(f"One link of {mbits} Mbit/s, two transfers at once; the bottleneck is {whose}")
                cells = {f"{' and '.join(pair)}, {c}": shares(mbits, c, pair, table == "far")
                         for pair in PAIRS for c in CONGESTION}
                m.table(m.alternate(cells), ["first gets, times second", "first %", "second %"],
                        first="two transports, congestion control of streams")


if __name__ == "__main__":
    main()
