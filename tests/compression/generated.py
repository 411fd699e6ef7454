"""Random graphs out of the operators that real models use: wiring, dtypes and opsets drawn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Draw = Callable[[st.SearchStrategy[Any]], Any]
OPSETS = range(11, 22)


@dataclass
class Tensor:
    """A tensor by name: [N, C, H, W] where H and W are equal sizes, or [N, C]."""

    name: str
    channels: int
    size: int = 0

    @property
    def image(self) -> bool:
        return self.size > 0


@dataclass
class Builder:
    """A graph under construction."""

    draw: Draw
    opset: int
    dtype: type[np.floating[Any]]
    constants: str
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; returns its first output."""
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def constant(self, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value, dtype or self.dtype)
        name = self.name()
        tensor = numpy_helper.from_array(array, name)
        if self.constants == "initializers":
            self.initializers.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def weights(self, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self.random.normal(size=shape) / fan_in**0.5)

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))


def conv(b: Builder, x: Tensor) -> Tensor:
    groups = b.pick(1, x.channels)
    out = x.channels if groups > 1 else b.pick(2, 3, 4)
    kernel = b.pick(1, 3)
    pads = [kernel // 2] * 4
    source = x.name
    if b.pick(False, True):  # the same padding as a node of its own
        source = b.node("Pad", source, b.ints(0, 0, *pads[:2], 0, 0, *pads[:2]))
        pads = [0] * 4
    weight = b.weights(out, x.channels // groups, kernel, kernel)
    biased = [b.constant(b.random.normal(size=out))] if b.pick(False, True) else []
    y = b.node("Conv", source, weight, *biased, group=groups, pads=pads)
    return Tensor(y, out, x.size)


def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    groups = b.pick(1, x.channels)
    weight = b.weights(x.channels, 2, 3, 3)
    y = b.node("ConvTranspose", x.name, weight, group=groups, pads=[1] * 4)
    return Tensor(y, 2 * groups, x.size)


def normalization(b: Builder, x: Tensor) -> Tensor:
    many = [b.constant(b.random.uniform(0.5, 2, x.channels)) for _ in range(4)]
    return Tensor(b.node("BatchNormalization", x.name, *many), x.channels, x.size)


def activation(b: Builder, x: Tensor) -> Tensor:
    kind = b.pick("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Identity", "Abs")
    return Tensor(b.node(kind, x.name), x.channels, x.size)


def clip(b: Builder, x: Tensor) -> Tensor:
    y = b.node("Clip", x.name, b.constant(-1.0), b.constant(1.0))
    return Tensor(y, x.channels, x.size)


def dropout(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 12:
        return Tensor(b.node("Dropout", x.name, ratio=0.3), x.channels, x.size)
    training = [b.constant(False, np.bool_)] if b.pick(False, True) else []
    y = b.node("Dropout", x.name, b.constant(0.3), *training)
    return Tensor(y, x.channels, x.size)


def scaled(b: Builder, x: Tensor) -> Tensor:
    shape = (1, x.channels, 1, 1) if x.image else (x.channels,)
    kind = b.pick("Mul", "Add", "Sub")
    other = b.constant(b.random.uniform(0.5, 2, shape))
    return Tensor(b.node(kind, x.name, other), x.channels, x.size)


def pool(b: Builder, x: Tensor) -> Tensor:
    kind, more = b.pick(("MaxPool", {}), ("AveragePool", {"count_include_pad": 1}))
    y = b.node(kind, x.name, kernel_shape=[3, 3], pads=[1] * 4, **more)
    return Tensor(y, x.channels, x.size)


def padded_pool(b: Builder, x: Tensor) -> Tensor:
    """A Pad that must not be folded: zeros are not what MaxPool pads with."""
    mode = b.pick("constant", "reflect", "edge")
    padded = b.node("Pad", x.name, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode=mode)
    return Tensor(b.node("MaxPool", padded, kernel_shape=[3, 3]), x.channels, x.size)


def squeeze_excite(b: Builder, x: Tensor) -> Tensor:
    mean = b.node("GlobalAveragePool", x.name)
    gate = b.node("Sigmoid", b.node("Conv", mean, b.weights(x.channels, x.channels, 1, 1)))
    return Tensor(b.node("Mul", x.name, gate), x.channels, x.size)


def split_concat(b: Builder, x: Tensor) -> Tensor:
    if x.channels < 2:
        return activation(b, x)
    parts = (1, x.channels - 1)
    if b.opset < 13:
        first = b.node("Split", x.name, outputs=2, axis=1, split=list(parts))
    else:
        first = b.node("Split", x.name, b.ints(*parts), outputs=2, axis=1)
    second = f"t{int(first[1:]) + 1}"
    return Tensor(b.node("Concat", second, first, axis=1), x.channels, x.size)


def flatten(b: Builder, x: Tensor) -> Tensor:
    """To [N, C], by Flatten or by shape arithmetic on the batch."""
    mean = b.node("GlobalAveragePool", x.name)
    if b.pick(False, True):
        return Tensor(b.node("Flatten", mean), x.channels)
    shape = b.node("Shape", mean)
    batch, channels = (b.node("Gather", shape, b.ints(at)) for at in (0, 1))
    target = b.node("Concat", batch, channels, axis=0)
    return Tensor(b.node("Reshape", mean, target), x.channels)


def gemm(b: Builder, x: Tensor) -> Tensor:
    out = b.pick(2, 3, 5)
    trans = b.pick(0, 1)
    weight = b.weights(*((out, x.channels) if trans else (x.channels, out)))
    bias = b.constant(b.random.normal(size=b.pick(1, out)))
    y = b.node("Gemm", x.name, weight, bias, transB=trans, beta=b.pick(1.0, 0.5))
    return Tensor(y, out)


def matmul(b: Builder, x: Tensor) -> Tensor:
    out = b.pick(2, 4)
    product = b.node("MatMul", x.name, b.weights(x.channels, out))
    return Tensor(b.node("Add", product, b.constant(b.random.normal(size=out))), out)


def centred(b: Builder, x: Tensor) -> Tensor:
    """ReduceMean, whose axes moved from an attribute to an input at opset 18."""
    if b.opset < 18:
        mean = b.node("ReduceMean", x.name, axes=[1])
    else:
        mean = b.node("ReduceMean", x.name, b.ints(1))
    return Tensor(b.node("Sub", x.name, mean), x.channels, x.size)


def softmax(b: Builder, x: Tensor) -> Tensor:
    """Its default axis changed at opset 13, and what it flattens."""
    kept = b.pick({}, {"axis": 1})
    return Tensor(b.node("Softmax", x.name, **kept), x.channels, x.size)


def squeezed(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 13:
        wide = b.node("Unsqueeze", x.name, axes=[1])
        return Tensor(b.node("Squeeze", wide, axes=[1]), x.channels, x.size)
    wide = b.node("Unsqueeze", x.name, b.ints(1))
    return Tensor(b.node("Squeeze", wide, b.ints(1)), x.channels, x.size)


def branch(b: Builder, x: Tensor) -> Tensor:
    """An If with a constant of its own in one body, and a captured tensor in the other."""
    bodies = []
    for kind, at in (("Mul", 0), ("Add", 1)):
        name = b.name()
        value = numpy_helper.from_array(np.asarray(b.random.normal(), b.dtype), f"{name}.c")
        nodes = [
            helper.make_node("Constant", [], [f"{name}.c"], value=value),
            helper.make_node(kind, [x.name, f"{name}.c"], [name]),
        ]
        given = helper.make_tensor_value_info(name, kind_of(b.dtype), None)
        bodies.append(helper.make_graph(nodes, f"body{at}", [], [given]))
    y = b.node("If", "flag", then_branch=bodies[0], else_branch=bodies[1])
    return Tensor(y, x.channels, x.size)


def joined(b: Builder, x: Tensor, other: Tensor) -> Tensor:
    kind = b.pick("Add", "Mul", "Concat")
    if kind == "Concat":
        y = b.node("Concat", x.name, other.name, axis=1)
        return Tensor(y, x.channels + other.channels, x.size)
    return Tensor(b.node(kind, x.name, other.name), x.channels, x.size)


ANY = (activation, clip, dropout, scaled, centred, softmax, squeezed, normalization, branch)
IMAGE = (conv, conv_transpose, pool, padded_pool, squeeze_excite, split_concat, flatten)
VECTOR = (gemm, matmul, split_concat)


def kind_of(dtype: Any) -> int:
    """The TensorProto type of a numpy dtype."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


@st.composite
def graphs(draw: Draw) -> onnx.ModelProto:
    """A model with 1 to 3 outputs, dynamic batch, dynamic or fixed space, and metadata."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731  # reads like the rest
    b = Builder(
        draw=draw,
        opset=pick(*OPSETS),
        dtype=pick(np.float32, np.float32, np.float32, np.float16),
        constants=pick("initializers", "nodes"),
        random=np.random.default_rng(draw(st.integers(0, 999))),
    )
    space = pick(8, "S")
    live = [Tensor("image", 3, 8), embedded(b)]
    for _ in range(draw(st.integers(1, 12))):
        x = pick(*live)
        same = [t for t in live if t is not x and t.image == x.image and t.size == x.size]
        same = [t for t in same if t.channels == x.channels]
        if same and pick(False, False, True):
            live.append(joined(b, x, pick(*same)))
        else:
            live.append(pick(*ANY, *(IMAGE if x.image else VECTOR))(b, x))
    return finished(b, space, live)


def embedded(b: Builder) -> Tensor:
    """A row of a table for each sample, by an int32 or int64 input named `index`."""
    table = b.weights(2, 4)
    return Tensor(b.node("Gather", table, "index", axis=0), 4)


def finished(b: Builder, space: int | str, live: list[Tensor]) -> onnx.ModelProto:
    """The model: a few of the last tensors are its outputs."""
    made = {name for node in b.nodes for name in node.output}
    outputs = [t for t in live if t.name in made][-b.pick(1, 2, 3) :]
    kind = kind_of(b.dtype)
    inputs = [
        helper.make_tensor_value_info("image", kind, ["N", 3, space, space]),
        helper.make_tensor_value_info("index", b.pick(TensorProto.INT32, TensorProto.INT64), ["N"]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    given = [helper.make_tensor_value_info(t.name, kind, None) for t in outputs]
    graph = helper.make_graph(b.nodes, "generated", inputs, given, b.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)])
    model.ir_version = 8 if b.opset < 19 else 10
    helper.set_model_props(model, {"labels": "a,b"})
    return model
