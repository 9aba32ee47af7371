#!/usr/bin/env python3
"""Limits of rates: what was asked for, what came, and the largest burst.

  bench/rates.py [LIMIT...]        limits: egress ingress peer-out peer-in get share live

For each limit, transport and rate a relay, a `peer share` and `peer get`s run for SECONDS (10). What moves is looked at
every 10 ms from outside: the relay's own count of file bytes, by /metrics. That serves the limits of a peer as well: all
that a peer moves passes through the relay. Of each row:

- got/asked: bytes over time, from SKIP (1 s) after the first byte on;
- burst ms: the most that came in any 200 ms beyond 200 ms of the rate, as time at that rate. What a bucket holds after a
  pause counts here, and what a look came late by.

`live` begins with 5M and tells the relay 20M, then 2M, by its settings file and SIGHUP, while a transfer runs.

RATES='1M 20M 200M', TRANSPORTS='tcp udp-control udp-data quic', SECONDS=10 change what is tried.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import measure as m

RATES = os.environ.get("RATES", "1M" if m.QUICK else "1M 20M 200M").split()
TRANSPORTS = os.environ.get("TRANSPORTS", "tcp udp-control udp-data quic").split()
SECONDS = float(os.environ.get("SECONDS", "3" if m.QUICK else "10"))
SKIP = 1.0
WINDOW = 0.2
LOOK = 0.01
PEER = os.environ.get("PEER", os.path.join(m.ROOT, "target/release/peer"))
LIMITS = sys.argv[1:] or ["egress", "ingress", "peer-out", "peer-in", "get", "share", "live"]
LINE = re.compile(rb'^relay_bytes_total\{([^}]*)\} (\S+)$', re.M)


def size(text):
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


class Counts:
    """The relay's counts, over one HTTP connection."""

    def __init__(self, relay):
        host, port = relay.http.rsplit(":", 1)
        self.host = relay.http
        self.socket = socket.create_connection((host, int(port)))

    def bytes(self, direction):
        self.socket.sendall(f"GET /metrics HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        page = b""
        while b"\r\n\r\n" not in page:
            page += self.socket.recv(1 << 16)
        head, body = page.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
        while len(body) < length:
            body += self.socket.recv(1 << 16)
        wanted = f'direction="{direction}"'.encode()
        return sum(float(v) for labels, v in LINE.findall(body) if wanted in labels and b'kind="data"' in labels)


def watch(count, seconds):
    """(time, bytes) from the first byte on."""
    seen, first, deadline = [], None, time.monotonic() + 30 + seconds
    while time.monotonic() < deadline:
        value, at = count(), time.monotonic()
        if value > 0 and first is None:
            first = at
        if first is not None:
            seen.append((at - first, value))
            if at - first >= seconds:
                return seen
        time.sleep(LOOK)
    m.fail("nothing moved for 30 s")


def judge(seen, rate):
    """Measured over asked, and the largest burst in milliseconds of the rate."""
    begin = next(i for i, (at, _) in enumerate(seen) if at >= SKIP)
    (t0, b0), (t1, b1) = seen[begin], seen[-1]
    burst, start = 0.0, 0
    for at, count in seen:
        while seen[start][0] < at - WINDOW:
            start += 1
        # Looks are up to a few milliseconds apart: what came is set against the time that it had.
        since, before = seen[max(start - 1, 0)]
        span = max(at - since, WINDOW)
        burst = max(burst, (count - before - rate * span) / rate)
    return (b1 - b0) / (t1 - t0) / rate, burst * 1000


class Transfer:
    """A relay, one that shares, and some that get, until the block ends."""

    def __init__(self, transport, bytes_needed, relay=(), share=(), get=(), gets=1):
        self.dir = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.relay = m.RelayProcess(*relay)
        self.args = (transport, bytes_needed, share, get, gets)

    def __enter__(self):
        transport, needed, share, get, gets = self.args
        relay = self.relay.__enter__()
        path = os.path.join(self.dir.name, "file")
        with open(path, "wb") as out:
            out.truncate(needed)
        quiet = dict(stderr=subprocess.DEVNULL, text=True)
        self.share = subprocess.Popen([PEER, "share", path, "--relay", relay.address, "--transport", transport,
                                       *share], stdout=subprocess.PIPE, **quiet)
        ticket = self.share.stdout.readline().strip()
        if not ticket:
            m.fail("peer share printed no ticket")
        self.counts = Counts(relay)
        self.gets = [subprocess.Popen([PEER, "get", ticket, "-o", os.path.join(self.dir.name, f"got{i}"),
                                       "--transport", transport, *get], stdout=subprocess.DEVNULL, **quiet)
                     for i in range(gets)]
        return self

    def __exit__(self, *_):
        for process in [*self.gets, self.share]:
            m.end(process)
        self.relay.__exit__()
        self.dir.cleanup()


def row(limit, transport, text):
    rate = size(text)
    seconds = SECONDS + SKIP
    # Two who get share a total; of each peer's limit there is one to look at.
    gets = 2 if limit == "egress" else 1
    needed = int(rate * (seconds + 4) / gets) + (4 << 20)
    options = {
        "egress": dict(relay=["--egress-rate", text]), "ingress": dict(relay=["--ingress-rate", text]),
        "peer-out": dict(relay=["--peer-rate", text]), "peer-in": dict(relay=["--peer-rate", text]),
        "get": dict(get=["--limit-rate", text]), "share": dict(share=["--limit-rate", text]),
    }[limit]
    direction = "out" if limit in ("egress", "peer-out", "get") else "in"
    with Transfer(transport, needed, gets=gets, **options) as transfer:
        seen = watch(lambda: transfer.counts.bytes(direction), seconds)
    return judge(seen, rate)


def live(transport):
    """What came while 5M, 20M, and 2M were in force."""
    with tempfile.NamedTemporaryFile("w", suffix=".settings") as settings:
        def write(text):
            settings.seek(0)
            settings.truncate()
            settings.write(f"egress-rate = {text}\n")
            settings.flush()
        write("5M")
        with Transfer(transport, 300 << 20, relay=["--settings", settings.name]) as transfer:
            ratios = []
            for text in ("5M", "20M", "2M"):
                write(text)
                transfer.relay.process.send_signal(signal.SIGHUP)
                seen = watch(lambda: transfer.counts.bytes("out"), 4.0)
                ratios.append(judge(seen, size(text))[0])
        return ratios


def main():
    m.build("peer")
    m.title(f"Limits of rates, {SECONDS:.0f} s each")
    print("| limit | transport | asked | got/asked | burst beyond 200 ms, in ms of the rate |")
    print("|---|---|---|---|---|", flush=True)
    misses = 0
    for limit in (limit for limit in LIMITS if limit != "live"):
        for transport in TRANSPORTS:
            for text in RATES:
                got, burst = row(limit, transport, text)
                is_off = abs(got - 1) > 0.03 or burst > 200
                misses += is_off
                mark = " **" if is_off else ""
                print(f"| {limit} | {transport} | {text} | {got:.4f}{mark} | {burst:.0f} |", flush=True)
    if "live" in LIMITS:
        print("\nTold by SIGHUP while it ran, got/asked with 5M, 20M and 2M:\n")
        for transport in TRANSPORTS:
            ratios = live(transport)
            misses += sum(abs(ratio - 1) > 0.05 for ratio in ratios)
            print(f"- {transport}: {', '.join(f'{ratio:.3f}' for ratio in ratios)}", flush=True)
    print(f"\n{misses} beyond 3% or 200 ms")
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
