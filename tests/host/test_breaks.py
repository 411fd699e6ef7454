"""A worker that is stopped while others need the device: at once, its clock too, and to the end."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.host import breaks as breaking
from agent.host import compressor
from agent.host.breaks import Breaks, Outlasted, unless
from compression import working
from compression.findings import Ladder
from compression.job import CompressJob, DeviceClass, PassSpec, Recipe
from tests.simulators import models
from tests.simulators.waiting import until

DEVICE = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="1.31.1")
STORED = Recipe(label="stored", passes=(PassSpec(name="stored", parameters={"least_bytes": 1}),))


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    model = models.mlp(tmp_path / "mlp.onnx")
    inputs = tmp_path / "x.npz"
    np.savez(inputs, **models.sample_inputs(model, 40))
    (tmp_path / "out").mkdir()
    return CompressJob(
        model_name="m", model_path=str(model), calibration_path=str(inputs), device_class=DEVICE,
        out_dir=str(tmp_path / "out"), recipes=(STORED,), minutes=5,
    )  # fmt: skip


def status(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status())
    return "gone"


def running(count: int, breaks: Breaks) -> Callable[[], bool]:
    return lambda: len(breaks.ours) == count


async def whole(job: CompressJob, breaks: Breaks) -> Ladder:
    return await compressor.compress(job, memory_mib=1024, breaks=breaks)


async def test_nothing_is_started_before_the_first_break_ends(job: CompressJob) -> None:
    breaks = Breaks()
    compressing = asyncio.create_task(whole(job, breaks))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not breaks.ours
    compressing.cancel()
    await asyncio.wait({compressing})


async def test_worker_and_trial_make_way_and_the_job_ends_as_it_would_have(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = Breaks()
    breaks.end()
    compressing = asyncio.create_task(whole(job, breaks))
    await until(running(2, breaks), what="worker and trial", within_s=60)
    worker, trial = sorted(breaks.ours)
    breaks.begin()
    await until(lambda: status(worker) == "stopped", what="a stopped worker")
    await until(lambda: status(trial) == "gone", what="the end of the trial")
    breaks.end()
    await until(running(2, breaks), what="the trial anew", within_s=60)
    assert worker in breaks.ours
    # A break beyond all patience: the worker's memory is given back.
    monkeypatch.setattr(breaking, "LONG_S", 0.01)
    breaks.begin()
    await until(lambda: status(worker) == "gone", what="the end of the worker")
    monkeypatch.undo()
    breaks.end()
    ladder = await compressing
    assert {rung.recipe.label for rung in ladder.rungs} == {"original", "stored"}
    assert not breaks.ours


@pytest.mark.prove
async def test_a_worker_that_dies_in_a_break_is_begun_anew(job: CompressJob) -> None:
    breaks = Breaks()
    breaks.end()
    compressing = asyncio.create_task(whole(job, breaks))
    await until(running(1, breaks), what="the worker", within_s=60)
    (worker,) = breaks.ours
    breaks.begin()
    await until(lambda: status(worker) == "stopped", what="a stopped worker")
    psutil.Process(worker).kill()  # as the kernel does when memory ends
    await until(lambda: not breaks.ours, what="its death noticed", within_s=30)
    breaks.end()
    assert len((await compressing).rungs) == 2


PARENT = """
import asyncio, sys
from agent.host import compressor
from agent.host.breaks import Breaks
from compression.job import CompressJob

async def main():
    breaks = Breaks()
    breaks.end()
    job = CompressJob.model_validate_json(sys.argv[1])
    begun = asyncio.Event()
    compressing = compressor.compress(
        job, memory_mib=1024, breaks=breaks, on_progress=lambda _: begun.set()
    )
    work = asyncio.create_task(compressing)
    await begun.wait()
    (worker, *_) = sorted(breaks.ours)
    breaks.begin()
    print(worker, flush=True)
    await work

asyncio.run(main())
"""


async def test_a_stopped_worker_does_not_outlive_its_parent(job: CompressJob) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, job.to_json().decode(),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout
    worker = int(await parent.stdout.readline())
    await until(lambda: status(worker) == "stopped", what="a stopped worker")
    parent.kill()
    await parent.wait()
    await until(lambda: status(worker) in {"gone", "zombie"}, what="the end of the worker")


def test_a_clock_stands_still_while_its_process_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_page", None)
    with contextlib.closing(working.Stopped()) as stopped:
        working.follow(stopped.descriptor)
        before_s = working.now_s()
        stopped.add(1000.0)
        stopped.add(500.0)
        assert -1500 <= working.now_s() - before_s < -1400
    assert working.now_s() < before_s, "the page stays ours"


async def test_what_comes_first_decides_and_the_other_is_ended() -> None:
    ended = []
    begun = asyncio.Event()

    async def forever(name: str) -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return 0

    async def soon() -> int:
        await begun.wait()
        return 7

    async def never() -> None:
        await forever("first")

    assert await unless(never(), soon()) == 7
    begun.clear()
    with pytest.raises(Outlasted):
        await unless(begun.wait(), forever("work"))  # type: ignore[arg-type]  # True, not None
    assert ended == ["first", "work"]
