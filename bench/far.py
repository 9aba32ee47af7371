#!/usr/bin/env python3
"""Long paths: one `peer get` against one plain download (a request, then bytes) through the same proxy,
which adds time and nothing else (`examples/far_path.rs`), over a link of a known rate (see `links.py`).

  bench/far.py [MBITS...]          as root; default: 1000, and 0 for a link without a bucket

Far is the getter, the origin, or both, each by a round trip of 1, 10, 100 and 300 ms. Then the main job of
100 near clients beside one get over 100 ms, beside a plain download of the same rate, and alone. SIDES and ROUND_TRIPS choose (comma-separated), SIZE_MIB
is the file (300), ONLY=table or ONLY=beside one of both, BESIDE_MBITS the rate of that get (100; the get and
the proxy take processor time from the main job). LOADGEN_BUILT=1 doesn't build; FAR_PATH is the proxy.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time

import links
import measure as m

SIDES = os.environ.get("SIDES", "getter,origin,both").split(",")
ROUND_TRIPS = [int(ms) for ms in os.environ.get("ROUND_TRIPS", "1,10,100,300").split(",")]
SIZE = (16 if m.QUICK else int(os.environ.get("SIZE_MIB", "300"))) * m.MIB
FAR_PATH = os.environ.get("FAR_PATH", os.path.join(m.ROOT, "target/release/examples/far_path"))
RATES = [int(rate) for rate in sys.argv[1:]] or [1000, 0]
ONLY = os.environ.get("ONLY")
BESIDE_MBITS, BESIDE_MS = int(os.environ.get("BESIDE_MBITS", "100")), 100
PORT, PLAIN_PORT = 7440, 7450

SERVER = f"""
import contextlib, os, socket
listener = socket.create_server(("{links.RELAY_ADDRESS}", {PLAIN_PORT}))
print("ready", flush=True)
block = memoryview(os.urandom(1 << 20))
while True:
    peer = listener.accept()[0]
    # A client may end before it has all.
    with peer, contextlib.suppress(ConnectionError):
        peer.recv(1)
        for _ in range({SIZE} >> 20):
            peer.sendall(block)
"""

CLIENT = f"""
import socket, time
began = time.monotonic()
peer = socket.create_connection(("127.0.0.1", {PLAIN_PORT}))
peer.sendall(b"?")
buffer, left = bytearray(1 << 20), {SIZE}
while left:
    count = peer.recv_into(buffer)
    assert count, "the server ended"
    left -= count
