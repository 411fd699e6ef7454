"""What is compressed and judged: every fixture's model, calibration file, and frozen evaluation.

An evaluation file is made once by a seeded generator and kept in the cache; it neither calibrates
nor chooses, and tables carry its sha256.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent import outputs
from compression import samples
from compression.job import OutputSpec
from deploy.demo import assets, inputs
from tests.fixtures import models, more, renders, wheels
from tests.fixtures.trained import collection

CALIBRATING = 200
EVALUATING = 1000
SCORING = 400
_RENDERED_SEED = 31
Score = Callable[[collection.Run], float]


@dataclass(frozen=True)
class Material:
    """One model with its inputs. `score` judges a model that has labels in no file, in 0..1."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    outputs: tuple[OutputSpec, ...]
    score: Score | None = None

    def evaluation_sha256(self) -> str:
        """Of the evaluation file as it lies there."""
        return sha256(self.evaluation)


def magika() -> Material:
    """Files of this machine; more of them than the demo shows."""
    fixture = models.magika()
    path = wheels.cache() / "peers-magika-eval.npz"
    with wheels.locked("peers-magika"):
        if not path.exists():
            with np.load(fixture.calibration) as arrays:
                seen = {row.tobytes() for row in arrays["bytes"]}
            sets = inputs.from_this_machine(assets.find(), evaluation=2000, seed=_RENDERED_SEED)
            rows = [row for row in sets.evaluation if row.tobytes() not in seen]
            np.savez_compressed(path, bytes=np.stack(rows))
    return _of("magika", replace(fixture, evaluation=path))


def svhn() -> Material:
    """Rendered digits with labels."""
    return _rendered("svhn", models.svhn(), "image", renders.digits, 2000)


def text_angle() -> Material:
    """Rendered lines with labels."""
    return _rendered("text-angle", models.text_angle(), "x", renders.lines, 1000)


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rendered(
    name: str, fixture: models.Fixture, tensor: str, render: Callable[..., Any], count: int
) -> Material:
    path = wheels.cache() / f"peers-{name}-eval.npz"
    with wheels.locked(f"peers-{name}"):
        if not path.exists():
            images, labels = render(count, seed=_RENDERED_SEED)
            arrays = {tensor: images, samples.LABELS: labels}
            np.savez_compressed(path, **arrays)
    return _of(name, replace(fixture, evaluation=path))


def _of(name: str, fixture: models.Fixture) -> Material:
    specs = outputs.read([fixture.outputs])
    if name == "recogniser":
        classes = more.characters(fixture.onnx)
        specs = tuple(spec.model_copy(update={"classes": classes}) for spec in specs)
    return Material(name, fixture.onnx, fixture.calibration, fixture.evaluation, specs)


def _further(name: str) -> Material:
    return _of(name, more.MORE[name]())


def _trained(name: str) -> Material:
    trained = collection.load(name)
    calibration, evaluation = (
        wheels.cache() / f"peers-{name}-{part}.npz" for part in ("calib", "eval")
    )
    with wheels.locked(f"peers-{name}"):
        if not (calibration.exists() and evaluation.exists()):
            trained.write_inputs(calibration, CALIBRATING, collection.CALIBRATION_SEED)
            trained.write_inputs(evaluation, EVALUATING, collection.EVALUATION_SEED)

    def score(run: collection.Run) -> float:
        return trained.evaluate(run, SCORING, collection.EVALUATION_SEED)

    return Material(name, trained.onnx, calibration, evaluation, trained.outputs, score)


MATERIALS: dict[str, Callable[[], Material]] = {
    "magika": magika,
    "recogniser": lambda: _further("recogniser"),
    "svhn": svhn,
    "text-angle": text_angle,
    "mnist": lambda: _further("mnist"),
    "keywords": lambda: _trained("keywords"),
    "sentences": lambda: _trained("sentences"),
    "autoencoder": lambda: _trained("autoencoder"),
    "detector": lambda: _trained("detector"),
    "silero-sequence": lambda: _further("silero-sequence"),
    "silero": lambda: _further("silero"),
    "ppocr-detector": lambda: _further("ppocr-detector"),
}
"""In the order in which they are judged."""
