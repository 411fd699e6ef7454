"""Loads files in this fresh process for test_sparse.py: how long each takes, and what at most."""

import json
import statistics
import sys
import time
from pathlib import Path

from compression import runtime
from compression.ruler import resident
from tests.simulators import models

ROUNDS = 5


def main(warm: Path, paths: list[Path]) -> dict[str, float]:
    """Load once for the memory, then all in turn for the time.

    Another model comes first, which brings the runtime's own pages in.
    """
    runtime.session(models.mlp(warm))
    resident.reset_peak()
    before = resident.kib("VmRSS")
    session = runtime.session(paths[0])
    found = {"peak_mib": (resident.kib("VmHWM") - before) / 1024}
    del session
    times: dict[Path, list[float]] = {path: [] for path in paths}
    for _ in range(ROUNDS):
        for path, ms in times.items():
            began = time.process_time_ns()
            runtime.session(path)
            ms.append((time.process_time_ns() - began) / 1e6)
    for at, ms in enumerate(times.values()):
        found[f"ms{at}"] = statistics.median(ms)
    return found


if __name__ == "__main__":
    warm_, *paths_ = map(Path, sys.argv[1:])
    print(json.dumps(main(warm_, paths_)))
