#!/usr/bin/env python3
"""The main job against nginx with sendfile, which feeds verifying receivers over HTTP.

  LIMIT=/path/to/limit bench/nginx.py

nginx (Debian's; NGINX_PROGRAM names another) gets a configuration of its own, on loopback: 2
workers, one on each core, sendfile, and the congestion control that our relay uses (CONGESTION,
cubic): it inherits a listener on which that is set, since no directive of its own does it. LIMIT is the
receiving side: `LIMIT -A PORT -q PATH -p PID,PID` asks for PATH over 100 connections, hashes every
byte with BLAKE3, and prints wall time and CPU seconds as BASELINE does (see measure.py).
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile

import measure as m

NGINX = os.environ.get("NGINX_PROGRAM", "nginx")
CONGESTION = os.environ.get("CONGESTION", "cubic")
SIZE_MIB = 4 if m.QUICK else 100

CONFIG = """
daemon off; master_process on; worker_processes 2; worker_cpu_affinity 01 10;
pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; sendfile_max_chunk 1m; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=1024; root {dir}; }}
}}
"""


@contextlib.contextmanager
def nginx():
    """(port, process ids of the workers) of a running nginx that serves /file."""
    directory = tempfile.mkdtemp(prefix="bench-nginx-")
    os.chmod(directory, 0o755)
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION.encode())
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    listener.listen(1024)
    port = listener.getsockname()[1]
    with open(f"{directory}/file", "wb") as file:
        for _ in range(SIZE_MIB):
            file.write(os.urandom(m.MIB))
    with open(f"{directory}/conf", "w") as file:
        file.write(CONFIG.format(dir=directory, port=port))
    process = None
    try:
        fd = listener.fileno()
        process = subprocess.Popen(
            [NGINX, "-p", directory, "-c", f"{directory}/conf"], pass_fds=[fd],
            env={**os.environ, "NGINX": f"{fd};"}, stderr=subprocess.DEVNULL)
        children = f"/proc/{process.pid}/task/{process.pid}/children"

        def is_up():
            if process.poll() is not None:
                with open(f"{directory}/error.log") as log:
                    m.fail(f"nginx ended: {log.read()}")
            return len(workers(children)) == 2
        m.wait_until(is_up, 10, "the start of nginx")
        yield port, workers(children)
    finally:
        listener.close()
        if process:
            m.end(process)
        shutil.rmtree(directory, ignore_errors=True)


def workers(children):
    with open(children) as file:
        return file.read().split()


def main():
    limit = os.environ.get("LIMIT") or m.fail("set LIMIT to the receiving program, see --help")
    m.build()
    m.title(f"Main job against nginx with sendfile, {CONGESTION}")
    size = f"{SIZE_MIB}M"

    def ours(seeding):
        return lambda: m.figures(m.loadgen("--clients", 100, "--file", size, "--seeding", seeding,
                                           "--relay-args", f"--congestion {CONGESTION}"))
    with nginx() as (port, pids):
        # The receivers set their own end; both ends on one core, as ours are.
        receive = (f"{limit} -T 60 -A {port} -q /file -p {','.join(pids)} -z {size} -t 2 -P same "
                   f"-C {CONGESTION} -R blake3")
        cells = {"nginx": lambda: m.baseline_figures(receive)}
        if m.BASELINE:
            cells["baseline"] = m.baseline
        cells |= {"origin": ours("origin"), "spread": ours("spread")}
        rows = m.alternate(cells)
    m.table(rows, ["wall s", "relay CPU s", "loadgen CPU s", "took in"], against="nginx",
            first="sender: nginx, the baseline's, or the relay")


if __name__ == "__main__":
    main()
