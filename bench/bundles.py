#!/usr/bin/env python3
"""`peer share` and `peer get` of directories beside one file of as many bytes, and beside tar into tar.

  bench/bundles.py

A relay, a `peer share` and a `peer get` run on this machine; files lie in DIR (/dev/shm). A row is a share, which hashes and
seals (`--rehash`, so that nothing is remembered), up to its ticket, and then the get of that ticket, up to its end. "shared
again" is a share of what was hashed before. tar is given the same tree: it reads and writes it, over a loopback socket in
between, verifies nothing, seals nothing and syncs nothing.
"""

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import measure as m

PEER = shlex.split(os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer")))
DIR = os.environ.get("DIR", "/dev/shm")
# Name, files, bytes of each.
TREES = [
    ("1 file of 1000 MiB", 1, 1000 * m.MIB),
    ("10,000 files of 100 KiB", 10_000, 100 << 10),
    ("100,000 files of 1 KiB", 100_000, 1 << 10),
]
if m.QUICK:
    TREES = [(name, max(1, count // 100), size if count > 1 else m.MIB) for name, count, size in TREES]


def make(place, count, size):
    """A hundred files in a directory."""
    for at in range(count):
        directory = os.path.join(place, f"{at // 100:05}")
        if at % 100 == 0:
            os.makedirs(directory)
        with open(os.path.join(directory, f"{at % 100:02}"), "wb") as file:
            left = size
            while left > 0:
                left -= file.write(os.urandom(min(left, m.MIB)))


def pump(read, write):
    while block := read(m.MIB):
        write(block)


def tar(source, target):
    """tar c | socket | tar x: seconds."""
    os.makedirs(target)
    listener = socket.create_server(("127.0.0.1", 0))
    began = time.monotonic()
    packing = subprocess.Popen(["tar", "-C", source, "-c", "."], stdout=subprocess.PIPE)
    out = socket.create_connection(listener.getsockname())
    into, _ = listener.accept()
    unpacking = subprocess.Popen(["tar", "-C", target, "-x"], stdin=subprocess.PIPE)

    def send():
        pump(packing.stdout.read1, out.sendall)
        out.close()

    sending = threading.Thread(target=send)
    sending.start()
    pump(into.recv, unpacking.stdin.write)
    unpacking.stdin.close()
    sending.join()
    if packing.wait() or unpacking.wait():
        m.fail("tar failed")
    return time.monotonic() - began


def main():
    m.build("peer")
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=DIR) as place:
        measure(place)


def measure(place):
    path = lambda name: os.path.join(place, name)
    cells = {}
    with m.RelayProcess() as relay:
        for number, (name, count, size) in enumerate(TREES):
            source = path(f"source-{number}")
            make(source, count, size)
            # A single file is shared as a file.
            shared = source if count > 1 else os.path.join(source, "00000", "00")
            for verb in ("share and get", "share", "share again"):
                cells[f"{verb}, {name}"] = lambda verb=verb, shared=shared, size=count * size: peers(
                    path, relay.address, verb, shared, size)
            if count > 1:
                cells[f"tar, {name}"] = lambda source=source, size=count * size: tarred(path, source, size)
        # What was touched just now is not remembered.
        time.sleep(3)
        m.title("peer share and peer get of directories, and tar into tar")
        m.table(m.alternate(cells), ["wall s", "CPU s", "MB/s"], against=f"share and get, {TREES[0][0]}")


def row(seconds, cpu, size):
    return {"wall s": seconds, "CPU s": cpu, "MB/s": size / seconds / 1e6}


def children_seconds():
    times = os.times()
    return times.children_user + times.children_system


def peers(path, address, verb, shared, size):
    """One share up to its ticket, and one get if so: processor time of both programs, and of the relay none."""
    again = [] if verb == "share again" else ["--rehash"]
    began, cpu = time.monotonic(), children_seconds()
    share = subprocess.Popen([*PEER, "share", shared, "--relay", address, "--quiet", *again], stdout=subprocess.PIPE,
                             text=True)
    try:
        ticket = share.stdout.readline().strip()
        if not ticket:
            m.fail("peer share printed no ticket")
        if verb == "share and get":
            subprocess.run([*PEER, "get", ticket, "--quiet", "-o", path("got")], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
    finally:
        m.end(share)
    cpu = children_seconds() - cpu
    if verb == "share and get":
        got = path("got")
        os.remove(got) if os.path.isfile(got) else shutil.rmtree(got)
    return row(seconds, cpu, size)


def tarred(path, source, size):
    cpu = children_seconds()
    seconds = tar(source, path("got"))
    cpu = children_seconds() - cpu
    shutil.rmtree(path("got"))
    return row(seconds, cpu, size)


main()
