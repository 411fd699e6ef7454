"""`trimtab measure` with what a person knows of the model: kinds of outputs, the largest shape."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.simulators import models


def measure(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = [
        sys.executable, "-P", "-m", "agent", "measure", str(folder / "m.onnx"),
        "--inputs", str(folder / "i.npz"), "--seconds", "1", "--json", *more,
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)


def test_the_largest_shape_and_the_kind_of_output_are_obeyed(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", **models.sample_inputs(path, 9))
    found = measure(tmp_path, "--largest-shape", "x=64x8", "--outputs", "y=embedding")
    assert found.returncode == 0, found.stderr
    figures = json.loads(found.stdout)
    assert "x [64, 8]" in figures["method"]["memory"]
    assert (figures["agreement"]["kind"], figures["agreement"]["guessed"]) == ("embedding", False)


def test_a_largest_shape_that_the_model_cannot_take_is_bad_input(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", **models.sample_inputs(path, 9))
    found = measure(tmp_path, "--largest-shape", "x=64x9")
    assert found.returncode == 2
    assert "cannot run input 'x' at its largest shape [64, 9]" in found.stderr
