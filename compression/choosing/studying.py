"""Gathers what the search over widths and precisions needs: groups, losses, costs of layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compression import channels
from compression.calibration.evidence import Evidence
from compression.choosing.options import Facts, GroupFacts
from compression.errors import BadModel
from compression.job import PassSpec, Runtime
from compression.latency import kernels, layers
from compression.latency.surfaces import Surfaces, spread
from compression.latency.table import Table
from compression.passes import structured_pruning
from compression.pruning import costs, parts, planning, sensitivity
from compression.pruning.groups import ChannelMap

_CROSSING = (1, 16, 64, 64)
"""A tensor that crosses to integers and back, to see what that costs."""


@dataclass(frozen=True)
class Studied:
    """The groups of a model, and what is lost where each alone is cut."""

    channels: ChannelMap
    known: planning.Study
    sample: dict[str, NDArray[Any]]


def study(model: onnx.ModelProto, evidence: Evidence) -> Studied:
    """Find the groups of a regular model and see what cutting each alone loses.

    Raises:
        BadModel: there is nothing to cut, or there are too few samples.
    """
    settings = structured_pruning.Settings(keep=0.5)
    divided = parts.divide(evidence.wide, most=settings.samples)
    sample = dict(next(feeds for _, feeds in divided.feeds()))
    found = channels.find(model, sample=sample)
    known = divided.evidence.once(
        model,
        f"pruning study {settings.order} {settings.samples}",
        lambda: planning.study(model, found, by=settings.order, parts=divided),
    )
    if not known.losses:
        raise BadModel("; ".join(known.whole.values()) or "cannot cut channels: nothing is known")
    return Studied(found, known, sample)


def facts(
    model: onnx.ModelProto,
    studied: Studied,
    table: Table,
    *,
    passes: Sequence[PassSpec],
    whole: dict[bool, float],
    rounding_loss: float,
    folder: Path,
    how: Runtime,
    stop: Callable[[], bool],
) -> Facts:
    """Time the layers of a model, in float and as `passes` run them; `whole` is what all cost."""
    found = studied.channels
    surfaces = Surfaces(
        model, found, table, passes=passes, folder=folder, how=how, stop=stop
    )  # fmt: skip
    carried = spread(found)
    groups = tuple(
        GroupFacts(
            id=group.id,
            width=group.width,
            steps=costs.steps(group),
            losses=tuple(studied.known.losses.get(group.id, ())),
            levels=tuple(sensitivity.LEVELS),
            spread=carried.get(number, 0.0),
        )
        for number, group in enumerate(found.groups)
    )
    known = surfaces.find(total=whole[False])
    trace = found.trace
    made = {n: trace.shape(layer.name) for n, layer in enumerate(surfaces.layers)}
    return Facts(
        layers=surfaces.layers,
        groups=groups,
        surfaces=known,
        elements={n: layers.elements(found, one, {}) for n, one in enumerate(surfaces.layers)},
        values={n: int(np.prod(shape)) for n, shape in made.items()},
        whole=whole,
        rounding_loss=rounding_loss,
        crossing=_crossing(table, folder=folder, how=how),
    )


def _crossing(table: Table, *, folder: Path, how: Runtime) -> float:
    """What a value costs that becomes an integer, or a float again: the mean of both."""
    kind = onnx.TensorProto.FLOAT
    held = [
        helper.make_tensor("s", kind, [], [0.05]),
        helper.make_tensor("z", onnx.TensorProto.UINT8, [], [128]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    given = [helper.make_tensor_value_info("x", kind, _CROSSING)]
    made = [
        helper.make_tensor_value_info("y", kind, _CROSSING),
        helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, _CROSSING),
    ]
    graph = helper.make_graph(nodes, "crossing", given, made, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = {"x": np.ones(_CROSSING, np.float32)}
    both = kernels.of(model, values, folder=folder, how=how)
    table.learn(both.all)
    found = table.sum(both)
    return (found or 0.0) / 2 / float(np.prod(_CROSSING))
