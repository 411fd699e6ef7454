"""What the daemon's process has loaded, looked at in a fresh interpreter."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.host import trials
from compression.job import TrialJob
from tests.simulators import models

HEAVY = ["torch", "onnxruntime", "onnx", "numpy"]


@pytest.mark.parametrize("module", ["agent.app", "agent.commandline.agent"])
def test_the_daemon_loads_no_heavy_library(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = json.loads(found.stdout)
    assert [name for name in HEAVY if name in loaded] == []


async def test_onnxruntime_reports_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **models.sample_inputs(model, 4))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    await trials.trial(
        TrialJob(
            candidate_path=str(model), original_path=str(model), rounds=3, seconds=1,
            inputs_path=str(tmp_path / "x.npz"),
        )
    )  # fmt: skip
    # Its collector begins with a session file there, at import.
    assert not list((tmp_path / "tmp").glob(".ses*"))
