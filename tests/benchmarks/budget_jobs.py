"""Runs what the benchmarks of budgets compare: the search, and cuts that leave an even share.

All runs of one model share a folder for each kind of work, so that what one budget has found is
not made again for the next; rungs stay there whatever a later ladder names.
"""

import asyncio
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from agent.device import profile
from agent.host import compressor
from compression import bought, channels, durable, errors, graph, runtime, samples
from compression.calibration.evidence import Evidence
from compression.choosing import studying
from compression.findings import Ladder, Rung
from compression.job import Budget, CompressJob, OutputSpec, PassSpec, Recipe
from compression.latency.layers import INTEGERS
from compression.pruning import costs
from tests.benchmarks.peers import material
from tests.fixtures import wheels
from tests.fixtures.trained import collection

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of the units of each group: what even cuts leave."""
TOGETHER = 4
"""Recipes to a job: no more candidates than these are sure to get a trial."""
STORED = PassSpec(name="stored")
MEMORY_MIB = 4096.0
_CALIBRATING, _EVALUATING = 200, 1000
_ORDER = 64
"""Inputs that say in the study which groups can be cut at all."""


@dataclass(frozen=True)
class Case:
    """A model, what its outputs mean, and inputs: some calibrate and choose, the others report."""

    name: str
    onnx: Path
    calibration: Path
    evaluation: Path
    outputs: tuple[OutputSpec, ...]


@dataclass(frozen=True)
class Run:
    """What one job returned and took. `refused` is set where it could not be done at all."""

    ladder: Ladder | None
    minutes: float
    looks: int
    """Candidates that were made and looked at anew."""
    trials: int
    """Whole models that were measured anew, those that report again counted again."""
    refused: str = ""


def case(name: str) -> Case:
    """The fixture of that name, with files of inputs in the cache."""
    if name in material.MATERIALS:
        found = material.MATERIALS[name]()
        return Case(name, found.model, found.calibration, found.evaluation, found.outputs)
    trained = collection.load(name)
    digest = trained.facts["sha256"][:8]
    paths = [wheels.cache() / f"budgets-{name}-{digest}-{part}.npz" for part in ("calib", "eval")]
    with wheels.locked(f"budgets-{name}"):
        for path, count, seed in zip(
            paths,
            (_CALIBRATING, _EVALUATING),
            (collection.CALIBRATION_SEED, collection.EVALUATION_SEED),
            strict=True,
        ):
            if not path.exists():
                trained.write_inputs(path, count, seed)
    return Case(name, trained.onnx, *paths, trained.outputs)


def searched(one: Case, budget: Budget, folder: Path, *, minutes: float) -> Run:
    """What `trimtab compress` does with this budget, in a folder that keeps every rung."""
    return _done(_job(one, budget, folder, minutes=minutes))


def evenly(one: Case, form: Sequence[PassSpec], folder: Path, *, minutes: float) -> list[Rung]:
    """Every group cut to the same share, for each of SHARES, then `form`; all that was measured.

    Raises:
        BadModel: nothing of the model can be cut.
    """
    recipes = even_recipes(one, form)
    found: dict[str, Rung] = {}
    for at in range(0, len(recipes), TOGETHER):
        job = _job(one, Budget(min_agreement=0.0), folder, minutes=minutes)
        run = _done(job.model_copy(update={"recipes": recipes[at : at + TOGETHER]}))
        for rung in run.ladder.rungs if run.ladder else ():
            if rung.recipe.passes:
                found[rung.sha256] = rung
    return list(found.values())


@functools.cache
def _widths(one: Case) -> tuple[dict[str, int], ...]:
    """For each share the widths of the groups that can be cut."""
    session = runtime.session(one.onnx)
    with samples.open_samples(one.calibration, runtime.inputs(session)) as held:
        feeds = [held.sample(at) for at in range(min(_ORDER, len(held)))]
    model: onnx.ModelProto = graph.regular(one.onnx, sample=feeds[0])
    known = studying.study(model, Evidence(lambda: iter(feeds)))
    able = [group for group in known.channels.groups if known.known.losses.get(group.id)]
    assert channels.find(model, sample=feeds[0]).groups, one.name
    return tuple(
        {
            group.id: width
            for group in able
            if (width := min(costs.steps(group), key=lambda n: abs(n - share * group.width)))
            < group.width
        }
        for share in SHARES
    )


def even_recipes(one: Case, form: Sequence[PassSpec]) -> tuple[Recipe, ...]:
    """The recipes of `evenly`; shares that leave the same widths once."""
    distinct = {tuple(widths.items()): widths for widths in _widths(one) if widths}
    return tuple(
        Recipe(
            label=f"even cut {number}",
            passes=(PassSpec(name="structured_pruning", parameters={"keep": widths}), *form),
        )
        for number, widths in enumerate(distinct.values())
    )


def form(ladder: Ladder, *, least: float) -> tuple[PassSpec, ...]:
    """The passes of the fastest variant in integers that is close enough; else stored weights."""
    able = [
        rung
        for rung in ladder.rungs
        if {spec.name for spec in rung.recipe.passes} & set(INTEGERS)
        and not bought.is_cut(rung)
        and rung.measurement.agreement.high >= least
        and rung.measurement.latency_ratio < 1.0
    ]
    best = min(able, key=lambda rung: rung.measurement.latency_ratio, default=None)
    return best.recipe.passes if best else (STORED,)


def _job(one: Case, budget: Budget, folder: Path, *, minutes: float) -> CompressJob:
    folder.mkdir(parents=True, exist_ok=True)
    return CompressJob(
        model_name=one.name, model_path=str(one.onnx), calibration_path=str(one.calibration),
        evaluation_path=str(one.evaluation), outputs=one.outputs, budget=budget,
        device_class=profile.device_class(), out_dir=str(folder), minutes=minutes,
        keep=tuple(path.name for kind in ("rung-*", "probe-*") for path in folder.glob(kind)),
    )  # fmt: skip


def _done(job: CompressJob) -> Run:
    work = Path(job.out_dir) / "work"
    before = _notes(work)
    began = time.monotonic()
    ladder, refused = None, ""
    try:
        ladder = asyncio.run(compressor.compress(job, memory_mib=MEMORY_MIB))
    except errors.CompressionError as error:
        refused = str(error)
    now = _notes(work)
    new = {name for name, at in now.items() if before.get(name) != at}
    minutes = (time.monotonic() - began) / 60
    if ladder is not None:
        durable.replace(work / f"ladder-{len(now)}.json", ladder.to_json())
    return Run(
        ladder, minutes,
        looks=sum(name.startswith("look-") for name in new),
        trials=sum(name.startswith(("chosen-", "tried-")) for name in new),
        refused=refused,
    )  # fmt: skip


def _notes(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in work.glob("*.json")}