print(time.monotonic() - began)
"""


@contextlib.contextmanager
def running(namespace, *command):
    """A program for the block, in this namespace, and the first line that it prints."""
    whole = ["ip", "netns", "exec", namespace, *map(str, command)]
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        m.end(process)


def proxy(port, round_trip_ms):
    """What is far finds the other side at its own loopback address."""
    return running(links.PEERS_SIDE, FAR_PATH, f"127.0.0.1:{port}", f"{links.RELAY_ADDRESS}:{port}", round_trip_ms)


def plain(mbits, round_trip_ms):
    with links.link(mbits), running(links.RELAY_SIDE, sys.executable, "-c", SERVER), proxy(PLAIN_PORT, round_trip_ms):
        command = ["ip", "netns", "exec", links.PEERS_SIDE, sys.executable, "-c", CLIENT]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@contextlib.contextmanager
def relay():
    """A relay that near peers find at the address at which far ones find the proxy."""
    environment = {"RELAY_LOG": "warn", **os.environ}
    command = ["ip", "netns", "exec", links.RELAY_SIDE, *m.RELAY, "--listen", f"{links.RELAY_ADDRESS}:{PORT}",
               "--listen", f"127.0.0.1:{PORT}", "--http", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        if not process.stdout.readline().startswith("relay listening on"):
            m.fail("the relay did not start")
        yield process
    finally:
        m.end(process)


def place(side, who):
    return links.PEERS_SIDE if side in (who, "both") else links.RELAY_SIDE


def get_command(side, ticket, target):
    return ["ip", "netns", "exec", place(side, "getter"), links.PEER, "get", ticket, "-o", target, "--force"]


@contextlib.contextmanager
def shared(mbits, round_trip_ms, side, folder):
    """A relay and an origin for the block; the ticket."""
    content = os.path.join(folder, "content")
    with open(content, "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    with links.link(mbits), relay(), proxy(PORT, round_trip_ms):
        share = [links.PEER, "share", content, "--relay", f"127.0.0.1:{PORT}", "--quiet"]
        with running(place(side, "origin"), *share) as ticket:
            yield ticket


def ours(mbits, round_trip_ms, side):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        with shared(mbits, round_trip_ms, side, folder) as ticket:
            began = time.monotonic()
            command = [*get_command(side, ticket, os.path.join(folder, "got")), "--quiet"]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            return time.monotonic() - began


def cell(mbits, round_trip_ms, side):
    def run():
        # Far on both sides is as long a path as twice one.
        by_plain = plain(mbits, round_trip_ms * (2 if side == "both" else 1))
        by_us = ours(mbits, round_trip_ms, side)
        return {"ours / plain": by_plain / by_us, "plain MiB/s": SIZE / m.MIB / by_plain,
                "ours MiB/s": SIZE / m.MIB / by_us}
    return run


def main_job():
    """Seconds of the main job with a relay that is there already."""
    command = ["ip", "netns", "exec", links.RELAY_SIDE, *m.LOADGEN, "--relay", f"127.0.0.1:{PORT}",
               "--clients", "100", "--file", "10M" if m.QUICK else "100M", "--json", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return links.report(process)["wall_seconds"]


@contextlib.contextmanager
def far_get(ticket, folder):
    """A get over the long path, for the block."""
    command = [*get_command("getter", ticket, os.path.join(folder, "got")), "--quiet"]
    with started(command):
        yield


@contextlib.contextmanager
def far_download():
    """The same by one plain connection: what the path and its proxy take of the processor in any case."""
    with running(links.RELAY_SIDE, sys.executable, "-c", SERVER), proxy(PLAIN_PORT, BESIDE_MS):
        with started(["ip", "netns", "exec", links.PEERS_SIDE, sys.executable, "-c", CLIENT]):
            yield


@contextlib.contextmanager
def started(command):
    """A program for the block, which begins when that has found its pace."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
        if process.poll() is not None:
            m.fail("what should be beside the main job ended before it")
    finally:
        m.end(process)


def beside(what):
    def run():
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            with shared(BESIDE_MBITS, BESIDE_MS, "getter", folder) as ticket:
                far = {"a far get": lambda: far_get(ticket, folder), "a far download": far_download}
                with far.get(what, contextlib.nullcontext)():
                    return {"wall s": main_job()}
    return run


def main():
    if os.geteuid() != 0:
        m.fail("namespaces need root")
    m.build("peer")
    if not os.environ.get("LOADGEN_BUILT"):
        build = ["cargo", "build", "--quiet", "--release", "--example", "far_path"]
        subprocess.run(build, cwd=m.ROOT, check=True)
    for mbits in RATES if ONLY != "beside" else []:
        m.title(f"One get of {SIZE // m.MIB} MiB over a link of {mbits or 'any number of'} Mbit/s")
        cells = {f"{ms} ms, {side}": cell(mbits, ms, side) for ms in ROUND_TRIPS for side in SIDES}
        m.table(m.alternate(cells), ["ours / plain", "plain MiB/s", "ours MiB/s"], first="round trip, who is far")
    if ONLY != "table":
        m.title(f"The main job, and beside it something over {BESIDE_MS} ms and {BESIDE_MBITS} Mbit/s")
        cells = {what: beside(what) for what in ("a far download", "a far get", "nothing")}
        m.table(m.alternate(cells), ["wall s"], against="a far download", first="beside it")


if __name__ == "__main__":
    main()
