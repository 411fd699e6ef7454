"""A cheap look at candidates before any trial: made, loaded, run beside the original.

Its times are of this process alone, at idle priority: good enough to leave out what is clearly
beaten. Nothing of them is reported; the trials measure what is kept.
"""

import contextlib
import hashlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from pydantic import TypeAdapter

from compression import agreement, durable, pairing, pipeline, runtime, samples, working
from compression.apart import Apart
from compression.calibration.material import Material
from compression.choosing import refining
from compression.errors import BadModel
from compression.findings import Agreement, Each
from compression.job import PassSpec, Recipe, Runtime
from compression.passes import naming, packed
from compression.words import Words

FEW = 6
"""Inputs that tell good nodes from bad ones."""
LEAST_NS = 1_000_000
"""A faster model runs several times for each figure: a clock read would be part of it."""
MOST_REPEATS = 8
_NEVER = 1e9
_FIGURES = TypeAdapter(dict[str, float])


class Preview(Words):
    """One candidate as it looks on the choosing part; `problem` says why there is no file."""

    recipe: Recipe
    key: str
    path: Path
    sha256: str = ""
    size_bytes: int = 0
    agreement: Agreement | None = None
    sqnr_db: float = -200.0
    cpu_ratio: float = _NEVER
    """The median over the samples of this process's CPU times, candidate over original."""
    problem: str | None = None
    predicted_ratio: float | None = None
    """What the table of kernels said before it was made, where it was asked."""
    runtime: Runtime | None = None
    """How it is to be run, where that was chosen already."""
    peak_mib: float | None = None
    """What it takes in memory run so, where memory is bounded."""
    each: Each | None = None
    """How alike it answers each of the samples."""
    place: int | None = None
    """By nearness to the original, among looks that were compared."""


def look(
    material: Material, model: onnx.ModelProto, original: Any, recipe: Recipe, *, folder: Path
) -> Preview:
    """Make a candidate and compare it. `original` is the original's session.

    What an earlier run of the same job saw stands; its file may be gone, see `make`.
    """
    key = pipeline.key(recipe, *material.keys)
    path = folder / f"candidate-{key[:12]}.onnx"
    note = folder / f"look-{key}.json"
    known = _recall(note)
    if known is not None:
        return known.model_copy(update={"recipe": recipe, "path": path})
    try:
        variant, content = _made(material, model, recipe)
        apart = Apart(material.outputs)
        judge, ratio = _compare(material, original, variant, material.looking, apart)
    except BadModel as error:
        found = Preview(recipe=recipe, key=key, path=path, problem=str(error))
    else:
        durable.replace(path, content)
        judged = judge.agreement("choosing")
        found = Preview(
            recipe=recipe,
            key=key,
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            agreement=judged,
            sqnr_db=judge.sqnr_db()[judged.output],
            cpu_ratio=ratio,
            each=apart.found(),
        )
    durable.replace(note, found.to_json())
    return found


def placed(material: Material, looks: Sequence[Preview]) -> list[Preview]:
    """The looks with their places by nearness to the original, where all were compared by input."""
    every = [one.each for one in looks if one.each is not None]
    if len(every) < len(looks):
        return list(looks)
    places = pairing.places(every, material.sources(material.looking))
    return [
        one.model_copy(update={"place": place}) for one, place in zip(looks, places, strict=True)
    ]


def earlier(material: Material, *, folder: Path) -> list[Recipe]:
    """The recipes that other runs on the same inputs looked at, whatever their budgets asked."""
    found = []
    for note in sorted(folder.glob("look-*.json")):
        known = _recall(note)
        if known is not None and known.key == pipeline.key(known.recipe, *material.keys):
            found.append(known.recipe)
    return found


def make(material: Material, model: onnx.ModelProto, found: Preview) -> None:
    """Write the candidate's file again, which an earlier run swept away."""
    durable.replace(found.path, _made(material, model, found.recipe)[1])


