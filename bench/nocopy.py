#!/usr/bin/env python3
"""Sending without copying: this build with it and without (`--chunk-dir none`), beside another build, nginx, and a
plain program.

  OLD='PATH/TO/loadgen' LIMIT=PATH/TO/limit BASELINE='COMMAND' bench/nocopy.py
  PARTS='main nginx' DRIVERS=epoll bench/nocopy.py

PARTS says which tables (all):

  main     100 clients, 100 MiB, both seedings, with each of DRIVERS (io-uring epoll)
  nginx    the same job by nginx (see nginx.py, which says what LIMIT is), by BASELINE (see measure.py), and by this
           build with both seedings
  clients  seconds for each GB delivered to 1, 10, 20, 32, 40, 64, 100 and 1,000 clients (CLIENTS) in a spread, which
           waits for all clients: the time to connect is left out
  cache    100 clients, a spread, with caches of four chunks, 16 MiB and 64 MiB
  get      `peer get` of one file of 256 MiB, and of 2,500 files of 100 KiB, one peer and ten at once (PEER and OLD_PEER
           name the programs)

OLD is the other build's `loadgen`; a cell whose program is not named is left out. TAKERS_MIN in
crates/server/src/lending.rs decides who is lent anything: with fewer clients both cells copy.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time

import measure as m
import nginx

OLD = shlex.split(os.environ.get("OLD", ""))
PARTS = os.environ.get("PARTS", "main nginx clients cache get").split()
DRIVERS = os.environ.get("DRIVERS", "io-uring epoll").split()
CLIENTS = [int(n) for n in os.environ.get("CLIENTS", "1 10 20 32 40 64 100 1000").split()]
PEER = os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer"))
OLD_PEER = os.environ.get("OLD_PEER", os.path.join(os.path.dirname(OLD[0]), "peer") if OLD else "")
# MiB of the file, by clients: about 10 GB in each run, less with few clients, whose origin is slower than they.
SIZES = {1: 1000, 10: 300, 20: 250, 32: 200, 40: 200, 64: 150, 100: 100, 1000: 10}
COLUMNS = ["wall s", "both CPU s", "relay CPU s", "loadgen CPU s", "chunk p99 ms", "took in"]


def job(build, clients, size, relay, *more, driver="auto"):
    """A cell: one job of a build, whose relay has these arguments."""
    def once():
        mine, m.LOADGEN = m.LOADGEN, build
        try:
            report = m.loadgen("--clients", clients, "--file", size, "--driver", driver, "--seed", 7, *more,
                               "--relay-args", f"--driver {driver} {relay}".strip())
        finally:
            m.LOADGEN = mine
        row = m.figures(report)
        row["both CPU s"] = row["relay CPU s"] + row["loadgen CPU s"]
        seconds = report["wall_seconds"] - report["connect_seconds"]
        row["GB"] = report["relay"]["egress_bytes"] / 1e9
        row["s per GB"] = seconds / row["GB"]
        row["CPU s per GB"] = row["both CPU s"] / row["GB"]
        row["relay CPU s per GB"] = row["relay CPU s"] / row["GB"]
        return row
    return once


def builds(clients, size, relay, *more, driver="auto"):
    cells = {"copied": job(m.LOADGEN, clients, size, f"--chunk-dir none {relay}", *more, driver=driver),
             "lent": job(m.LOADGEN, clients, size, relay, *more, driver=driver)}
    if OLD:
        cells["old"] = job(OLD, clients, size, relay, *more, driver=driver)
    return cells


def beside(column, rows, other):
    """A column of ratios to another row's median."""
    base = m.median(rows[other], column)
    return lambda _, of: m.number(m.ratio(m.median(of, column), base))


def compare(name, cells, columns=None, against="copied"):
    print(f"{name}:\n")
    rows = m.alternate(cells)
    extra = {f"relay CPU to {against}": beside("relay CPU s", rows, against)}
    if all("both CPU s" in row for of in rows.values() for row in of):
        extra[f"both CPU to {against}"] = beside("both CPU s", rows, against)
    m.table(rows, columns or COLUMNS, against=against, extra=extra)


def main_job():
    size = "2M" if m.QUICK else "100M"
    for driver in DRIVERS:
        for seeding in ("origin", "spread"):
            cells = builds(10 if m.QUICK else 100, size, "", "--seeding", seeding, driver=driver)
            compare(f"100 clients, {seeding}, {driver}", cells)


