"""Recovers a model: checks it in torch, trains it by the original, and judges what came of it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import OutputSpec
from compression.recovery import aims, checkpoints, equality, ground, memory
from compression.recovery.augmenting import Augmenter
from compression.recovery.ground import Ground
from compression.recovery.judging import Judge
from compression.recovery.plans import Plan
from compression.recovery.student import Student
from compression.recovery.teacher import Teacher, takes_batches
from compression.recovery.training import Training
from compression.statistics import Arrays


@dataclass(frozen=True)
class Asked:
    """What a caller may choose; see `passes/recovery.py`."""

    seconds: float
    steps: int | None = None
    learning_rate: float | None = None
    batch: int = 16
    samples: int = 2048
    augmentation: float = 1.0
    features: int = aims.FEATURES
    seed: int = 0
    threads: int = 1
    folder: Path | None = None
    judged_later: bool = False


def recover(
    model: onnx.ModelProto,
    asked: Asked,
    *,
    original: onnx.ModelProto,
    evidence: Evidence,
    outputs: Sequence[OutputSpec],
    reference: onnx.ModelProto | None,
    report: Callable[[str, float], None],
) -> onnx.ModelProto:
    """Return `model` with other values in its initializers, better beyond chance than before.

    `reference` is the float model that a model of 8-bit weights was rounded from.

    Raises:
        BadModel: it computes something else in torch, nothing in it learns, the inputs are too
            few, or it did not become better in agreement and loss on inputs that judge.
    """
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    divided = ground.divide(evidence, most=asked.samples)
    student = _student(model, asked, original, outputs, reference)
    first, second = _two(divided)
    largest = equality.check(student, model, first)
    teacher = _teacher(original, student, first, threads=asked.threads)
    batches = second is not None and takes_batches(teacher, first, second)
    work_bytes = evidence.work_memory_mib * 2**20
    largest_sample = memory.largest(divided.training())
    runs_of = memory.fit(student, largest_sample, most=asked.batch if batches else 1,
                         bound=(1 - memory.STOCK) * work_bytes)  # fmt: skip
    report(
        f"{len(student.parameters.leaves)} tensors learn on {divided.count('train')} inputs, "
        f"{runs_of} at once; torch and onnxruntime differ by {largest:.1e}",
        0.0,
    )
    judge = Judge(original, outputs, threads=asked.threads)
    mixes = batches and {spec.kind for spec in outputs} == {"logits"}
    plan = _plan(
        asked, runs_of=runs_of, stock_bytes=memory.STOCK * work_bytes, mixes=mixes,
        key=key(model, original, asked), report=report,
    )  # fmt: skip
    training = Training(student, teacher, judge, divided, plan)
    training.run()
    made = student.written()
    verdict = judge.verdict(model, made, divided.feeds("judge"))
    report(f"{_differences(student, made, first)}; {verdict.reason}", 1.0)
    if not (verdict.promising if asked.judged_later else verdict.better):
        raise BadModel(
            f"cannot recover by training at rate {training.state.rate:g}: {verdict.reason}"
        )
    return made


def _plan(
    asked: Asked,
    *,
    runs_of: int,
    stock_bytes: float,
    mixes: bool,
    key: str,
    report: Callable[[str, float], None],
) -> Plan:
    return Plan(
        seconds=asked.seconds, steps=asked.steps, rate=asked.learning_rate, batch=asked.batch,
        runs_of=runs_of, seed=asked.seed, stock_bytes=stock_bytes,
        augmenter=Augmenter(asked.augmentation, mixes=mixes),
        checkpoint=asked.folder / checkpoints.NAME if asked.folder else None,
        key=key, report=report,
    )  # fmt: skip


def _teacher(
    original: onnx.ModelProto, student: Student, feeds: Arrays, *, threads: int
) -> Teacher:
    """A teacher that makes no more than can be compared, which the student learns at its start."""
    teacher = Teacher(original, student.taught(), threads=threads)
    student.begin(feeds, teacher.answer(feeds))
    return Teacher(original, student.taught(), threads=threads)


def _differences(student: Student, made: onnx.ModelProto, feeds: Arrays) -> str:
    """How far what was trained is from what onnxruntime computes, plainly and as deployed."""
    promised = equality.check(student, made, feeds)
    deployed = equality.apart(student, made, feeds, optimization="all", rounded=True)
    return f"torch and onnxruntime differ by {promised:.1e}, as deployed by {deployed:.1e}"


def _student(
    model: onnx.ModelProto,
    asked: Asked,
    original: onnx.ModelProto,
    outputs: Sequence[OutputSpec],
    reference: onnx.ModelProto | None,
) -> Student:
    masters = {}
    if reference is not None:
        masters = {one.name: numpy_helper.to_array(one) for one in reference.graph.initializer}
    made = Student(
        model,
        aims=aims.of_outputs(original, model, outputs),
        features=aims.of_features(original, model, most=asked.features),
        masters=masters,
    )
    if not made.parameters.leaves:
        unknown = ", ".join(made.net.unknown())
        why = f"; only onnxruntime runs {unknown}" if unknown else ""
        raise BadModel(f"cannot recover: it has no weights that learn{why}")
    return made


def _two(divided: Ground) -> tuple[Arrays, Arrays | None]:
    """The first sample, and another one of its shapes if there is any."""
    first: Arrays | None = None
    for sample in divided.training():
        if first is None:
            first = sample
        elif all(sample[name].shape == array.shape for name, array in first.items()):
            return first, sample
    assert first is not None  # no part is empty, see ground.py
    return first, None


def key(model: onnx.ModelProto, original: onnx.ModelProto, asked: Asked) -> str:
    """What a checkpoint belongs to."""
    digest = hashlib.sha256()
    for one in (model, original):
        digest.update(one.SerializeToString(deterministic=True))
    chosen = (asked.samples, asked.learning_rate, asked.batch, asked.augmentation,
              asked.features, asked.seed)  # fmt: skip
    digest.update(repr(chosen).encode())
    return digest.hexdigest()
