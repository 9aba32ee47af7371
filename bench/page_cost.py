#!/usr/bin/env python3
"""What somebody who watches costs: the main job with nobody, with the page's events taken, and with
the page open in a browser; and with `--report`.

  bench/page_cost.py

Each run has a relay of its own, so that all have the same past; rows are the same job in alternation.
Target: with a page open the relay's speed drops by less than 2%. "Events taken" is what the page costs
the relay: a program reads /api/v1/events and does nothing with it. "Control" is the processor time of the
thread that makes the page, in per cent of both programs': where all cores are busy, the job can't become
slower by more, but for what the shards add when they are asked. "In a browser" (chromium, if it is
installed) has the browser on the same cores as the rest, where it takes from the job what it draws
with, which no page elsewhere would: look at the relay's CPU seconds there.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import measure as m

READ_BYTES = 1 << 16
# A browser that starts is busy with itself.
SETTLE_SECONDS = 2
BROWSER = shutil.which(os.environ.get("CHROMIUM", "chromium"))


@contextlib.contextmanager
def nobody(_):
    yield lambda: 0


@contextlib.contextmanager
def events(relay):
    """Reads the events until the block ends."""
    host, port = relay.http.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {relay.http}\r\n\r\n".encode())
    taken = 0

    def read():
        nonlocal taken
        with contextlib.suppress(OSError):
            while data := connection.recv(READ_BYTES):
                taken += len(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lambda: taken
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        reader.join()
        connection.close()


@contextlib.contextmanager
def browser(relay):
    """The page in a browser without a window; its processes end with the block."""
    directory = tempfile.mkdtemp(prefix="bench-page-")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={directory}", "--window-size=1400,1200",
               f"http://{relay.http}/"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        m.wait_until(lambda: connections(relay.http) > 0, 30, "a page in the browser")
        time.sleep(SETTLE_SECONDS)
        yield lambda: 0
    finally:
        m.end(process)
        shutil.rmtree(directory, ignore_errors=True)


def connections(address):
    """How many connections the relay's HTTP port has."""
    port, established = f":{int(address.rsplit(':', 1)[1]):04X}", "01"
    with open("/proc/net/tcp") as table:
        lines = [line.split() for line in table.readlines()[1:]]
    return sum(line[1].endswith(port) and line[3] == established for line in lines)


def control_seconds(pid):
    """Processor time of the thread that serves HTTP; none before it has begun."""
    tasks = f"/proc/{pid}/task"
    for task in os.listdir(tasks):
        # A thread that warms memory up may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"{tasks}/{task}/comm") as name, open(f"{tasks}/{task}/schedstat") as times:
                if name.read().strip() == "relay-control":
                    return int(times.read().split()[0]) / 1e9
    return 0


def job(watch, *args):
    clients, size = (10, "2M") if m.QUICK else (100, "100M")

    def run():
        with m.RelayProcess() as relay, watch(relay) as taken:
            before = control_seconds(relay.pid)
            report = m.loadgen("--clients", clients, "--file", size, "--relay", relay.address, *args)
            control = control_seconds(relay.pid) - before
            figures = m.figures(report)
            both = figures["relay CPU s"] + figures["loadgen CPU s"]
            return {**figures, "control %": 100 * control / both, "events MB": taken() / 1e6}
    return run


def main():
    m.build()
    m.title("What a page and a report cost: the main job")
    with tempfile.TemporaryDirectory(prefix="bench-report-") as directory:
        cells = {"nobody watches": job(nobody), "events taken": job(events)}
        if BROWSER:
            cells["page in a browser"] = job(browser)
        else:
            print("no chromium: the browser is left out", file=sys.stderr)
        cells["with --report"] = job(nobody, "--report", directory)
        rows = m.alternate(cells)
    m.table(rows, ["wall s", "relay CPU s", "loadgen CPU s", "control %", "events MB"], against="nobody watches")


if __name__ == "__main__":
    main()
