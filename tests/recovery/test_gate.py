"""No training makes a rung worse, however absurd its settings: real models, real training."""

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.findings import Ladder
from compression.job import Budget, CompressJob, OutputSpec, PassSpec, Recipe
from tests.compression import parent
from tests.fixtures import more
from tests.recovery import judged
from tests.simulators import models as small

LOGITS = OutputSpec(name="logits", kind="logits")
STORED = PassSpec(name="stored")
INTEGERS = PassSpec(name="quantization", parameters={"weights": "s8-7bit", "per_channel": False})
COUNT = 300


def cut(keep: float, *, refit: bool = False) -> PassSpec:
    """By magnitude, so that it takes no time; with `refit` little is left to gain."""
    parameters = {"keep": keep, "order": "magnitude", "refit": refit, "samples": 48}
    return PassSpec(name="structured_pruning", parameters=parameters)


@dataclass(frozen=True)
class Absurd:
    """A training that nobody would ask for."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: int = COUNT
    before: tuple[PassSpec, ...] = (cut(0.15),)
    seconds: float = 5.0

    def recipes(self) -> tuple[Recipe, Recipe]:
        """Untrained, and trained."""
        spec = PassSpec(name="recovery", parameters={"seconds": self.seconds} | self.parameters)
        return (
            Recipe(label="untrained", passes=(*self.before, STORED)),
            Recipe(label="trained", passes=(*self.before, spec, STORED)),
        )


FITTED, ROUNDED = (cut(0.15, refit=True),), (INTEGERS,)
BOTH = (cut(0.15), INTEGERS)


def at_rate(rate: float, before: tuple[PassSpec, ...] = (cut(0.15),), how: str = "") -> Absurd:
    return Absurd(f"rate {rate:g}{how}", {"learning_rate": rate}, before=before)


ABSURD = (
    # A sound rate is found between 3e-4 and 3e-3.
    *(at_rate(rate) for rate in (0.03, 0.1, 0.3, 1.0, 30.0)),
    *(at_rate(rate, FITTED, ", fitted before") for rate in (0.1, 0.3)),
    *(at_rate(rate, ROUNDED, ", rounded") for rate in (0.1, 0.3, 1.0)),
    at_rate(0.3, BOTH, ", cut and rounded"),
    *(Absurd(f"{count} inputs", inputs=count) for count in (8, 24, 50)),
    Absurd("24 inputs, rounded", inputs=24, before=ROUNDED),
    Absurd("50 inputs, fitted before, rate 0.3", {"learning_rate": 0.3}, 50, FITTED),
    Absurd("augmentation 100", {"augmentation": 100.0}),
    Absurd("augmentation 100, fitted before", {"augmentation": 100.0}, before=FITTED),
    Absurd("augmentation 100, rounded", {"augmentation": 100.0}, before=ROUNDED),
    Absurd("one sample a step", {"batch": 1, "learning_rate": 0.1, "samples": 16}, seconds=1.0),
)
SAMPLE = (
    Absurd("rate 1", {"learning_rate": 1.0}, seconds=2.0),
    Absurd("8 inputs", inputs=8, seconds=2.0),
)


@dataclass(frozen=True)
class Given:
    """A model, inputs for it, and others that report."""

    model: Path
    inputs: np.ndarray
    evaluation: np.ndarray


def job(one: Absurd, given: Given, folder: Path, *recipes: Recipe) -> CompressJob:
    """Try recipes; they report on inputs that had no part in it."""
    folder.mkdir()
    np.savez(folder / "inputs.npz", image=given.inputs[: one.inputs])
    np.savez(folder / "evaluation.npz", image=given.evaluation)
    (folder / "out").mkdir()
    return CompressJob(
        model_name="digits", model_path=str(given.model), outputs=(LOGITS,),
        calibration_path=str(folder / "inputs.npz"), recipes=recipes,
        evaluation_path=str(folder / "evaluation.npz"), budget=Budget(min_agreement=0.1),
        device_class=parent.HASWELL, out_dir=str(folder / "out"), minutes=30,
    )  # fmt: skip


def reported(found: Ladder) -> dict[str, float]:
    """The agreement of each variant, the one that would be deployed first."""
    return {
        rung.recipe.label: rung.measurement.agreement.value
        for rung in found.rungs
        if rung.recipe.passes
    }


def no_worse(one: Absurd, given: Given, folder: Path) -> None:
    """The first variant of the ladder agrees no less than it would have untrained."""
    found, _ = judged.climb(job(one, given, folder / "both", *one.recipes()))
    (recovered,) = found.recovered
    values = reported(found)
    deployed = next(iter(values))
    if "untrained" not in values:  # a better one made its trial needless
        alone, _ = judged.climb(job(one, given, folder / "alone", one.recipes()[0]))
        values |= reported(alone)
    told = f"\n{one.name}: deployed {deployed}, {values}; {recovered.reason}"
    print(told)
    assert ("trained" in values) == recovered.accepted
    assert values[deployed] >= values["untrained"], told


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that always believe in themselves, so that the search's gate stands alone."""
    judging = importlib.import_module("compression.recovery.judging")
    judge = judging.Judge.verdict
    monkeypatch.setattr(
        judging.Judge, "verdict", lambda *given: dataclasses.replace(judge(*given), better=True)
    )


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("one", SAMPLE, ids=lambda one: one.name)
def test_a_sample_of_absurd_trainings_makes_nothing_worse(one: Absurd, tmp_path: Path) -> None:
    path = small.cnn(tmp_path / "model.onnx", width=16)
    inputs = small.sample_inputs(path, 150, seed=3)["image"]
    no_worse(one, Given(path, inputs[:120], inputs[120:]), tmp_path)


@pytest.mark.prove
@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("one", ABSURD, ids=lambda one: one.name)
def test_twenty_absurd_trainings_make_nothing_worse(one: Absurd, tmp_path: Path) -> None:
    digits = more.mnist()
    evaluation = np.load(digits.evaluation)["image"][:400]
    no_worse(one, Given(digits.onnx, np.load(digits.calibration)["image"], evaluation), tmp_path)


def test_there_are_twenty() -> None:
    assert len(ABSURD) == 20
