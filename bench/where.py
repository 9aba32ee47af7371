#!/usr/bin/env python3
"""Where the time of the main job goes: microseconds of a core for each chunk that a client gets.

  bench/where.py                                       # wants `perf`, and the right to watch all cores

`perf record -a` takes FREQUENCY (3,000) samples a second of each core while the main job runs, with both
drivers in turn. Those of the event loops of both programs are sorted by what ran; interrupts count for
whom they interrupted. Preparing content and starting are other threads, and left out.
"""

import os
import re
import subprocess
import tempfile

import measure as m

FREQUENCY = int(os.environ.get("FREQUENCY", "3000"))
CLIENTS, SIZE_MIB, CHUNK_KIB = 100, (8 if m.QUICK else 100), 256
DELIVERIES = CLIENTS * SIZE_MIB * 1024 // CHUNK_KIB

# The first that a symbol matches.
KINDS = [
    ("BLAKE3", r"blake3"),
    ("copies", r"^\[k\] _copy_(from|to)_iter|memmove|memcpy"),
    ("checksums", r"crc"),
    ("network in the kernel", r"^\[k\] \w*(tcp|skb|sk_|sock|inet|ip_|ip4|ipv4|net_|netif|dev_|napi|backlog|"
                              r"loopback|xmit|dst_|nf_|qdisc|sendmsg|recvmsg|copy_datagram|page_frag)"),
    ("the rest of the kernel", r"^\[k\]"),
    ("the program itself", r""),
]

ROWS = [(program, kind) for program in ("relay", "loadgen") for kind, _ in KINDS]


def kind_of(symbol):
    return next(kind for kind, pattern in KINDS if re.search(pattern, symbol))


def run(seeding, driver):
    with tempfile.TemporaryDirectory() as place:
        data = os.path.join(place, "perf.data")
        command = ["perf", "record", "--quiet", "-a", "-F", str(FREQUENCY), "-o", data, "--", *m.LOADGEN,
                   "--clients", str(CLIENTS), "--file", f"{SIZE_MIB}M", "--chunk", f"{CHUNK_KIB}K",
                   "--seeding", seeding, "--driver", driver, "--relay-args", f"--driver {driver}"]
        watched = subprocess.run(command, capture_output=True, text=True)
        if watched.returncode != 0:
            m.fail(f"{' '.join(command)} exited with {watched.returncode}:\n{watched.stderr}")
        report = ["perf", "report", "-i", data, "--stdio", "-F", "sample,comm,sym", "-t", ";"]
        found = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    row = dict.fromkeys(ROWS, 0)
    for line in found.splitlines():
        # The event loops' threads alone: their names end with a number.
        fields = re.match(r"(\d+) *;(relay|loadgen)-\d+ *;(.*)", line.strip())
        if fields:
            samples, program, symbol = fields.groups()
            row[program, kind_of(symbol)] += int(samples) * 1e6 / FREQUENCY / DELIVERIES
    return row


def main():
    m.build()
    m.title(f"Where the time goes: µs of a core for each of {DELIVERIES:,} chunks delivered")
    cells = {f"{driver}, {seeding}": (lambda s=seeding, d=driver: run(s, d))
             for driver in ("io-uring", "epoll") for seeding in ("origin", "spread")}
    found = m.alternate(cells)
    print("| program | what | " + " | ".join(found) + " |")
    print("|---" * (2 + len(found)) + "|")
    for program, kind in ROWS:
        print(f"| {program} | {kind} | " + " | ".join(
            f"{m.median(rows, (program, kind)):.1f}" for rows in found.values()) + " |")
    print("| both | together | " + " | ".join(
        f"{sum(m.median(rows, row) for row in ROWS):.1f}" for rows in found.values()) + " |")


if __name__ == "__main__":
    main()
