#!/usr/bin/env python3
"""`peer get` of 1 GiB into memory: one peer, ten at once, and the check before a resume.

  BASELINE='COMMAND' bench/get.py

A relay, a `peer share` and the gets run on this machine; files lie in DIR (/dev/shm): SIZE_MIB (1024)
of content, once more per peer. BASELINE moves the same bytes once over loopback to one receiver that
verifies them (see measure.py), for example the limit program:
'limit -S send -w 256K -C cubic -R blake3 -c 1 -t 1 -z 1024M'. The reference is two of them at once, as a
file takes two hops, plus the time of a write of the same bytes to DIR, shared by the cores. Before it and
before the one get as much was written and removed, so that both write to memory that is warm.
The check is a get of a file that lacks one chunk; HASH (b3sum, if there is one, else `peer check`)
hashes the same file in the same round. BUILT=1 skips the build; PEER names another `peer`.
"""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time

import measure as m

PEER = shlex.split(os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer")))
DIR = os.environ.get("DIR", "/dev/shm")
SIZE = (16 if m.QUICK else int(os.environ.get("SIZE_MIB", "1024"))) * m.MIB
PEERS = 2 if m.QUICK else 10
BLOCK = os.urandom(m.MIB)


def write(path):
    """Seconds that it takes to write the content's length."""
    began = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(SIZE // m.MIB):
            file.write(BLOCK)
    return time.monotonic() - began


def get(ticket, paths):
    """All at once; seconds until the last has ended, and the last one's report."""
    began = time.monotonic()
    command = [*PEER, "get", ticket, "--quiet", "--json", "-o"]
    running = [subprocess.Popen([*command, path], stdout=subprocess.PIPE) for path in paths]
    reports = [process.communicate()[0] for process in running]
    seconds = time.monotonic() - began
    if any(process.returncode for process in running):
        m.fail(f"a get failed: {reports}")
    return seconds, json.loads(reports[-1])


def row(seconds, count=1):
    return {"wall s": seconds, "GB/s": SIZE * count / seconds / 1e9}


def main():
    if not os.environ.get("BUILT"):
        build = ["cargo", "build", "--quiet", "--release", "-p", "relay", "--bins"]
        subprocess.run(build, cwd=m.ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=DIR) as place:
        measure(place)


def measure(place):
    path = lambda name: os.path.join(place, name)
    with open(path("content"), "wb") as content:
        for _ in range(SIZE // m.MIB):
            content.write(os.urandom(m.MIB))
    with m.RelayProcess() as relay:
        share = subprocess.Popen(
            [*PEER, "share", path("content"), "--relay", relay.address, "--quiet"],
            stdout=subprocess.PIPE, text=True)
        try:
            cells(path, share.stdout.readline().strip())
        finally:
            m.end(share)


def cells(path, ticket):
    def warm():
        # Both find memory that was used just before: what ten gets freed, a hypervisor may have taken.
        write(path("warm"))
        os.remove(path("warm"))

    def one():
        warm()
        seconds, _ = get(ticket, [path("one")])
        os.remove(path("one"))
        return row(seconds)

    def many():
        paths = [path(f"many-{number}") for number in range(PEERS)]
        seconds, _ = get(ticket, paths)
        for each in paths:
            os.remove(each)
        return row(seconds, PEERS)

    def resume():
        # What is left of a get that lacked its last chunk.
        shutil.copyfile(path("content"), path("half.part"))
        os.truncate(path("half.part"), SIZE - 1)
        seconds, report = get(ticket, [path("half")])
        if report["received_bytes"] > 32 * m.MIB:
            m.fail(f"more than a chunk was got: {report}")
        os.remove(path("half"))
        return row(seconds)

    def hashing():
        default = "b3sum" if shutil.which("b3sum") else None
        command = shlex.split(os.environ.get("HASH", default or shlex.join([*PEER, "check"])))
        ticket_too = [ticket] if "check" in command else []
        began = time.monotonic()
        subprocess.run([*command, path("content"), *ticket_too], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return row(time.monotonic() - began)

    def reference(count):
        warm()
        hops = [subprocess.Popen(["bash", "-c", m.BASELINE], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True) for _ in range(2)]
        walls = []
        for hop in hops:
            text = hop.communicate()[0]
            found = m.re.search(r"\bwall ([0-9.]+)", text)
            if hop.returncode or not found or float(found[1]) == 0:
                m.fail(f"{m.BASELINE} printed no wall time, or none at all passed:\n{text}")
            walls.append(float(found[1]))
        seconds = max(walls) + write(path("written")) / os.cpu_count()
        os.remove(path("written"))
        return row(seconds * count, count)

    gets = {"peer get": one}
    if m.BASELINE:
        gets["two verified hops and a write"] = lambda: reference(1)
    gets[f"{PEERS} gets at once"] = many
    m.title(f"peer get of {SIZE // m.MIB} MiB")
    m.table(m.alternate(gets), ["wall s", "GB/s"],
            against="two verified hops and a write" if m.BASELINE else None)
    m.title("the check before a resume")
    m.table(m.alternate({"resume that lacks one chunk": resume, "hashing alone": hashing}),
            ["wall s", "GB/s"], against="hashing alone")


main()
