"""100 MiB pulled on loopback, beside curl from nginx and beside hashing and writing them.

Ratios, because this is run on machines that do other things too: the three take turns. Run by
`./dev prove benchmarks -k pull`; about two minutes.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import Settings
from agent.link.mqtt import Link
from agent.protocol.topics import Topics
from deploy.packing import Packing
from tests.simulators.broker import RunningBroker, free_port, mosquitto_broker, needs_mosquitto

ROUNDS = 7
DEFAULT_WINDOW = Settings.model_fields["window_topics"].default
SIZE_BYTES = 100 * 2**20
BLOCK_BYTES = 120 * 1024
MOST_GROWTH_MIB = 4.0
_NGINX = """\
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[int]:
    """nginx that serves `folder`; its port."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None or shutil.which("curl") is None:
        pytest.skip("needs nginx and curl: apt-get install nginx-light curl")
    port = free_port()
    folder.chmod(0o755)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    process = subprocess.Popen([binary, "-c", str(folder / "nginx.conf"), *user])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def put_on(broker: RunningBroker, path: Path) -> bytes:
    """Publish one file; its FileRef as JSON."""
    packing = Packing(path, encoding="raw", chunk_bytes=None)
    async with Link(broker.settings(), client_id="publisher", clean=True) as link:
        await link.connected(15)
        for name, sent in packing:
            await link.publish(Topics().blob(name), sent, retain=True)
    assert packing.ref is not None
    return packing.ref.to_json()


def curled(port: int, model: Path, folder: Path) -> float:
    """Seconds that curl takes; it flushes nothing and checks nothing."""
    begun_s = time.perf_counter()
    subprocess.run(
        ["curl", "-sf", "-o", str(folder / "curled"), f"http://127.0.0.1:{port}/{model.name}"],
        check=True,
    )
    seconds = time.perf_counter() - begun_s
    assert (folder / "curled").stat().st_size == SIZE_BYTES
    return seconds


def hashed_and_written(model: Path, folder: Path) -> float:
    """Seconds to hash the bytes block by block, write them and flush them once."""
    blocks = model.read_bytes()
    begun_s = time.perf_counter()
    with (folder / "written").open("wb") as file:
        for at in range(0, len(blocks), BLOCK_BYTES):
            block = blocks[at : at + BLOCK_BYTES]
            hashlib.sha256(block).digest()
            file.write(block)
        file.flush()
        os.fdatasync(file.fileno())
    return time.perf_counter() - begun_s


def pulled(port: int, ref: Path, folder: Path, window: int) -> dict[str, float]:
    """What one pull cost, in a process of its own."""
    target = folder / f"pull-{window}"
    shutil.rmtree(target, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.receiver", str(port), str(ref), str(target),
         str(window)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


@needs_mosquitto
def test_100_mib_pulled_beside_curl_and_beside_hashing_and_writing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(os.urandom(SIZE_BYTES))
    ref = tmp_path / "ref.json"
    runs: dict[str, list[float]] = {"curl": [], "hash and write": []}
    costs: dict[int, list[dict[str, float]]] = {8: [], DEFAULT_WINDOW: [], 32: []}
    with mosquitto_broker() as broker, nginx(tmp_path) as port:
        ref.write_bytes(asyncio.run(put_on(broker, model)))
        for _ in range(ROUNDS):
            runs["curl"].append(curled(port, model, tmp_path))
            runs["hash and write"].append(hashed_and_written(model, tmp_path))
            for window, found in costs.items():
                found.append(pulled(broker.port, ref, tmp_path, window))
    with capsys.disabled():
        print(
            f"\n{SIZE_BYTES / 2**20:.0f} MiB on loopback, {ROUNDS} rounds in turns, "
            f"load {os.getloadavg()[0]:.1f}; median (least) seconds, ratios of medians"
        )
        for name, seconds in runs.items():
            print(f"  {name:15} {_figures(seconds)}")
        for window, found in costs.items():
            _show(window, found, runs)
    growth_kib = [cost["rss_growth_kib"] for cost in costs[DEFAULT_WINDOW]]
    assert max(growth_kib) / 1024 <= MOST_GROWTH_MIB
    assert all(cost["written_bytes"] <= 1.01 * SIZE_BYTES for cost in costs[DEFAULT_WINDOW])


def _show(window: int, found: list[dict[str, float]], runs: dict[str, list[float]]) -> None:
    def of(name: str) -> list[float]:
        return [cost[name] for cost in found]

    median_s = statistics.median(of("seconds"))
    ratios = ", ".join(
        f"{statistics.median(seconds) / median_s:.2f} of {name}" for name, seconds in runs.items()
    )
    print(
        f"  pull, window {window:2} {_figures(of('seconds'))}  speed {ratios};  "
        f"CPU {statistics.median(of('cpu_s')):.2f} s, "
        f"RSS +{max(of('rss_growth_kib')) / 1024:.1f} MiB, "
        f"written {max(of('written_bytes')) / SIZE_BYTES:.3f}, "
        f"sent {max(of('sent_bytes')) / SIZE_BYTES:.4f} of the model's bytes"
    )


def _figures(seconds: list[float]) -> str:
    median_s, least_s = statistics.median(seconds), min(seconds)
    return f"{median_s:.2f} ({least_s:.2f}) s, {SIZE_BYTES / 1e6 / median_s:.0f} MB/s"
