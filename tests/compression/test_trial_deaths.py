"""A trial that dies is a measurement too: illegal instruction, memory, time, in words."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from agent.host import children, trials
from compression import errors
from compression.job import OutputSpec, TrialJob
from compression.ruler import endings
from compression.stream import Failed
from tests.compression import parent
from tests.simulators import models

ILLEGAL = """
import ctypes, mmap, onnxruntime, platform
code = {"x86_64": b"\\x0f\\x0b", "aarch64": bytes(4)}[platform.machine()]  # ud2, udf
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
no_such = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
real = onnxruntime.InferenceSession
class Session(real):
    def run(self, names, feeds, *rest):
        if str(self._model_path).endswith("/illegal.onnx"):
            no_such()
        return super().run(names, feeds, *rest)
onnxruntime.InferenceSession = Session
"""
"""Stands for a build of the runtime with a kernel that this CPU cannot run."""


def job_of(path: Path, tmp_path: Path, feeds: dict[str, np.ndarray], **fields) -> TrialJob:
    np.savez(tmp_path / "i.npz", **feeds)
    given = {
        "candidate_path": str(path), "original_path": str(path),
        "inputs_path": str(tmp_path / "i.npz"),
        "outputs": (OutputSpec(name="y", kind="tensor"),), "rounds": 3, "seconds": 1,
    }  # fmt: skip
    return TrialJob(**(given | fields))


def endless(tmp_path: Path) -> TrialJob:
    """A Loop of 2**62 steps over a real multiplication."""
    body = helper.make_graph(
        [helper.make_node("Mul", ["c", "c"], ["c2"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("c2", TensorProto.FLOAT, ["N", 4])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["steps", "yes", "x"], ["y"], body=body)]
    weights = {"steps": np.array(2**62), "yes": np.array(True)}
    path = models.save(tmp_path / "endless.onnx", nodes, weights, {"x": ("N", 4)}, {"y": ("N", 4)})
    return job_of(path, tmp_path, {"x": np.ones((3, 4), "f4")})


def hungry(tmp_path: Path, *, mib: int, name: str = "hungry.onnx") -> TrialJob:
    """A sum over one number expanded to `mib` MiB."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0),
    ]
    weights = {"shape": np.array([mib, 2**18], np.int64)}
    path = models.save(tmp_path / name, nodes, weights, {"x": (1, 1)}, {"y": ()})
    return job_of(path, tmp_path, {"x": np.ones((3, 1), "f4")})


async def cannot_run(job: TrialJob) -> str:
    with pytest.raises(errors.CannotRun) as caught:
        await trials.trial(job)
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_an_illegal_instruction_is_told_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ILLEGAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = models.mlp(tmp_path / "illegal.onnx")
    job = job_of(path, tmp_path, models.sample_inputs(path, 3))
    assert await cannot_run(job) == (
        "cannot run illegal.onnx here: its process was killed by SIGILL "
        "(an instruction that this CPU lacks)"
    )
    # The original is named where it is the one that dies.
    fine = models.mlp(tmp_path / "fine.onnx", seed=1)
    text = await cannot_run(job.model_copy(update={"candidate_path": str(fine)}))
    assert text.startswith("cannot run illegal.onnx here")


async def test_memory_beyond_a_limit_is_told_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_LIMITS", children.Limits(data_mib=700))
    text = await cannot_run(hungry(tmp_path, mib=1024))
    assert text.startswith("cannot run hungry.onnx here: out of memory (")


async def test_memory_that_no_device_has_is_told(tmp_path: Path) -> None:
    text = await cannot_run(hungry(tmp_path, mib=2**30))
    assert text.startswith("cannot run hungry.onnx here: out of memory (")


async def test_a_model_that_never_ends_is_killed_by_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "GRACE_S", 1.0)
    assert await cannot_run(endless(tmp_path)) == "cannot run here: no result after 4 s"


def test_a_model_that_never_ends_is_named_by_the_trial_itself(tmp_path: Path) -> None:
    script = (
        "import sys; from compression import trial; from compression.ruler import footprint;"
        "footprint.GRACE_S = 0.5;"
        "sys.exit(trial.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(endless(tmp_path).to_json() + b"\n")
        child.stdin.flush()
        found = Failed.model_validate_json(child.stdout.readline())
        assert not descendants(child.pid)
    assert found.kind == "cannot-run"
    assert found.message == "cannot run endless.onnx here: no end of its first runs in 1.5 s"


def descendants(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_measuring_child_that_is_killed_is_told_with_the_likely_cause(
    tmp_path: Path, sent: signal.Signals
) -> None:
    with parent.start("compression.trial") as trial:
        assert trial.stdin is not None
        assert trial.stdout is not None
        trial.stdin.write(endless(tmp_path).to_json() + b"\n")
        trial.stdin.flush()
        deadline = time.monotonic() + 30
        while not (forked := descendants(trial.pid)) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(forked[0], sent)
        found = Failed.model_validate_json(trial.stdout.readline())
        trial.stdin.close()
    assert found.kind == "cannot-run"
    assert found.message == (
        f"cannot run endless.onnx here: its process was killed by {sent.name} "
        f"({endings.CAUSES[sent]})"
    )


async def test_a_trial_that_dies_beside_the_original_is_told(tmp_path: Path) -> None:
    job = endless(tmp_path)
    trial = asyncio.ensure_future(trials.trial(job))
    found: list[int] = []
    deadline = time.monotonic() + 30
    while not found and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
        # The trial itself, seen from the forked child that it waits for.
        found = [pid for pid in descendants(os.getpid()) if descendants(pid)]
    os.kill(found[0], signal.SIGKILL)
    with pytest.raises(errors.CannotRun, match="cannot run here: killed by SIGKILL"):
        await trial


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: os._exit(3), "its process ended with exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), "its process was killed by SIGUSR1"),
        (lambda: os.kill(os.getpid(), 40), "its process was killed by signal 40"),
    ],
)
def test_any_end_has_words(make: Callable[[], None], text: str) -> None:
    pid = os.fork()
    if pid == 0:
        make()
    _, status = os.waitpid(pid, 0)
    assert endings.death(status) == text
