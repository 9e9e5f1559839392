"""`studies serve` under load, beside `mlflow models serve` of the same export: requests/s, p50 and p99 on loopback.

A second process asks with a few connections that stay open, a bounded number of times; single rows, then batches of
100. MLflow serves the export as studies registers it.

    python -m benchmarks.serving
    python -m benchmarks.serving --requests 2000 --clients 4 --record
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.predicting import make_export
from benchmarks.record import record, table
from studies import registry

ROW = {"x0": 0.5, "x1": -1.0, "x2": 0.1, "x3": 2.0, "x4": 0.0, "city": "Rome"}
CLIENT = """
import http.client, json, sys, threading, time
port, path, body, n, clients = json.load(sys.stdin)
seconds = []
def ask(k):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(k):
        began = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        seconds.append(time.perf_counter() - began)
    connection.close()
threads = [threading.Thread(target=ask, args=(n // clients,)) for _ in range(clients)]
ask(20)
seconds.clear()
began = time.perf_counter()
for thread in threads: thread.start()
for thread in threads: thread.join()
took = time.perf_counter() - began
seconds.sort()
assert len(seconds) == n // clients * clients
print(json.dumps([len(seconds) / took, seconds[len(seconds) // 2] * 1e3, seconds[int(len(seconds) * 0.99)] * 1e3]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(words: list[str], port: int, health: str) -> Iterator[None]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where MLflow looks for uvicorn
    process = subprocess.Popen(
        words,
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=1):
                break
            time.sleep(0.5)
        else:
            raise SystemExit(f"{words[:5]} does not answer")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(30)


def serve_words(export: str, port: int) -> list[str]:
    """The command that serves an export."""
    return [sys.executable, "-m", "studies", "serve", export, "--port", str(port)]


def mlflow_words(model: str, port: int) -> list[str]:
    """The command by which MLflow serves a saved model, here and by one process."""
    address = ["-h", "127.0.0.1", "-p", str(port), "--env-manager", "local", "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, *address]


def ask(port: int, path: str, body: object, n: int, clients: int) -> list[float]:
    """Requests/s, and p50 and p99 in ms."""
    given = json.dumps([port, path, json.dumps(body), n, clients])
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT], input=given, capture_output=True, text=True, check=True, timeout=300
    )
    found: list[float] = json.loads(answer.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    lines = []
    with tempfile.TemporaryDirectory() as name:
        export = make_export(Path(name))
        registry.save_model(Path(name) / "model", export, None)
        port = free_port()
        serve, rival = serve_words(str(export), port), mlflow_words(f"{name}/model", port)
        for side, words, health, path in (
            ("studies serve", serve, "/health", "/predict"), ("mlflow models serve", rival, "/ping", "/invocations"),
        ):  # fmt: skip
            with running(words, port, health):
                for n in (1, 100):
                    rows = [ROW] * n
                    body: object = {"dataframe_records": rows} if side.startswith("mlflow") else rows
                    rate, p50, p99 = ask(port, path, body, options.requests, options.clients)
                    lines.append([side, n, f"{rate:,.0f}", f"{n * rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}"])
                    print(lines[-1], flush=True)
    body_text = table(["side", "rows a request", "requests/s", "rows/s", "p50, ms", "p99, ms"], lines)
    print(body_text)
    if options.record:
        record("Rows over HTTP", f"{options.requests} requests by {options.clients} connections.\n\n{body_text}")


if __name__ == "__main__":
    main()