def _made(
    material: Material, model: onnx.ModelProto, recipe: Recipe
) -> tuple[onnx.ModelProto, bytes]:
    made = pipeline.run(
        recipe, model, calibrate=material.calibrate, evidence=material.evidence,
        workplace=material.workplace,
    )  # fmt: skip
    variant = naming.shorten(made)
    return variant, packed.content(recipe, variant)


def _recall(note: Path) -> Preview | None:
    try:
        return Preview.model_validate_json(note.read_bytes())
    except (OSError, ValueError):
        return None


def behind(material: Material, model: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """Return what the static pass of a recipe finds: the model behind the passes before it."""
    spec = refining.static(recipe)
    before = recipe.passes[: recipe.passes.index(spec)] if spec else ()
    earlier = Recipe(label=recipe.label, passes=before)
    return pipeline.run(
        earlier, model, calibrate=material.calibrate, evidence=material.evidence,
        workplace=material.workplace,
    )  # fmt: skip


def alone(
    material: Material,
    model: onnx.ModelProto,
    original: Any,
    recipe: Recipe,
    spec: PassSpec,
    *,
    names: Sequence[str],
    folder: Path,
    stop: float,
) -> dict[str, float]:
    """SQNR in dB of the judged output where one pass of a recipe treats each name alone.

    `model` is what that pass finds (see `behind`); `names` are what its parameter `only` takes:
    nodes or constants. Ends early at `stop` (working.now_s()); names without a figure are not in
    the answer. What an earlier run of the same job saw stands.
    """
    one_pass = Recipe(label=spec.name, passes=(spec,))
    note = folder / f"alone-{pipeline.key(one_pass, pipeline.key(recipe), *material.keys)}.json"
    with contextlib.suppress(OSError, ValueError):
        return _FIGURES.validate_json(note.read_bytes())
    figures: dict[str, float] = {}
    for name in names:
        if working.now_s() > stop:
            return figures  # not kept: a run with more time shall not take them for all
        single = spec.model_copy(update={"parameters": {**spec.parameters, "only": [name]}})
        try:
            variant, _ = _made(material, model, Recipe(label=name, passes=(single,)))
            judge, _ = _compare(material, original, variant, material.looking[:FEW])
        except BadModel:
            continue
        figures[name] = judge.sqnr_db()[judge.agreement("choosing").output]
    durable.replace(note, _FIGURES.dump_json(figures))
    return figures


def _compare(
    material: Material,
    original: Any,
    variant: onnx.ModelProto,
    indices: Sequence[int],
    apart: Apart | None = None,
) -> tuple[agreement.Judge, float]:
    """Judge a variant by its answers (input by input in `apart`), and by its CPU time against the
    original's.
    """
    candidate = runtime.session(variant, runtime.options(Runtime(threads=material.threads)))
    judge = agreement.Judge(material.outputs)
    ratios = []
    repeats: dict[tuple[tuple[int, ...], ...], int] = {}
    for index in indices:
        feeds = material.inputs.sample(index)
        shape = tuple(array.shape for array in feeds.values())
        if shape not in repeats:  # memory is planned at the first run of a shape
            runtime.run(original, feeds)
            runtime.run(candidate, feeds)
            once_ns = _timed(original, feeds, 1)[1]
            repeats[shape] = min(MOST_REPEATS, 1 + LEAST_NS // max(1, once_ns))
        count = repeats[shape]
        ours, ours_ns = _timed(original, feeds, count)
        theirs, theirs_ns = _timed(candidate, feeds, count)
        ratios.append(max(1, theirs_ns) / max(1, ours_ns))
        judge.add(ours, theirs)
        if apart is not None:
            apart.add(ours, theirs)
    return judge, statistics.median(ratios)


def _timed(session: Any, feeds: samples.Arrays, repeats: int) -> tuple[samples.Arrays, int]:
    """The answers to one sample, and this process's CPU time for so many runs."""
    began = time.process_time_ns()
    for _ in range(repeats):
        found = runtime.run(session, feeds)
    return found, time.process_time_ns() - began