def against_others():
    if not (limit := os.environ.get("LIMIT")) and not m.BASELINE:
        print("nginx: neither LIMIT nor BASELINE is set\n")
        return
    size = f"{nginx.SIZE_MIB}M"
    with contextlib.ExitStack() as stack:
        cells = {}
        if limit:
            port, pids = stack.enter_context(nginx.nginx())
            receive = (f"{limit} -T 60 -A {port} -q /file -p {','.join(pids)} -z {size} -t 2 -P same "
                       f"-C {nginx.CONGESTION} -R blake3")
            cells["nginx"] = lambda: m.baseline_figures(receive)
        if m.BASELINE:
            cells["baseline"] = m.baseline
        relay = f"--congestion {nginx.CONGESTION}"
        for seeding in ("origin", "spread"):
            cells[f"lent, {seeding}"] = job(m.LOADGEN, 100, size, relay, "--seeding", seeding)
        cells["copied, origin"] = job(m.LOADGEN, 100, size, f"{relay} --chunk-dir none", "--seeding", "origin")
        rows = m.alternate(cells)
    base = "baseline" if m.BASELINE else "nginx"
    extra = {f"wall to {base}": beside("wall s", rows, base),
             f"sender's CPU to {base}": beside("relay CPU s", rows, base)}
    print("Beside other programs:\n")
    m.table(rows, ["wall s", "relay CPU s", "loadgen CPU s", "took in"], against="nginx" if limit else base,
            first="sender: nginx, the baseline's, or the relay", extra=extra)


def clients():
    columns = ["s per GB", "CPU s per GB", "relay CPU s per GB", "GB"]
    for count in CLIENTS:
        size = f"{1 if m.QUICK else SIZES.get(count, 100)}M"
        cells = builds(count, size, "", "--seeding", "spread", "--chunk", "256K")
        compare(f"{count} clients, {size}", cells, columns)


def caches():
    size = "2M" if m.QUICK else "100M"
    for cache in ("1M", "16M", "64M"):
        cells = builds(10 if m.QUICK else 100, size, f"--cache {cache}", "--seeding", "spread", "--chunk", "256K")
        compare(f"a cache of {cache}, chunks of 256 KiB", cells)


def gets():
    size = (16 if m.QUICK else 256) * m.MIB
    gets_of("one file", 1, size)
    count = 25 if m.QUICK else 2500
    gets_of(f"{count:,} files of 100 KiB", count, count * (100 << 10))


def gets_of(what, files, size):
    """A relay, a share and gets of each build, whose relay copies or lends."""
    programs = {"copied": (m.RELAY, PEER, ["--chunk-dir", "none"]), "lent": (m.RELAY, PEER, [])}
    if OLD and os.path.exists(OLD_PEER):
        programs["old"] = ([os.path.join(os.path.dirname(OLD_PEER), "relay")], OLD_PEER, [])
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir="/dev/shm") as place, contextlib.ExitStack() as stack:
        content = os.path.join(place, "content")
        paths = [content]
        if files > 1:
            os.mkdir(content)
            paths = [os.path.join(content, f"{number:05}") for number in range(files)]
        for path in paths:
            with open(path, "wb") as file:
                file.write(os.urandom(size // files))
        cells = {1: {}, 10: {}}
        for name, (relay, peer, args) in programs.items():
            m.RELAY, mine = relay, m.RELAY
            running = stack.enter_context(m.RelayProcess(*args))
            m.RELAY = mine
            share = subprocess.Popen([peer, "share", content, "--relay", running.address, "--quiet"],
                                     stdout=subprocess.PIPE, text=True)
            stack.callback(m.end, share)
            ticket = share.stdout.readline().strip()
            for count in cells:
                cells[count][name] = get(peer, ticket, place, count, running.pid, size)
        for count, of in cells.items():
            compare(f"peer get of {what}, {count} at once", of, ["wall s", "GB/s", "relay CPU s"])


def get(peer, ticket, place, count, relay, size):
    def once():
        paths = [os.path.join(place, f"got-{number}") for number in range(count)]
        cpu, began = m.cpu_seconds(relay), time.monotonic()
        running = [subprocess.Popen([peer, "get", ticket, "--quiet", "-o", path], stdout=subprocess.DEVNULL)
                   for path in paths]
        # All are waited for, whatever becomes of one.
        codes = [process.wait() for process in running]
        seconds = time.monotonic() - began
        if any(codes):
            m.fail(f"a get failed: {codes}")
        for path in paths:
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        return {"wall s": seconds, "GB/s": size * count / seconds / 1e9, "relay CPU s": m.cpu_seconds(relay) - cpu}
    return once


def main():
    m.build("peer")
    m.title("Lent and copied chunks")
    parts = {"main": main_job, "nginx": against_others, "clients": clients, "cache": caches, "get": gets}
    for part in PARTS:
        (parts.get(part) or m.fail(f"PARTS knows no {part}: {' '.join(parts)}"))()


if __name__ == "__main__":
    main()
