"""Trains a cut or rounded model, without labels, to answer as the original does (needs torch).

What learns are the model's own initializers; operators, names, shapes and dtypes stay. A float
model's weights learn; of one in QDQ form the 8-bit weights, their scales, those of activations and
the biases do, through rounding as it is deployed (Jacob et al., CVPR 2018; Esser et al., ICLR
2020). The engine is in compression/recovery, the only room that imports torch.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from pydantic import Field

from compression.calibration.evidence import Evidence
from compression.errors import NEEDS_TORCH, BadModel
from compression.job import OutputSpec
from compression.words import Words

_ENGINE = "compression.recovery.engine"


class Settings(Words):
    """The parameters of this pass."""

    seconds: float = Field(default=300.0, gt=0)
    """Time to train, without that in which the process is stopped."""
    steps: int | None = Field(default=None, ge=1)
    """The most steps; None: as many as there is time for."""
    learning_rate: float | None = Field(default=None, gt=0)
    """The first step in parts of each tensor's root mean square; None: found by itself."""
    batch: int = Field(default=16, ge=1)
    """Samples whose gradients make one step."""
    samples: int = Field(default=2048, ge=1)
    """The most calibration inputs that are used."""
    augmentation: float = Field(default=1.0, ge=0)
    """How strongly inputs are changed; 0: not at all."""
    features: int = Field(default=6, ge=0)
    """How many tensors inside of the model are compared too, at first."""
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)
    """None: those of the evidence."""


def apply(
    model: onnx.ModelProto,
    settings: Settings,
    *,
    original: onnx.ModelProto,
    evidence: Evidence,
    reference: onnx.ModelProto | None = None,
    outputs: Sequence[OutputSpec] | None = None,
    folder: Path | None = None,
    report: Callable[[str, float], None] | None = None,
    judged_later: bool = False,
) -> onnx.ModelProto:
    """Return `model` with other values in its initializers.

    `original` teaches: its outputs have the same names. `reference` is the float model that a
    rounded one comes from; its weights by name are where the masters begin. `outputs` say what
    they mean (None: as the evidence does). `folder` takes checkpoints: the same call goes on there
    after a kill. `report(message, fraction)` hears of each look. `judged_later` says that the
    caller judges by the same test on inputs of its own: then what promises to be better passes
    here, since the few inputs that judge could hardly prove it.

    Raises:
        BadModel: torch is not installed; the model computes otherwise there, or nothing in it
            learns; too few inputs; or what came of it was not better beyond chance, in agreement
            and in loss, on inputs that were neither trained on nor used for tuning.
    """
    evidence = evidence.wide
    # Read by torch's OpenMP as it is loaded: threads that spin while they wait for a core that
    # others have took two of them sixteen times as long as one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        engine = importlib.import_module(_ENGINE)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise BadModel(NEEDS_TORCH) from error
    asked = engine.Asked(
        seconds=settings.seconds, steps=settings.steps, learning_rate=settings.learning_rate,
        batch=settings.batch, samples=settings.samples, augmentation=settings.augmentation,
        features=settings.features, seed=settings.seed, folder=folder, judged_later=judged_later,
        threads=settings.threads or evidence.threads,
    )  # fmt: skip
    made: onnx.ModelProto = engine.recover(
        model, asked, original=original, evidence=evidence, reference=reference,
        outputs=evidence.outputs if outputs is None else outputs,
        report=report or (lambda _message, _fraction: None),
    )  # fmt: skip
    return made
