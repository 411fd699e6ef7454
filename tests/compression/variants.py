"""Small models, variants of them as recipes make them, and how far these are off."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from compression import agreement, graph, pipeline, runtime, statistics
from compression.calibration.evidence import Evidence
from compression.job import PassSpec, Recipe
from tests.simulators import models

Rows = list[dict[str, np.ndarray]]
STATIC = PassSpec(name="quantization", parameters={"weights": "s8-7bit"})


def feeds_of(path: Path, count: int = 12, seed: int = 0) -> list[dict[str, np.ndarray]]:
    arrays = models.sample_inputs(path, count, seed)
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


def variant(path: Path, parameters: dict[str, Any], *before: PassSpec) -> onnx.ModelProto:
    # Seven bits by default: full range saturates on machines without VNNI, as it should.
    parameters = {"weights": "s8-7bit", **parameters}
    rows = feeds_of(path)

    def calibrate(model: onnx.ModelProto) -> dict[str, statistics.Range]:
        return statistics.ranges(model, rows, count=len(rows))

    recipe = Recipe(
        label="test", passes=(*before, PassSpec(name="quantization", parameters=parameters))
    )
    return pipeline.run(recipe, graph.regular(path, sample=rows[0]), calibrate=calibrate)


def fused(changed: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that really run, after the runtime has optimised."""
    options = runtime.options(optimization="extended")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.session(changed, options)
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def sqnr(original: Path | onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    """How far the first output is off, in dB: signal over error, over all rows."""
    a_session, b_session = runtime.session(original), runtime.session(changed)
    signal = error = 0.0
    for row in rows:
        a, b = runtime.run(a_session, row), runtime.run(b_session, row)
        one, two = agreement.powers(next(iter(a.values())), next(iter(b.values())))
        signal, error = signal + one, error + two
    return agreement.sqnr_db(signal, error)


def made(model: onnx.ModelProto, rows: Rows, *passes: PassSpec) -> onnx.ModelProto:
    def calibrate(one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> Any:
        return statistics.ranges(one, rows, count=len(rows))

    recipe = Recipe(label="test", passes=passes)
    return pipeline.run(recipe, model, calibrate=calibrate, evidence=Evidence(lambda: rows))


def a_pass(name: str, **parameters: Any) -> PassSpec:
    return PassSpec(name=name, parameters=parameters)


def images(count: int, channels: int = 3, seed: int = 0, size: int = 12) -> Rows:
    """Smooth images, whose neighbours and channels say nearly the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        noise = rng.normal(size=(1, channels, size, size))
        smooth = np.cumsum(np.cumsum(noise, 2), 3) / size + rng.uniform(-2, 2)
        rows.append({"x": np.clip(smooth, -2, 2).astype(np.float32)})
    return rows


def convs(
    tmp_path: Path,
    *,
    groups: int = 1,
    bias: bool = True,
    between: str | None = "Relu",
    uneven: float = 0.0,
) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(size=(16, 3, 3, 3)) * np.exp2(rng.uniform(-uneven, uneven, (16, 1, 1, 1))),
        "b1": rng.normal(size=16),
        "w2": rng.normal(size=(16, 16 // groups, 3, 3)),
        "b2": rng.normal(size=16),
        "w3": rng.normal(size=(4, 16, 1, 1)),
        "slope": rng.uniform(0.1, 0.5, (16, 1, 1)),
    }
    after = [between, "slope"] if between == "PRelu" else [between]
    ends = ["w1", "b1"], ["w2", "b2"] if bias else ["w2"]
    nodes = [
        helper.make_node("Conv", ["x", *ends[0]], ["h"], pads=[1, 1, 1, 1]),
        *([helper.make_node(after[0], ["h", *after[1:]], ["r"])] if between else []),
        helper.make_node("Conv", ["r" if between else "h", *ends[1]], ["g"], group=groups),
        helper.make_node("Relu", ["g"], ["s"]),
        helper.make_node("Conv", ["s", "w3"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    used = {name for node in nodes for name in node.input}
    held = {name: array.astype(np.float32) for name, array in weights.items() if name in used}
    shapes = {"x": ("N", 3, "H", "W")}, {"y": ("N", 4, None, None)}
    return graph.regular(models.save(tmp_path / "m.onnx", nodes, held, *shapes))


def mean_shift(model: onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    """How far the channels' means of the output moved, in parts of their spread."""
    outs = [
        np.concatenate([runtime.run(runtime.session(one), row)["y"] for row in rows])
        for one in (model, changed)
    ]
    means = [out.mean(axis=(0, 2, 3)) for out in outs]
    return float(np.abs(means[0] - means[1]).max() / outs[0].std())
