"""A peer beside our server: KServe's Python SDK, in a virtual environment of its own."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.beside import Other
from tests.benchmarks.ways import Case
from tests.simulators import environments

REQUIREMENTS = ("kserve==0.21.0", "onnxruntime==1.31.1")
_SCRIPT = Path(__file__).with_name("kserve_peer.py")
_START_S = 300.0


@contextlib.contextmanager
def running(cases: Sequence[Case]) -> Iterator[Other]:
    """Serve the models of the benchmark on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    python = environments.python("serving", REQUIREMENTS)
    paths = json.dumps({case.name: str(case.path) for case in cases})
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        child = subprocess.Popen(
            [str(python), "-P", str(_SCRIPT), str(port), paths], stdout=log, stderr=log, env={}
        )
        try:
            while not _ready(f"http://127.0.0.1:{port}/v2/health/ready"):
                if child.poll() is not None or time.perf_counter() - began > _START_S:
                    log.seek(0)
                    raise RuntimeError(log.read().decode()[-2000:])
                time.sleep(0.02)
            yield Other("KServe", {"TCP": ("127.0.0.1", port)}, child.pid, ("binary",))
        finally:
            child.kill()
            child.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
