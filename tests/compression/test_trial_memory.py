"""Peak memory: what the model adds and nothing else, at the largest shape that may come."""

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compression import samples
from compression.findings import Measurement
from compression.job import InputSpec, OutputSpec, TrialJob
from compression.ruler import resident
from compression.stream import Failed
from tests.compression import parent
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> TrialJob:
    """A model that holds four times its input, which may have any number of rows."""
    nodes = [
        helper.make_node("Concat", ["x", "x", "x", "x"], ["c"], axis=1),
        helper.make_node("ReduceMax", ["c"], ["y"], keepdims=0),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", "T", 1024)}, {"y": ()})
    rows = (1, 256, 16)
    samples.write(tmp_path / "i.npz", [{"x": np.ones((1, n, 1024), "f4")} for n in rows])
    return TrialJob(
        candidate_path=str(path), original_path=str(path), rounds=3, seconds=0.5,
        inputs_path=str(tmp_path / "i.npz"), outputs=(OutputSpec(name="y"),),
    )  # fmt: skip


def largest(*shape: int) -> tuple[InputSpec, ...]:
    return (InputSpec(name="x", dtype="float32", shape=(-1, -1, 1024), largest_shape=shape),)


def measured(job: TrialJob, inputs: tuple[InputSpec, ...] = ()) -> Measurement:
    found = parent.run_trial(job.model_copy(update={"inputs": inputs}))
    assert isinstance(found, Measurement), found
    return found


def test_the_largest_sample_decides_where_no_larger_shape_is_known(job: TrialJob) -> None:
    assert "load and run of x [1, 256, 1024]" in measured(job).method["memory"]
    same = measured(job, largest(1, 16, 1024)).method["memory"]
    assert "load and run of x [1, 256, 1024]" in same


def test_a_larger_shape_that_may_come_decides(job: TrialJob) -> None:
    small, large = measured(job), measured(job, largest(1, 8192, 1024))
    assert "load and run of x [1, 8192, 1024]" in large.method["memory"]
    # 32 MiB of input instead of 1, and four times that inside; the arena may round up.
    assert large.peak_memory_mib - small.peak_memory_mib > 31 + 4 * 31
    assert large.method["shapes"] == small.method["shapes"]  # latency stays with the samples


def test_a_largest_shape_that_the_model_does_not_take_is_refused(job: TrialJob) -> None:
    found = parent.run_trial(job.model_copy(update={"inputs": largest(1, 8192, 4096)}))
    assert isinstance(found, Failed)
    assert found.kind == "bad-inputs"
    assert found.message == (
        "cannot run input 'x' at its largest shape [1, 8192, 4096]: the model wants "
        "[-1, -1, 1024] (-1: any)"
    )


def test_the_pages_of_libraries_are_mapped_in_a_fork_before_anything_is_counted() -> None:
    pages = resident.mapped_file_pages()
    assert pages
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = resident.kib("RssFile")
        resident.touch(pages)
        os.write(write_end, f"{before} {resident.kib('RssFile')}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    before, after = (int(word) for word in os.read(read_end, 100).split())
    os.close(read_end)
    os.close(write_end)
    assert before < after
    assert after >= 0.9 * len(pages) * os.sysconf("SC_PAGE_SIZE") / 1024


def test_a_peak_that_is_past_is_not_counted_again() -> None:
    size = 64 * 2**20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * size)
    assert resident.kib("VmHWM") - resident.kib("VmRSS") > size / 1024 / 2
    if not resident.reset_peak():
        pytest.skip("clear_refs is not allowed here")
    assert resident.kib("VmHWM") - resident.kib("VmRSS") < size / 1024 / 4
    assert resident.kib("NoSuchField") == 0
