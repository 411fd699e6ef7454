"""Static int8: QuantizeLinear and DequantizeLinear nodes around operators with int8 kernels.

The runtime fuses each island of DequantizeLinear -> operator -> QuantizeLinear into one integer
kernel. Only operators of the tables below are touched: around any other the nodes would cost time
and save none. Real value = scale x (q - zero point), as in Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from typing import Literal

import numpy as np
import onnx
from pydantic import Field

from compression.errors import BadModel
from compression.passes import holders, planning, qdq, rounding
from compression.statistics import Range
from compression.words import Words

WEIGHTED = ("Conv", "Gemm", "MatMul", "Gather")
"""Operators with constant weights; Gather only when its table is constant."""
ELEMENTWISE = (
    "Add", "Mul", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "Concat",
)  # fmt: skip
"""Fused only with quantized inputs and a quantized output."""
ALL = (*WEIGHTED, *ELEMENTWISE)


class Settings(Words):
    """The parameters of this pass."""

    operators: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    """Which operators; `*` stands for all that have int8 kernels."""
    per_channel: bool = True
    weights: rounding.WeightFormat = "s8"
    activations: Literal["u8", "s8"] = "u8"
    symmetric: bool = False
    """Activations with their zero point in the middle of the range."""
    reach: float = Field(default=1.0, ge=0, le=1)
    """Where ranges end, between the mean of the samples' extremes (0) and the extreme (1)."""
    least_error: bool = False
    """Ranges end where rounding and clipping together cost least, by histograms of the values.
    No candidate asks for it: at 8 bits it came out behind `reach` 1 or 0.5 on seven of eight
    models, by up to 8 dB, because what is clipped matters more further on than what is rounded."""
    exclude: tuple[str, ...] = ()
    """Nodes that stay float, by the name of their first output."""
    only: tuple[str, ...] | None = None
    """If given, the only nodes that are quantized."""


def eligible(model: onnx.ModelProto, settings: Settings) -> tuple[str, ...]:
    """Name the nodes that this pass would quantize, each by its first output, in order."""
    graph = qdq.Graph(model)
    return tuple(
        node.output[0]
        for node in model.graph.node
        if _wanted(node, settings) and _possible(graph, node, None)
    )


def rounded(
    model: onnx.ModelProto, settings: Settings, *, ranges: dict[str, Range]
) -> tuple[str, ...]:
    """Name the activations that this pass would round, whose ranges it uses."""
    graph = qdq.Graph(model)
    chosen = [
        node
        for node in model.graph.node
        if _wanted(node, settings) and _possible(graph, node, ranges)
    ]
    plan = planning.plan(graph, chosen, settings, ranges, elementwise=ELEMENTWISE)
    return tuple(name for name in ranges if name in plan.grids and name not in plan.same_as)


def apply(
    model: onnx.ModelProto, settings: Settings, *, ranges: dict[str, Range]
) -> onnx.ModelProto:
    """Return a new model in QDQ form; `ranges` are of its float tensors on calibration inputs.

    Raises:
        BadModel: nothing in it can be quantized.
    """
    graph = qdq.Graph(model)
    chosen = [
        node
        for node in model.graph.node
        if _wanted(node, settings) and _possible(graph, node, ranges)
    ]
    if not chosen:
        raise BadModel(f"cannot quantize: no operator of {', '.join(settings.operators)} qualifies")
    plan = planning.plan(graph, chosen, settings, ranges, elementwise=ELEMENTWISE)
    writer = qdq.Writer(graph, plan)
    for node in chosen:
        _weights(writer, graph, node, settings)
    return writer.write()


def _wanted(node: onnx.NodeProto, settings: Settings) -> bool:
    operators = ALL if "*" in settings.operators else settings.operators
    if node.op_type not in operators or node.domain not in {"", "ai.onnx"}:
        return False
    if settings.only is not None and node.output[0] not in settings.only:
        return False
    return node.output[0] not in settings.exclude


def _possible(graph: qdq.Graph, node: onnx.NodeProto, ranges: dict[str, Range] | None) -> bool:
    """Whether an int8 kernel exists for this node's inputs, constants and attributes."""
    if node.op_type == "Gather":
        return graph.is_float_weight(node.input[0])
    known = {name for name in graph.maker if ranges is None or name in ranges}
    known |= {
        value.name for value in graph.model.graph.input if ranges is None or value.name in ranges
    }
    if node.op_type in ELEMENTWISE:
        names = [name for name in node.input if name]
        fits = all(name in known or graph.is_float_weight(name) for name in names)
        masks = any(_marks(graph, name, ranges) for name in (*names, node.output[0]))
        return fits and not masks and node.output[0] in known and any(n in known for n in names)
    if node.input[0] not in known or not all(
        graph.is_float_weight(name) for name in node.input[1:] if name
    ):
        return False
    if node.op_type == "Conv":
        return node.output[0] in known
    if node.op_type == "MatMul":
        return graph.weights[node.input[1]].ndim == 2
    return _plain_gemm(graph, node)


def _marks(graph: qdq.Graph, name: str, ranges: dict[str, Range] | None) -> bool:
    """Whether some values mark what is left out, by far: 256 steps over them hold nothing else."""
    if name in graph.weights:
        return bool(np.abs(graph.weights[name]).max(initial=0.0) >= holders.MOST_VALUE)
    seen = None if ranges is None else ranges.get(name)
    return seen is not None and max(-seen.low, seen.high) >= holders.MOST_VALUE


def _plain_gemm(graph: qdq.Graph, node: onnx.NodeProto) -> bool:
    """QGemm knows no alpha, beta or transA here, and a bias only of one value a column."""
    values = {attribute.name: attribute for attribute in node.attribute}
    columns = graph.weights[node.input[1]].shape[0 if graph.flag(node, "transB") else 1]
    bias = node.input[2] if len(node.input) > 2 else ""
    return (
        all(values[name].f == 1.0 for name in ("alpha", "beta") if name in values)
        and not graph.flag(node, "transA")
        and (not bias or graph.weights[bias].size == columns)
    )


def _weights(
    writer: qdq.Writer, graph: qdq.Graph, node: onnx.NodeProto, settings: Settings
) -> None:
    """Quantize the constants of one node, and its bias to match (int32, scale sx x sw)."""
    if node.op_type == "Gather":
        # The table is looked up as integers and only what was found becomes float again.
        writer.looked_up(node, rounding.weight_grid(graph.weights[node.input[0]], kind="s8"))
        return
    if node.op_type in ELEMENTWISE:
        for position, name in enumerate(node.input):
            if name in graph.weights:
                values = graph.weights[name]
                grid = rounding.activation_grid(
                    float(values.min()), float(values.max()),
                    kind=settings.activations, symmetric=settings.symmetric,
                )  # fmt: skip
                writer.constant(node, position, grid, axis=None)
        return
    values = graph.weights[node.input[1]]
    axis = 0 if node.op_type == "Conv" or graph.flag(node, "transB") else values.ndim - 1
    channels = axis if settings.per_channel else None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    x_scale = float(writer.plan.grids[node.input[0]].scale)
    floor = None
    if bias is not None:
        floor = rounding.bias_floor(graph.weights[bias].ravel(), x_scale)
    grid = rounding.weight_grid(values, kind=settings.weights, axis=channels, floor=floor)
    writer.constant(node, 1, grid, axis=channels)
    if bias is not None:
        writer.constant(
            node, 2, rounding.bias_grid(grid, x_scale), axis=0 if settings.per_channel else None
        )
