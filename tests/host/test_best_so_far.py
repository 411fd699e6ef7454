"""A worker that gets no processor, or dies, before its job is done: what it found is taken."""

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.host import best_so_far, compressor, talking
from agent.host.best_so_far import FILE, Found, SoFar
from compression import ladder
from compression.errors import OutOfBudget
from compression.findings import Ladder, ModelRef, Rejected, Rung
from compression.job import Budget, CompressJob, DeviceClass, PassSpec, Recipe, Runtime
from compression.stream import Progress, Tried
from tests.simulators import models
from tests.simulators.world import measured

DEVICE = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="1.31.1")
STORED = Recipe(label="stored", passes=(PassSpec(name="stored", parameters={"least_bytes": 1}),))
ZEROS = PassSpec(name="unstructured_pruning", parameters={"sparsity": 0.5})
PACKED = PassSpec(name="packed")
SMALL = Recipe(label="small", passes=(*STORED.passes, PACKED))
SMALLER = Recipe(label="smaller", passes=(ZEROS, *STORED.passes, PACKED))
"""None beats another, so that each gets its trials: the worker waits for them."""
LEFT = Rejected(recipe=Recipe(label="left"), reason="no time", tried=False)
Act = Callable[[Tried], None]


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    model = models.mlp(tmp_path / "mlp.onnx", hidden=2000)
    inputs = tmp_path / "x.npz"
    np.savez(inputs, **models.sample_inputs(model, 40))
    (tmp_path / "out").mkdir()
    return CompressJob(
        model_name="m", model_path=str(model), calibration_path=str(inputs), device_class=DEVICE,
        out_dir=str(tmp_path / "out"), recipes=(SMALL, SMALLER), budget=Budget(min_agreement=0.5),
        minutes=5,
    )  # fmt: skip


class Clock:
    """The deadline of the worker of now: the test says when it is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deadline: asyncio.Timeout | None = None
        limited = compressor._limited

        @contextlib.asynccontextmanager
        async def seen(job: CompressJob, child: talking.Child) -> AsyncIterator[asyncio.Timeout]:
            async with limited(job, child) as deadline:
                self.deadline = deadline
                yield deadline

        monkeypatch.setattr(compressor, "_limited", seen)

    def over(self) -> None:
        assert self.deadline is not None
        self.deadline.reschedule(asyncio.get_running_loop().time())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def the_worker() -> int:
    """The worker that runs now."""
    (found,) = [
        child.pid for child in psutil.Process().children()
        if "compression.worker" in " ".join(child.cmdline())
    ]  # fmt: skip
    return found


def starving(clock: "Clock") -> Callable[[], None]:
    """The worker gets nothing of any processor from now on, and its time goes by."""

    def starve() -> None:
        os.kill(the_worker(), signal.SIGSTOP)
        clock.over()

    return starve


def at_the_first_variant(act: Callable[[], None]) -> Act:
    def hear(tried: Tried) -> None:
        if tried.rung is not None and tried.rung.recipe.passes:
            act()

    return hear


async def compressed(job: CompressJob, *, tried: Act = lambda _: None, begun: bool = False,
                     clock: Clock | None = None) -> Ladder:  # fmt: skip
    def progress(_: Progress) -> None:
        if begun and clock:
            starving(clock)()

    return await best_so_far.compress(job, memory_mib=1024, on_progress=progress, on_tried=tried)


def an_earlier_ladder(job: CompressJob) -> Rung:
    """A ladder in the job's folder, of another budget: its variant, which serves."""
    out, content = Path(job.out_dir), b"serves"
    (out / "rung-old.onnx").write_bytes(content)
    serves = Rung(
        file="rung-old.onnx", sha256=hashlib.sha256(content).hexdigest(), recipe=STORED,
        runtime=Runtime(), measurement=measured(agreement=0.4), meets_budget=True,
    )  # fmt: skip
    lost = serves.model_copy(update={"file": "rung-lost.onnx", "sha256": "0" * 64})
    original = hashlib.sha256(Path(job.model_path).read_bytes()).hexdigest()
    model = ModelRef(name="m", sha256=original)
    earlier = Ladder(model=model, device_class=DEVICE, budget=Budget(), rungs=(serves, lost))
    ladder.save(earlier, out)
    return serves


