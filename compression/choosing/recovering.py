"""Trains the candidates that may gain by it, and lets in only what became better beyond chance.

The gate compares each trained variant with the very same one untrained, on the choosing part,
which nothing was trained on: agreement and loss both have to improve (see pairing.py). Lower loss
alone has been seen to cost answers. What passes is tried like any other candidate.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compression import durable, pairing, pipeline, runtime, working
from compression.alike.steps import UNDECIDED
from compression.calibration import pacing
from compression.calibration.material import Material
from compression.choosing import preview, room, schedule
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.choosing.schedule import Plan
from compression.errors import NEEDS_TORCH
from compression.findings import Recovered, Rejected
from compression.job import Budget, Recipe, Runtime

NEEDS_INPUTS = "cannot recover: no inputs came with the model, and made-up ones teach nothing"
NOTHING_TO_GAIN = (
    "nothing to train: of the cut and the calibrated int8 candidates that no other one beats, none "
    "is within the bounds and near the agreement asked for, with answers left to win back"
)
RECOVERED = Recipe(label="recovered")
"""Stands for all trainings where none can be done."""
SAY_EVERY_S = 2.0
"""Epochs of a small model are shorter than anyone reads."""

Say = Callable[[str, str, float], None]


def installed() -> bool:
    """Whether torch is there; it is not loaded."""
    return importlib.util.find_spec("torch") is not None


@dataclass(frozen=True)
class Ground:
    """What a job's trainings share."""

    material: Material
    model: onnx.ModelProto
    """The regular original."""
    original: Path
    folder: Path
    say: Say


