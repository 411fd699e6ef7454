"""Loads one file in this fresh process for test_sparse.py: how long, and what it takes at most."""

import json
import sys
import time
from pathlib import Path

from compression import runtime
from compression.ruler import resident
from tests.simulators import models


def main(path: Path, warm: Path) -> dict[str, float]:
    """Load once, behind another model that has brought the runtime's own pages in."""
    runtime.session(models.mlp(warm))
    resident.reset_peak()
    before = resident.kib("VmRSS")
    began = time.perf_counter()
    session = runtime.session(path)
    ms = (time.perf_counter() - began) * 1e3
    del session
    return {"ms": ms, "peak_mib": (resident.kib("VmHWM") - before) / 1024}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
