"""What a worker has found by the time that it is stopped: a ladder all the same.

A job's minutes run by the clock on the wall, and a worker at idle priority gets what a busy device
leaves. What was tried by then is on the disk, measured as ever; it is not thrown away because the
rest was not come to.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from agent.host import compressor
from agent.host.breaks import Breaks
from compression import durable, judging, ladder
from compression.errors import BadInputs, CannotRun, OutOfBudget
from compression.findings import Ladder, ModelRef, Rejected, Rung
from compression.job import CompressJob, Recipe, Sha256
from compression.stream import Progress, Tried
from compression.words import Words

FILE = "so-far.json"
_LEFT = Recipe(label="what was not come to")


class Found(Words):
    """What one job has found so far; `job` is the hash of what it was asked."""

    job: Sha256
    rungs: tuple[Rung, ...] = ()
    rejected: tuple[Rejected, ...] = ()


async def compress(
    job: CompressJob,
    *,
    memory_mib: float,
    on_progress: Callable[[Progress], None],
    on_tried: Callable[[Tried], None],
    breaks: Breaks | None = None,
) -> Ladder:
    """Run one job to its ladder, as `compressor.compress`; where its time or memory ends before,
    or its worker dies, to the ladder of what it has found, if any of that meets the budget.

    What it finds is kept beside the ladder, so that the same job finds it again after a restart.

    Raises:
        as `compressor.compress` does.
    """
    so_far = SoFar(job)

    def hear(tried: Tried) -> None:
        so_far.add(tried)
        on_tried(tried)

    try:
        found = await compressor.compress(
            job, memory_mib=memory_mib, on_progress=on_progress, on_tried=hear, breaks=breaks
        )
    except (OutOfBudget, CannotRun) as error:
        left = Rejected(recipe=_LEFT, reason=f"not tried: {error}", tried=False)
        best = await asyncio.to_thread(so_far.ladder, left)
        if best is None:
            raise
        try:
            ladder.save(best, Path(job.out_dir))
        except OSError:
            raise error from None
        on_tried(Tried(untried=(left,)))
        found = best
    so_far.forget()
    return found


class SoFar:
    """What a job has found so far, in a file beside its ladder."""

    def __init__(self, job: CompressJob) -> None:
        """Begin with what an earlier run of the same job has left."""
        self._job, self._folder = job, Path(job.out_dir)
        self._path = self._folder / FILE
        self._found = _read(self._path, _identity(job))

    def add(self, tried: Tried) -> None:
        """Keep one more rung, or the reason against candidates."""
        against = [*tried.untried, *([tried.rejected] if tried.rejected else [])]
        again = [one.recipe for one in against]  # a worker that goes on tells some once more
        rejected = [*(one for one in self._found.rejected if one.recipe not in again), *against]
        self._found = self._found.model_copy(update={"rejected": tuple(rejected)})
        if tried.rung is None:
            return
        rungs = (*_others(self._found.rungs, [tried.rung]), tried.rung)
        self._found = self._found.model_copy(update={"rungs": rungs})
        with contextlib.suppress(OSError):  # costs what a restart would find, not the job
            durable.replace(self._path, self._found.to_json())

    def ladder(self, left: Rejected) -> Ladder | None:
        """The ladder of what was found, and of what an earlier one holds; `left`: why no more.

        None where no variant of this job's own meets the budget.
        """
        job, own = self._job, [rung for rung in self._found.rungs if self._whole(rung)]
        original = next((rung for rung in own if not rung.recipe.passes), None)
        if original is None or not any(rung.meets_budget for rung in own if rung.recipe.passes):
            return None
        model = ModelRef(name=job.model_name, sha256=original.sha256)
        return ladder.build(
            model=model,
            device_class=job.device_class,
            budget=judging.whole(job.budget),
            rungs=[*own, *_others(self._earlier(model), own)],
            rejected=[*self._found.rejected, left],
        )

    def forget(self) -> None:
        """The job has its ladder."""
        with contextlib.suppress(OSError):  # it stays, and is the same job's alone
            self._path.unlink(missing_ok=True)

    def _earlier(self, model: ModelRef) -> list[Rung]:
        """The rungs of the ladder that lies here, where they are of this model on this device."""
        try:
            known = ladder.load(self._folder)
        except BadInputs:
            return []
        if (known.model.sha256, known.device_class) != (model.sha256, self._job.device_class):
            return []
        return [rung for rung in known.rungs if self._whole(rung)]

    def _whole(self, rung: Rung) -> bool:
        """Whether its file is what was measured; the next job sweeps what it does not know."""
        try:
            with (self._folder / rung.file).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == rung.sha256
        except OSError:
            return False


def _others(rungs: Sequence[Rung], than: Sequence[Rung]) -> list[Rung]:
    """Those of other files than these."""
    known = {rung.sha256 for rung in than}
    return [rung for rung in rungs if rung.sha256 not in known]


def _identity(job: CompressJob) -> Sha256:
    """What is asked, apart from how long it may take and what serves meanwhile."""
    asked = job.model_copy(update={"minutes": 1.0, "keep": ()})
    return hashlib.sha256(asked.to_json()).hexdigest()


def _read(path: Path, job: Sha256) -> Found:
    try:
        found = Found.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Found(job=job)
    return found if found.job == job else Found(job=job)
