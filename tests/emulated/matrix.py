"""Every recipe on every processor: how far answers agree with the original there, as a table."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from compression import agreement
from compression.job import OutputSpec, Recipe
from tests.emulated import emulation, variants
from tests.emulated.processors import Processor

LEAST = 0.01
"""Agreement that a processor may lose against the one that does best by the same file; one input
more or less may be chance."""
LEAST_DB = 3.0
"""Signal to noise that it may lose: seen earlier than agreement where inputs are few."""
FINE_DB = 40.0
Answers = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Cell:
    """One variant on one processor. `difference` is the largest from this machine's own answers,
    in parts of the largest value of that output; None where the file did not run."""

    agreement: float | None = None
    sqnr_db: float = -200.0
    difference: float = float("nan")
    cpu_s: float = float("nan")
    problem: str | None = None


@dataclass(frozen=True)
class Row:
    """One model in one form, on all processors by name."""

    model: str
    recipe: str
    inputs: int
    cells: Mapping[str, Cell]

    def wrong(self) -> tuple[str, ...]:
        """Name the processors on which this form loses against the best of them."""
        ran = {name: one for name, one in self.cells.items() if one.agreement is not None}
        best = max((one.agreement or 0.0 for one in ran.values()), default=1.0)
        best_db = max((one.sqnr_db for one in ran.values()), default=200.0)
        # Above this nothing is lost that matters: a processor without a kernel for 8 bits may
        # compute in float, and be closer than what was asked for.
        best_db = min(best_db, FINE_DB)
        return tuple(
            name
            for name, one in self.cells.items()
            if one.agreement is None
            or one.agreement < best - max(LEAST, 1.5 / self.inputs)
            or one.sqnr_db < best_db - LEAST_DB
        )


def run(
    name: str, recipes: Sequence[Recipe], where: Sequence[Processor], folder: Path
) -> list[Row]:
    """Make the variants of one model here, let every processor answer, and compare."""
    subject = variants.SUBJECTS[name]()
    made = folder / "made"
    made.mkdir(parents=True)
    lacking = variants.write(subject, tuple(recipes), made)
    told, places = {}, {}
    for one in (emulation.NATIVE, *where):
        place = folder / one.name
        place.mkdir()
        for path in (*made.glob("*.onnx"), made / "inputs.npz"):
            shutil.copyfile(path, place / path.name)
        told[one.name] = emulation.ask(one, "answers", str(place))
        places[one.name] = place
    forms = {"float32": "original"} | {
        recipe.label: f"{at:03d}"
        for at, recipe in enumerate(recipes)
        if recipe.label not in lacking
    }
    rows = []
    for label, form in forms.items():
        cells = {
            one: _cell(places, one, form, told[one].get(form), subject.outputs) for one in places
        }
        rows.append(Row(name, label, subject.count, cells))
    return rows


def _cell(
    places: Mapping[str, Path], name: str, form: str, told: object, outputs: tuple[OutputSpec, ...]
) -> Cell:
    if not isinstance(told, float):
        return Cell(problem=str(told))
    original = variants.answers(places[name] / "original.answers.npz")
    own = variants.answers(places[name] / f"{form}.answers.npz")
    native = places[emulation.NATIVE.name] / f"{form}.answers.npz"
    judge = agreement.Judge(outputs)
    for a, b in zip(original, own, strict=True):
        judge.add(a, b)
    judged = judge.agreement("held-out")
    return Cell(
        agreement=judged.value,
        sqnr_db=judge.sqnr_db()[judged.output],
        difference=_difference(own, variants.answers(native)) if native.exists() else float("nan"),
        cpu_s=told,
    )


def _difference(own: Answers, native: Answers) -> float:
    """The largest difference between two processors, in parts of the output's largest value."""
    largest = 0.0
    for name in native[0]:
        pairs = [(a[name], b[name]) for a, b in zip(own, native, strict=True)]
        if any(a.shape != b.shape for a, b in pairs):
            return float("inf")
        scale = max((float(np.abs(b).max(initial=0)) for _, b in pairs), default=0.0) or 1.0
        away = (float(np.abs(a.astype("f8") - b.astype("f8")).max(initial=0)) for a, b in pairs)
        largest = max(largest, *(one / scale for one in away))
    return largest


def text(rows: Sequence[Row]) -> str:
    """The table, as a document takes it. ✗: loses against the processor that does best."""
    names = list(rows[0].cells)
    head = ["model", "form", "inputs", *names, "largest difference"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        wrong = row.wrong()
        others = [one.difference for name, one in row.cells.items() if name != names[0]]
        cells = [_shown(one) + (" ✗" if name in wrong else "") for name, one in row.cells.items()]
        largest = f"{max(others):.1e}" if others else ""
        lines.append(
            "| " + " | ".join([row.model, row.recipe, str(row.inputs), *cells, largest]) + " |"
        )
    return "\n".join(lines)


def _shown(one: Cell) -> str:
    if one.agreement is None:
        return "does not run"
    return "=" if one.sqnr_db >= agreement.EXACT_DB else f"{one.agreement:.3f} {one.sqnr_db:.1f} dB"


def document(rows: Sequence[Row]) -> str:
    """The same figures for programs, as JSON."""
    return json.dumps([asdict(row) | {"wrong": row.wrong()} for row in rows], indent=1)
