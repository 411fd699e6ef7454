"""Jobs on small models, and what a worker says at their end."""

from pathlib import Path
from typing import Any

import numpy as np

from compression.choosing.search import STORED
from compression.job import Budget, CompressJob, PassSpec, Recipe
from compression.stream import Done
from compression.words import Words
from tests.compression import parent
from tests.simulators import models

STATIC = PassSpec(name="quantization")
FEW = tuple(
    Recipe(label=label, passes=(STATIC.model_copy(update={"parameters": parameters}), STORED))
    for label, parameters in (
        ("per-channel", {"weights": "s8-7bit"}),
        ("per-tensor", {"weights": "s8-7bit", "per_channel": False}),
        ("u8 weights", {"weights": "u8"}),
        ("half ranges", {"weights": "s8-7bit", "reach": 0.5}),
    )
)
"""Enough where it is not the search that is tested, which takes its time."""


def of_cnn(folder: Path) -> CompressJob:
    """A CNN, 40 inputs and few recipes, so that it takes seconds."""
    path = models.cnn(folder / "model.onnx", width=32)
    return _job(
        folder, path, 40, budget=Budget(size_ratio=0.5, min_agreement=0.8), minutes=2, recipes=FEW
    )


def of_mlp(folder: Path, **more: Any) -> CompressJob:
    """Two wide layers and 400 inputs, with all that the search proposes."""
    return _job(folder, models.mlp(folder / "model.onnx", hidden=256), 400, **more)


def _job(folder: Path, path: Path, inputs: int, **more: Any) -> CompressJob:
    np.savez(folder / "inputs.npz", **models.sample_inputs(path, inputs))
    out = folder / "out"
    out.mkdir()
    return CompressJob(
        model_name="small", model_path=str(path), calibration_path=str(folder / "inputs.npz"),
        device_class=parent.HASWELL, out_dir=str(out), **more,
    )  # fmt: skip


def changed(job: CompressJob, **fields: Any) -> CompressJob:
    """The job with other fields."""
    return job.model_copy(update=fields)


def done(said: list[Words]) -> Done:
    """The last word, which has the ladder."""
    assert isinstance(said[-1], Done), said[-1]
    return said[-1]
