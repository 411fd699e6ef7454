"""Models of which nothing better can be made end with the original, and with the reason."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compression import runtime
from compression.findings import Ladder
from compression.job import Budget, CompressJob
from compression.stream import Done, Failed
from compression.words import Words
from tests.compression import parent
from tests.compression.test_equality import quantized_nodes
from tests.compression.test_reading import apart
from tests.simulators import models


def job_for(path: Path, folder: Path) -> CompressJob:
    np.savez(folder / "inputs.npz", **models.sample_inputs(path, 40))
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return CompressJob(
        model_name="small",
        model_path=str(path),
        calibration_path=str(folder / "inputs.npz"),
        budget=Budget(size_ratio=0.9),
        device_class=parent.HASWELL,
        out_dir=str(out),
        minutes=2,
    )


def ladder_of(said: list[Words]) -> Ladder:
    assert isinstance(said[-1], Done), said[-1]
    return said[-1].ladder


def test_a_quantized_model_is_its_only_rung(tmp_path: Path) -> None:
    nodes, values = quantized_nodes("QDQ")
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, {"y": ("N", 4)})
    found = ladder_of(parent.follow(job_for(path, tmp_path)))
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
    assert (tmp_path / "out" / found.rungs[0].file).read_bytes() == path.read_bytes()
    assert [one.reason for one in found.rejected] == [
        "cannot compress further: the model is quantized already "
        "(1 DequantizeLinear, 1 QuantizeLinear)"
    ]


def test_a_model_with_nothing_to_quantize_says_so_and_needs_no_other_file(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    values = {"w": np.arange(4, dtype=np.float32)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, {"y": ("N", 4)})
    apart(path)
    found = ladder_of(parent.follow(job_for(path, tmp_path)))
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
    assert [one.reason for one in found.rejected] == ["cannot compress: it has no float weights"]
    (tmp_path / "weights.bin").unlink()
    runtime.session(tmp_path / "out" / found.rungs[0].file)


def failure(said: list[Words]) -> Failed:
    assert isinstance(said[-1], Failed), said[-1]
    return said[-1]


def test_a_truncated_model_fails_in_one_line_and_leaves_no_ladder(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    job = job_for(path, tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    failed = failure(parent.follow(job))
    assert (failed.kind, "\n" in failed.message) == ("bad-model", False)
    assert "cannot use model m.onnx: not ONNX, or truncated" in failed.message
    assert nothing_made(tmp_path / "out")


def test_a_model_of_chance_fails_with_the_operator(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 4)}, {"y": ("N", 4)})
    failed = failure(parent.follow(job_for(path, tmp_path)))
    assert failed.kind == "bad-model"
    assert "answers differently each time" in failed.message
    assert "RandomNormalLike" in failed.message
    assert nothing_made(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=64k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_full_or_read_only_output_folder_is_one_clear_error(
    tmp_path: Path, options: str, reason: str
) -> None:
    path = models.cnn(tmp_path / "m.onnx", width=64)
    job = job_for(path, tmp_path)
    with mounted(tmp_path / "out", options):
        failed = failure(parent.follow(job))
        assert failed.kind == "out-of-budget"
        assert reason in failed.message
        assert "\n" not in failed.message
        assert nothing_made(tmp_path / "out")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory at `folder`; only root may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def nothing_made(out: Path) -> bool:
    """Whether a folder holds neither a rung nor a ladder, whole or half."""
    return not [one for one in out.glob("*") if one.is_file()]