async def test_a_worker_that_gets_no_processor_any_more_leaves_the_best_so_far(
    job: CompressJob, clock: Clock
) -> None:
    heard: list[Tried] = []
    serves = an_earlier_ladder(job)

    def hear(tried: Tried) -> None:
        heard.append(tried)
        at_the_first_variant(starving(clock))(tried)

    found = await compressed(job.model_copy(update={"keep": (serves.file,)}), tried=hear)
    best, *others = found.rungs
    assert best.meets_budget
    assert best.recipe in job.recipes
    file = Path(job.out_dir) / best.file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == best.sha256
    assert best.measurement.agreement.split == "held-out"
    # What the ladder before held and still is there stays on it, judged by the budget of now.
    assert {rung.recipe.label for rung in others} == {"original", "stored"}
    assert [rung.meets_budget for rung in others if rung.sha256 == serves.sha256] == [False]
    assert found == ladder.load(Path(job.out_dir)), "what is told is what is on the disk"
    (left,) = heard[-1].untried
    assert left in found.rejected
    assert "cannot finish compressing m: stopped after" in left.reason
    assert "had the processor for" in left.reason
    assert not (Path(job.out_dir) / FILE).exists()


async def test_a_worker_that_dies_leaves_the_best_so_far(job: CompressJob) -> None:
    found = await compressed(
        job, tried=at_the_first_variant(lambda: os.kill(the_worker(), signal.SIGKILL))
    )
    assert len(found.rungs) == 2
    assert "the worker died, killed by SIGKILL" in found.rejected[-1].reason


async def test_its_minutes_begin_with_its_first_word(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_s: list[float] = []
    begin = compressor._begin

    def seen(deadline: asyncio.Timeout, job: CompressJob) -> None:
        before_s = deadline.when() or 0.0
        begin(deadline, job)
        later_s.append((deadline.when() or 0.0) - before_s)
        raise OutOfBudget("enough")

    monkeypatch.setattr(compressor, "_begin", seen)
    with pytest.raises(OutOfBudget, match="enough"):
        await compressed(job)
    assert len(later_s) == 1
    assert later_s[0] > 0


@pytest.mark.prove
async def test_where_the_disk_takes_no_ladder_the_end_is_told_as_ever(
    job: CompressJob, clock: Clock
) -> None:
    for name in (FILE, ladder.FILE):  # nothing can take the place of a folder
        (Path(job.out_dir) / name).mkdir()
    with pytest.raises(OutOfBudget, match="stopped after"):
        await compressed(job, tried=at_the_first_variant(starving(clock)))


async def test_where_nothing_was_found_the_end_is_told_as_ever(
    job: CompressJob, clock: Clock
) -> None:
    with pytest.raises(OutOfBudget, match=r"stopped after 360 s, in which the worker had .* \d+ s"):
        await compressed(job, begun=True, clock=clock)
    assert not (Path(job.out_dir) / ladder.FILE).exists()


async def test_what_was_found_before_a_restart_counts_for_the_same_job_while_it_is_whole(
    job: CompressJob, clock: Clock
) -> None:
    met = asyncio.Event()
    work = asyncio.create_task(compressed(job, tried=at_the_first_variant(met.set)))
    await met.wait()
    work.cancel()  # the agent ends
    await asyncio.wait({work})
    note = Path(job.out_dir) / FILE
    said = note.read_bytes()
    told = Found.model_validate_json(said)
    (best,) = (one for one in told.rungs if one.recipe.passes)
    file = Path(job.out_dir) / best.file
    whole = file.read_bytes()

    missing = best.model_copy(update={"meets_budget": False})
    note.write_bytes(told.model_copy(update={"rungs": (told.rungs[0], missing)}).to_json())
    assert SoFar(job).ladder(LEFT) is None, "no variant meets the budget"
    note.write_bytes(said)
    other = job.model_copy(update={"budget": Budget(min_agreement=0.6)})
    assert SoFar(other).ladder(LEFT) is None
    for damage in (lambda: file.write_bytes(whole[:-1] + b"!"), file.unlink):
        damage()
        assert SoFar(job).ladder(LEFT) is None
    file.write_bytes(whole)
    note.write_bytes(said[:-9])
    assert SoFar(job).ladder(LEFT) is None
    note.write_bytes(said)

    less = job.model_copy(update={"minutes": 3.0, "keep": ("rung-0.onnx",)})
    found = await compressed(less, begun=True, clock=clock)
    assert best.sha256 in {rung.sha256 for rung in found.rungs}
