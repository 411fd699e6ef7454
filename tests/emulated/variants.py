"""Models in many 8-bit forms, made here, and a folder of them for a processor to answer with."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from compression import graph, pipeline, runtime, samples
from compression.calibration.material import Material
from compression.errors import BadModel
from compression.job import CompressJob, OutputSpec, PassSpec, Recipe
from tests.emulated import emulation
from tests.fixtures import models
from tests.fixtures.trained import collection
from tests.simulators import models as simulated


@dataclass(frozen=True)
class Subject:
    """A model, inputs that calibrate and others that judge; `count` of them, for time's sake."""

    onnx: Path
    calibration: Path
    evaluation: Path
    outputs: tuple[OutputSpec, ...]
    count: int


def _static(label: str, **parameters: Any) -> Recipe:
    return Recipe(label=label, passes=(PassSpec(name="quantization", parameters=parameters),))


def _one(label: str, name: str, **parameters: Any) -> Recipe:
    return Recipe(label=label, passes=(PassSpec(name=name, parameters=parameters),))


RECIPES = (
    _static("u8 x s8", weights="s8", activations="u8"),
    _static("u8 x s8, 7 bits", weights="s8-7bit", activations="u8"),
    _static("u8 x u8", weights="u8", activations="u8"),
    _static("s8 x s8", weights="s8", activations="s8"),
    _static("u8 x s8, per tensor", weights="s8", activations="u8", per_channel=False),
    _static("s8 x s8, per tensor", weights="s8", activations="s8", per_channel=False),
    _static("u8 x s8, 7 bits, all", weights="s8-7bit", activations="u8", operators=["*"]),
    _static("s8 x s8, all", weights="s8", activations="s8", operators=["*"]),
    _one("dynamic s8", "dynamic", weights="s8"),
    _one("dynamic s8, 7 bits", "dynamic", weights="s8-7bit"),
    _one("dynamic u8", "dynamic", weights="u8"),
    _one("recurrent s8", "recurrent", weights="s8"),
    _one("recurrent u8", "recurrent", weights="u8"),
    _one("blocks of 32", "blocks", block=32),
    _one("stored", "stored"),
)


def _fetched(name: str, count: int) -> Subject:
    found = models.FIXTURES[name]()
    output = OutputSpec(name=found.outputs.partition("=")[0], kind="logits")
    return Subject(found.onnx, found.calibration, found.evaluation, (output,), count)


def _trained(name: str, count: int) -> Subject:
    found, folder = collection.load(name), Path(emulation.roots.folder()) / "inputs"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}-{part}.npz" for part in ("calibration", "evaluation")]
    found.write_inputs(paths[0], models.CALIBRATION_COUNT, collection.CALIBRATION_SEED)
    found.write_inputs(paths[1], count, collection.EVALUATION_SEED)
    return Subject(found.onnx, paths[0], paths[1], found.outputs, count)


def _recurrent(count: int) -> Subject:
    """An LSTM of random weights: `x` float32 [N, 24, 16] -> `y` float32 [N, 8]."""
    folder = Path(emulation.roots.folder()) / "inputs"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(0, 0.4, (1, 128, 16)).astype("f4"),
        "r": random.normal(0, 0.2, (1, 128, 32)).astype("f4"),
        "out": random.normal(0, 0.3, (32, 8)).astype("f4"),
        "first": np.array([0]),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "last"], hidden_size=32),
        helper.make_node("Squeeze", ["last", "first"], ["state"]),
        helper.make_node("MatMul", ["state", "out"], ["y"]),
    ]
    shapes = {"x": ("N", 24, 16)}, {"y": ("N", 8)}
    path = simulated.save(folder / "recurrent.onnx", nodes, weights, *shapes)
    for part, size in (("calibration", 40), ("evaluation", count)):
        np.savez(
            folder / f"recurrent-{part}.npz", x=random.normal(size=(size, 24, 16)).astype("f4")
        )
    given = (folder / "recurrent-calibration.npz", folder / "recurrent-evaluation.npz")
    return Subject(path, *given, (OutputSpec(name="y", kind="logits"),), count)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "svhn": lambda: _fetched("svhn", 40),
    "keywords": lambda: _trained("keywords", 40),
    "sentences": lambda: _trained("sentences", 40),
    "recurrent": lambda: _recurrent(40),
    "detector": lambda: _trained("detector", 8),
    "magika": lambda: _fetched("magika", 6),
}
"""An emulated multiplication takes 200 times as long: the larger the model, the fewer inputs."""


def write(subject: Subject, recipes: tuple[Recipe, ...], folder: Path) -> dict[str, str]:
    """Write original.onnx, inputs.npz and a variant for each recipe, by its place in `recipes`.

    Returns why there is none, by label, where a recipe finds nothing to do.
    """
    shutil.copyfile(subject.onnx, folder / "original.onnx")
    work = folder / "work"
    work.mkdir()
    job = CompressJob(
        model_name="subject", model_path=str(subject.onnx), outputs=subject.outputs,
        calibration_path=str(subject.calibration), out_dir=str(work),
        device_class=emulation.own_class(),
    )  # fmt: skip
    material = Material.open(job, work)
    lacking = {}
    specs = runtime.inputs(runtime.session(subject.onnx))
    try:
        model = graph.regular(subject.onnx, sample=material.inputs.sample(0), folder=work)
        for at, recipe in enumerate(recipes):
            try:
                made = pipeline.run(
                    recipe, model, calibrate=material.calibrate, evidence=material.evidence
                )
            except BadModel as error:
                lacking[recipe.label] = str(error)
                continue
            onnx.save(made, folder / f"{at:03d}.onnx")
        with samples.open_samples(subject.evaluation, specs) as held_out:
            rows = [held_out.sample(at) for at in range(min(subject.count, len(held_out)))]
        samples.write(folder / "inputs.npz", rows)
    finally:
        material.close()
    return lacking


def answers(path: Path) -> list[dict[str, np.ndarray]]:
    """Read what a model answered: one dictionary of outputs for each input."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as stored:
        for key in stored.files:
            at, _, name = key.partition("::")
            rows.setdefault(at, {})[name] = stored[key]
    return [rows[at] for at in sorted(rows)]
