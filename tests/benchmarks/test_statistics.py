"""Peak memory of statistics by the number of samples, beside onnxruntime's own calibrators.

On the 10.9 MB text recogniser and rendered lines. Run by `./dev prove benchmarks`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from compression import graph
from tests.benchmarks import calibrators
from tests.fixtures import graphs, renders

COUNTS = (32, 512)
OURS = ("ranges", "histograms", "Gram matrices")


def taken(way: str, model: Path, inputs: Path) -> dict[str, float | str]:
    """What one way took, in a process that has done nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.calibrators", way, str(model), str(inputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    line = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or not line.startswith("{"):
        return {"failed": f"exit code {done.returncode}"}
    found: dict[str, float | str] = json.loads(line)
    return found


def told(found: dict[str, float | str]) -> str:
    """Peak and CPU time, or how it failed and at which peak."""
    if "failed" in found:  # as a rule for the ceiling on its memory
        peak = f" at {found['peak_mib']:.0f} MiB" if "peak_mib" in found else ""
        return f"fails{peak}"
    return f"{found['peak_mib']:7.0f} MiB {found['cpu_s']:6.0f} s CPU"


@pytest.mark.prove
def test_peak_memory_does_not_grow_with_the_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if psutil.virtual_memory().available < (calibrators.CEILING_GIB + 2) * 2**30:
        pytest.skip(f"needs {calibrators.CEILING_GIB + 2} GiB of free memory for the others' sake")
    source = graphs.fetch("ocr-v4-recogniser")
    model = tmp_path / "model.onnx"
    onnx.save(graph.regular(source), model)
    for count in COUNTS:
        np.savez(tmp_path / f"{count}.npz", x=renders.lines(count, seed=count)[0])
    with capsys.disabled():
        print(f"\n{'peak of the process':24}{'imported':>12}", end="")
        print("".join(f"{count:>22} samples   " for count in COUNTS))
        for way in calibrators.WAYS:
            both = [taken(way, model, tmp_path / f"{count}.npz") for count in COUNTS]
            imported = f"{both[0].get('before_mib', 0):8.0f} MiB"
            print(f"{way:24}{imported}" + "".join(f"{told(one):>33}" for one in both), flush=True)
            if way in OURS:
                few, many = (float(one["peak_mib"]) for one in both)
                assert not {"failed"} & (both[0].keys() | both[1].keys())
                assert many < 1.1 * few
