"""What cutting channels takes on a device: memory of the largest process, CPU seconds by stage.

Run by `./dev prove benchmarks -k pruning_stages`; `TRIMTAB_PRUNING_INPUTS` is how many inputs it is
fitted to, 256 if nobody says. Each model in a process of its own that judges nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import mobile_cnn
from tests.benchmarks.test_pruning import QUIET, fixture

STAGES = Path(__file__).with_name("pruning_stages.py")
LEAST_MB, MOST_MB = 19, 23


def mobile(folder: Path, count: int) -> Path:
    path = folder / "model.onnx"
    mobile_cnn.write(path)
    assert LEAST_MB < path.stat().st_size / 1e6 < MOST_MB
    np.savez(folder / "inputs.npz", x=np.stack([mobile_cnn.picture(at) for at in range(count)]))
    return path


def recogniser(folder: Path, count: int) -> Path:
    case = fixture("recogniser")
    np.savez(folder / "inputs.npz", **case.calibrating(count))
    return case.onnx


MODELS: dict[str, tuple[Callable[[Path, int], Path], float]] = {
    "mobile": (mobile, 500.0),
    "recogniser": (recogniser, 400.0),
}
"""How each is made, and the most MiB that its process may take."""


@pytest.mark.prove
@pytest.mark.parametrize("name", MODELS)
def test_what_a_cut_takes_on_a_device(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, most_mib = MODELS[name]
    model = make(tmp_path, int(os.environ.get("TRIMTAB_PRUNING_INPUTS", "256")))
    done = subprocess.run(
        [sys.executable, str(STAGES), str(model), str(tmp_path / "inputs.npz")],
        capture_output=True, text=True, check=True, env={**os.environ, **QUIET},
    )  # fmt: skip
    found = json.loads(done.stdout)
    with capsys.disabled():
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in found["cpu_s"].items())
        print(
            f"\n{name}: {found['inputs']} inputs, {found['macs']:.2f} of the products left, "
            f"{found['peak_mib']:.0f} MiB; CPU s: {stages}"
        )
    assert found["macs"] <= 0.5
    assert not found["torch"]
    assert found["peak_mib"] < most_mib