class Recovering:
    """The trainings of one job."""

    def __init__(self, ground: Ground, *, minutes: float) -> None:
        self.recovered: list[Recovered] = []
        self.rejected: list[Rejected] = []
        self._ground = ground
        self._minutes = minutes
        how = runtime.options(Runtime(threads=ground.material.threads))
        self._original = runtime.session(ground.original, how)
        self._said_s = -SAY_EVERY_S
        self._label, self._seconds = "", 0.0

    def run(self, looks: Sequence[Preview], budget: Budget, wanted: Bounds) -> list[Preview]:
        """Return `looks` with what was trained and is better, and without what a person asked to
        train and is not.
        """
        given = [one for one in looks if schedule.untrained(one.recipe) is not None]
        kept = [one for one in looks if one not in given]
        kept += [one for one in given if self._judge_given(one)]
        if not self._minutes:
            return kept
        if (problem := self._hindrance()) is not None:
            self.rejected.append(Rejected(recipe=RECOVERED, reason=problem))
            return kept
        plans = schedule.plans(kept, budget, wanted, minutes=self._minutes)
        if not plans:
            self.rejected.append(Rejected(recipe=RECOVERED, reason=NOTHING_TO_GAIN))
        for plan in plans:
            kept += self._train(plan)
        return kept

    def report(self, message: str, fraction: float) -> None:
        """Hear of an epoch, and pass it on now and then."""
        if working.now_s() - self._said_s >= SAY_EVERY_S:
            self._said_s = working.now_s()
            left = f", {(1 - fraction) * self._seconds / 60:.1f} min left" if self._seconds else ""
            told = f"{self._label}: {message}{left}" if self._label else message
            self._ground.say("recovering", told, 0.5 + 0.05 * fraction)

    def _look(self, recipe: Recipe) -> Preview:
        ground = self._ground
        return preview.look(
            ground.material, ground.model, self._original, recipe, folder=ground.folder
        )

    def _hindrance(self) -> str | None:
        """Why nothing can be trained here, if so."""
        if not installed():
            return NEEDS_TORCH
        if not self._ground.material.verified:
            return NEEDS_INPUTS
        mib = self._ground.original.stat().st_size / 2**20
        return room.lacking(mib, work_memory_mib=self._ground.material.work_memory_mib)

    def _train(self, plan: Plan) -> list[Preview]:
        """Train one candidate stage by stage, each on what the ones before made better."""
        accepted: list[Preview] = []
        standing = plan.look
        for stage in plan.stages:
            recipe = schedule.trained(standing.recipe, stage)
            self._label, self._seconds = recipe.label, stage.seconds
            self._ground.say("recovering", f"{recipe.label}, {stage.seconds / 60:.1f} min", 0.5)
            began_s = working.now_s()
            found = self._made(recipe)
            minutes = (working.now_s() - began_s) / 60
            if self._judge(found, standing, minutes):
                accepted.append(found)
                standing = found
        return accepted

    def _made(self, recipe: Recipe) -> Preview:
        """Look at a recipe that trains; what breaks there costs this candidate alone."""
        try:
            return self._look(recipe)
        except (MemoryError, RuntimeError) as error:  # torch raises the latter for all it meets
            key = pipeline.key(recipe, *self._ground.material.keys)
            problem = f"cannot recover: {type(error).__name__}: {str(error)[:300]}"
            return Preview(recipe=recipe, key=key, path=Path(), problem=problem)

    def _judge_given(self, found: Preview) -> bool:
        """Judge what a person's recipe trained by the same recipe untrained."""
        recipe = schedule.untrained(found.recipe)
        assert recipe is not None
        if found.agreement is None:
            return self._judge(found, found.model_copy(update={"recipe": recipe}), 0.0)
        return self._judge(found, self._look(recipe), 0.0)

    def _judge(self, found: Preview, before: Preview, minutes: float) -> bool:
        """Whether a trained variant is better than the same one untrained; tell of it."""
        note = self._ground.folder / f"gate-{found.key[:24]}-{before.key[:24]}.json"
        known = _recall(note)
        if known is None:
            known = self._compared(found, before, minutes)
            if known.samples:
                durable.replace(note, known.to_json())
        self.recovered.append(known)
        if not known.accepted:
            self.rejected.append(
                Rejected(recipe=found.recipe, reason=f"not let in: {known.reason}")
            )
        return known.accepted

    def _compared(self, found: Preview, before: Preview, minutes: float) -> Recovered:
        result = Recovered(
            recipe=found.recipe, of=before.recipe.label, accepted=False,
            reason=found.problem or before.problem or "cannot be made", minutes=minutes,
        )  # fmt: skip
        if found.agreement is None or before.agreement is None:
            return result
        self._ground.say("recovering", f"{found.recipe.label}: beside itself untrained", 0.55)
        verdict = compare(self._ground, before, found)
        return result.model_copy(
            update={
                "accepted": verdict.better,
                "reason": verdict.reason,
                "agreement": verdict.agreement,
                "loss": verdict.loss,
                "samples": verdict.samples,
            }
        )


def compare(ground: Ground, before: Preview, after: Preview) -> pairing.Verdict:
    """Run the original and two variants on the choosing part, and judge them in pairs."""
    material = ground.material
    how = runtime.options(Runtime(threads=material.threads))
    original = runtime.session(ground.original, how)
    sessions = [_session(ground, one, how) for one in (before, after)]
    samples = [material.inputs.sample(one) for one in pacing.spread(material.choosing, UNDECIDED)]
    pairs = pairing.Pairs(
        material.outputs, first=[runtime.run(original, feeds) for feeds in samples]
    )
    sources = material.inputs.sources()
    for index in material.choosing:
        feeds = material.inputs.sample(index)
        answers = [runtime.run(session, feeds) for session in (original, *sessions)]
        pairs.add(*answers, source=index if sources is None else sources[index])
    return pairs.verdict()


def _session(ground: Ground, one: Preview, how: Any) -> Any:
    if not one.path.exists():
        preview.make(ground.material, ground.model, one)
    return runtime.session(one.path, how)


def _recall(note: Path) -> Recovered | None:
    with contextlib.suppress(OSError, ValueError):
        return Recovered.model_validate_json(note.read_bytes())
    return None
