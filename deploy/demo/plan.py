"""What a run of the demo shows: which model, with which inputs, judged how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import BadInput
from agent.protocol.topics import NAME
from compression import samples as npz
from compression.errors import BadInputs
from compression.job import Budget, InputSpec, OutputSpec
from deploy import onnx_facts
from deploy.demo import assets, figures, inputs
from deploy.demo.traffic import Answer, Inputs

MAGIKA = "magika"
MAGIKA_OUTPUT = "target_label"
MAGIKA_BUDGET = Budget(size_mib=0.85, min_agreement=0.98)
OWN_BUDGET = Budget(min_agreement=0.98)
MOST_SAMPLES = 300
_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Plan:
    """One model on its way through the demo.

    `right` tells of each predicted class whether it is the right one; `extensions` names the
    file extension of each sample, where samples are files.
    """

    name: str
    model: Path
    calibration: Path
    evaluation: Path | None
    outputs: tuple[OutputSpec, ...]
    budget: Budget
    samples: Sequence[Inputs]
    told: tuple[str, ...]
    """How the inputs came about, for a person."""
    logits: str | None = None
    right: Callable[[Sequence[int]], list[bool]] | None = None
    extensions: tuple[str, ...] = ()
    licence: str = ""
    must_improve: bool = False
    """Whether the demo has failed when no variant is admitted."""

    @property
    def reference(self) -> str:
        """The name under which the original serves beside it."""
        return f"{self.name}-original"


def magika(folder: Path, *, budget: Budget, files: int) -> Plan:
    """Magika's own model, on `files` real files of this machine; inputs go to `folder`.

    Raises:
        Unavailable: the model is not installed, or the machine has too few files.
    """
    found = assets.find()
    sets = inputs.from_this_machine(found, evaluation=files)
    rows = [{"bytes": row[np.newaxis]} for row in sets.evaluation]

    def right(classes: Sequence[int]) -> list[bool]:
        labels = [found.labels[number] for number in classes]
        return figures.right(labels, sets.extensions, found.by_extension)

    return Plan(
        name=MAGIKA,
        model=found.model,
        calibration=inputs.write(folder / "calibration.npz", {"bytes": sets.calibration}),
        evaluation=None,
        outputs=(OutputSpec(name=MAGIKA_OUTPUT, kind="logits"),),
        budget=budget.over(MAGIKA_BUDGET),
        samples=rows,
        told=(
            f"{len(sets.calibration)} files of this machine to calibrate with, without labels",
            f"{len(rows)} other files to judge by, of {len(set(sets.extensions))} extensions",
        ),
        logits=MAGIKA_OUTPUT,
        right=right,
        extensions=sets.extensions,
        licence=_LICENCE,
        must_improve=True,
    )


def own(
    model: Path,
    *,
    calibration: Path,
    evaluation: Path | None,
    outputs: tuple[OutputSpec, ...],
    budget: Budget,
) -> Plan:
    """Any model with inputs for it; what `outputs` does not name is guessed from the graph.

    Raises:
        BadInput: the model cannot be read, or the inputs do not fit it.
    """
    facts = onnx_facts.read(model, named=outputs)
    judged = evaluation or calibration
    rows, labels = _read(judged, facts.inputs)
    logits = next((output.name for output in facts.outputs if output.kind == "logits"), None)
    name = model.stem if NAME.match(f"{model.stem}-original") else "model"
    told = f"{len(rows)} samples of {judged.name} to judge by"
    if evaluation is None:
        told += ": the very ones that calibrate, give --evaluation for others"
    return Plan(
        name=name,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        outputs=outputs,
        budget=budget.over(OWN_BUDGET),
        samples=rows,
        told=(told,),
        logits=logits,
        right=None if labels is None or logits is None else _equal_to(labels),
    )


def _read(path: Path, specs: Sequence[InputSpec]) -> tuple[list[Inputs], list[int] | None]:
    try:
        with npz.open_samples(path, specs) as opened:
            count = min(len(opened), MOST_SAMPLES)
            rows: list[Inputs] = [opened.sample(index) for index in range(count)]
            labels = opened.labels()
    except BadInputs as error:
        raise BadInput(str(error)) from error
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return rows, None
    return rows, [int(label) for label in labels[:count]]


def _equal_to(labels: Sequence[int]) -> Callable[[Sequence[int]], list[bool]]:
    def right(classes: Sequence[int]) -> list[bool]:
        return [number == label for number, label in zip(classes, labels, strict=True)]

    return right


def classes(answers: Sequence[Answer], output: str) -> list[int]:
    """The class with the highest score in each answer, over all of its scores."""
    return [int(np.argmax(answer.outputs[output].reshape(-1))) for answer in answers]
