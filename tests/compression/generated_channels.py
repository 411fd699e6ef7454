"""Random graphs whose channels can all be followed: blocks of real models, wired at random."""

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compression.regular import constants
from tests.compression.generated import Builder, Draw, Tensor

WIDTHS = (4, 6, 8, 12)
OPSETS = range(13, 22)
SPACE = 8


def norm(b: Builder, x: Tensor) -> Tensor:
    many = [b.constant(b.random.uniform(0.5, 2, x.channels)) for _ in range(4)]
    return like(x, b.node("BatchNormalization", x.name, *many))


def like(x: Tensor, name: str) -> Tensor:
    return Tensor(name, x.channels, x.size)


def gelu(b: Builder, x: str) -> str:
    """By the error function, or by its approximation with tanh (Hendrycks and Gimpel, 2016)."""
    if b.pick(False, True):
        inner = b.node("Erf", b.node("Div", x, b.constant(2**0.5)))
    else:
        cube = b.node("Mul", b.node("Mul", x, b.node("Mul", x, x)), b.constant(0.044715))
        inner = b.node("Tanh", b.node("Mul", b.constant(0.79788), b.node("Add", x, cube)))
    shifted = b.node("Add", inner, b.constant(1.0))
    return b.node("Mul", b.node("Mul", x, shifted), b.constant(0.5))


def hard_swish(b: Builder, x: str) -> str:
    shifted = b.node("Add", x, b.constant(3.0))
    gate = b.node("Clip", shifted, b.constant(0.0), b.constant(6.0))
    return b.node("Div", b.node("Mul", gate, x), b.constant(6.0))


def silu(b: Builder, x: str) -> str:
    return b.node("Mul", x, b.node("Sigmoid", x))


COMPOSED = {"silu": silu, "gelu": gelu, "hard-swish": hard_swish}


def activation(b: Builder, x: Tensor) -> Tensor:
    kind = b.pick(
        "Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Softplus", "Clip", "Pow",
        "PRelu", "Max", "Add", "Sub", "Mul", "Div", *COMPOSED,
    )  # fmt: skip
    if kind in COMPOSED:
        return like(x, COMPOSED[kind](b, x.name))
    more = []
    if kind in {"PRelu", "Max", "Add", "Sub", "Mul", "Div"}:  # with a constant of each channel
        wide = (x.channels, 1, 1) if x.image else (x.channels,)
        more = [b.constant(b.random.uniform(0.5, 2, wide))]
    elif kind in {"Clip", "Pow"}:
        more = [b.constant(one) for one in ((0.5, 3.0) if kind == "Clip" else (2.0,))]
    return like(x, b.node(kind, x.name, *more))


def conv(b: Builder, x: Tensor, out: int | None = None) -> Tensor:
    out = out or b.pick(*WIDTHS)
    kernel = b.pick(1, 3)
    groups = 2 if x.channels % 2 == 0 and out % 2 == 0 and b.pick(False, False, True) else 1
    biased = [b.constant(b.random.normal(size=out))] if b.pick(False, True) else []
    weight = b.weights(out, x.channels // groups, kernel, kernel)
    y = b.node("Conv", x.name, weight, *biased, group=groups, pads=[kernel // 2] * 4)
    made = Tensor(y, out, x.size)
    made = norm(b, made) if b.pick(False, True) else made
    return activation(b, made) if b.pick(False, True) else made


def depthwise(b: Builder, x: Tensor) -> Tensor:
    many = b.pick(1, 1, 2)
    weight = b.weights(x.channels * many, 1, 3, 3)
    biased = [b.constant(b.random.normal(size=x.channels * many))] if b.pick(False, True) else []
    y = b.node("Conv", x.name, weight, *biased, group=x.channels, pads=[1] * 4)
    return activation(b, Tensor(y, x.channels * many, x.size))


def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    groups = b.pick(1, x.channels, *[2] * (x.channels % 2 == 0))
    width = b.pick(2, 3)
    bias = b.constant(b.random.normal(size=width * groups))
    weight = b.weights(x.channels, width, 3, 3)
    y = b.node("ConvTranspose", x.name, weight, bias, group=groups, pads=[1] * 4)
    return Tensor(y, width * groups, x.size)


def residual(b: Builder, x: Tensor) -> Tensor:
    first = conv(b, conv(b, x), x.channels)
    return like(x, b.node(b.pick("Add", "Sub", "Mul"), x.name, first.name))


def excite(b: Builder, x: Tensor) -> Tensor:
    mean = b.node("GlobalAveragePool", x.name)
    inner = b.pick(2, 4)
    hidden = b.node("Conv", mean, b.weights(inner, x.channels, 1, 1))
    wide = b.node("Conv", b.node("Relu", hidden), b.weights(x.channels, inner, 1, 1))
    gate = b.node(b.pick("Sigmoid", "HardSigmoid"), wide)
    return like(x, b.node("Mul", x.name, gate))


def partial(b: Builder, x: Tensor) -> Tensor:
    """Part of the channels takes another way and comes back (CSP, Wang et al., 2020)."""
    first = b.pick(2, x.channels // 2)
    if b.pick(False, True):
        one = b.node("Split", x.name, b.ints(first, x.channels - first), outputs=2, axis=1)
        other = f"t{int(one[1:]) + 1}"
    else:
        end = b.pick(first - x.channels, first)
        one = b.node("Slice", x.name, b.ints(0), b.ints(end), b.ints(1))
        other = b.node("Slice", x.name, b.ints(first), b.ints(2**63 - 1), b.ints(1), b.ints(1))
    away = conv(b, Tensor(other, x.channels - first, x.size))
    y = b.node("Concat", one, other, away.name, axis=1)
    return Tensor(y, x.channels + away.channels, x.size)


def picked(b: Builder, x: Tensor) -> Tensor:
    """Every second channel beside a mirror of all."""
    half = b.node("Slice", x.name, b.ints(0), b.ints(x.channels), b.ints(1), b.ints(2))
    mirror = b.node("Gather", x.name, b.ints(*reversed(range(x.channels))), axis=1)
    y = b.node("Concat", half, mirror, axis=-3)
    return Tensor(y, x.channels + (x.channels + 1) // 2, x.size)


def shuffled(b: Builder, x: Tensor) -> Tensor:
    """Zhang et al., "ShuffleNet", CVPR 2018."""
    groups = next(n for n in (2, 3, x.channels) if x.channels % n == 0)
    space = [b.size, b.size] if b.size else [0, 0]
    if not b.size:  # space is dynamic: its dims are read off
        shape = b.node("Shape", x.name)
        ends = b.node("Slice", shape, b.ints(2), b.ints(4), b.ints(0))
        wide = b.node("Concat", b.ints(0, groups, x.channels // groups), ends, axis=0)
        back = b.node("Concat", b.ints(0, x.channels), ends, axis=0)
    else:
        wide = b.ints(0, groups, x.channels // groups, *space)
        back = b.ints(0, -1, *space)
    apart = b.node("Reshape", x.name, wide)
    turned = b.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
    return like(x, b.node("Reshape", turned, back))


def pooled(b: Builder, x: Tensor) -> Tensor:
    kind, more = b.pick(("MaxPool", {}), ("AveragePool", {"count_include_pad": 1}))
    return like(x, b.node(kind, x.name, kernel_shape=[3, 3], pads=[1] * 4, **more))


def resized(b: Builder, x: Tensor) -> Tensor:
    scales = b.constant([1.0, 1.0, 2.0, 2.0], np.float32)
    up = b.node("Resize", x.name, "", scales, mode=b.pick("nearest", "linear"))
    return like(x, b.node("AveragePool", up, kernel_shape=[2, 2], strides=[2, 2]))


def padded(b: Builder, x: Tensor) -> Tensor:
    mode = b.pick("constant", "reflect", "edge")
    wide = b.node("Pad", x.name, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode=mode)
    y = b.node("MaxPool", wide, kernel_shape=[3, 3])
    if b.pick(False, True):
        y = b.node("Pad", y, b.ints(0, 1, 0, 0, 0, 1, 0, 0))
        return Tensor(y, x.channels + 2, x.size)
    return like(x, y)


def depth_space(b: Builder, x: Tensor) -> Tensor:
    mode = b.pick("DCR", "CRD")
    wide = conv(b, x, 4 * b.pick(2, 3))
    up = b.node("DepthToSpace", wide.name, blocksize=2, mode=mode)
    return Tensor(b.node("SpaceToDepth", up, blocksize=2), wide.channels, x.size)


def attention(b: Builder, x: Tensor) -> Tensor:
    """Over positions (Vaswani et al., 2017), from one weight for q, k and v, or from three."""
    heads, depth = b.pick(2, 3), b.pick(2, 4)
    flat = b.node("Reshape", x.name, b.ints(0, x.channels, -1))
    tokens = b.node("Transpose", flat, perm=[0, 2, 1])
    wide = heads * depth
    if b.pick(False, True):
        product = b.node("MatMul", tokens, b.weights(x.channels, 3 * wide))
        mixed = b.node("Add", product, b.constant(b.random.normal(size=3 * wide)))
        apart = b.node("Reshape", mixed, b.ints(0, -1, 3, heads, depth))
        turned = b.node("Transpose", apart, perm=[2, 0, 3, 1, 4])
        q, k, v = (b.node("Gather", turned, b.constant(at, np.int64), axis=0) for at in range(3))
    else:
        q, k, v = (projected(b, tokens, x.channels, heads, depth) for _ in range(3))
    turned = b.node("Transpose", k, perm=[0, 1, 3, 2])
    scores = b.node("Mul", b.node("MatMul", q, turned), b.constant(depth**-0.5))
    seen = b.node("MatMul", b.node("Softmax", scores, axis=-1), v)
    together = b.node("Transpose", seen, perm=[0, 2, 1, 3])
    merged = b.node("Reshape", together, b.ints(0, 0, b.pick(wide, -1)))
    out = b.node("MatMul", merged, b.weights(wide, x.channels))
    summed = Tensor(b.node("Add", tokens, out), x.channels)
    return like(x, image(b, feed_forward(b, summed).name, x.channels))


def projected(b: Builder, x: str, channels: int, heads: int, depth: int) -> str:
    product = b.node("MatMul", x, b.weights(channels, heads * depth))
    biased = b.node("Add", product, b.constant(b.random.normal(size=heads * depth)))
    apart = b.node("Reshape", biased, b.ints(0, 0, heads, depth))
    return b.node("Transpose", apart, perm=[0, 2, 1, 3])


def feed_forward(b: Builder, x: Tensor) -> Tensor:
    inner = b.pick(*WIDTHS)
    hidden = b.node("MatMul", x.name, b.weights(x.channels, inner))
    hidden = b.node("Add", hidden, b.constant(b.random.normal(size=inner)))
    out = b.node("MatMul", activation(b, Tensor(hidden, inner)).name, b.weights(inner, x.channels))
    return Tensor(b.node("Add", x.name, out), x.channels)


def image(b: Builder, tokens: str, channels: int) -> str:
    """Tokens [N, S * S, C] as an image again."""
    turned = b.node("Transpose", tokens, perm=[0, 2, 1])
    if b.size:
        return b.node("Reshape", turned, b.ints(0, channels, b.size, b.size))
    shape = b.node("Concat", b.ints(0, channels), b.node("Gather", "sizes", b.ints(2, 3)), axis=0)
    return b.node("Reshape", turned, shape)


BLOCKS = (
    conv, conv, residual, excite, partial, picked, shuffled, depthwise, conv_transpose, pooled,
    resized, padded, depth_space, attention, norm, activation,
)  # fmt: skip


def tail(b: Builder, x: Tensor) -> str:
    """To logits [N, 5], by a mean, by all positions, or by a recurrence along a row."""
    kind = b.pick("mean", "flat" if b.size else "mean", "recurrent")
    if kind == "flat":
        flat = b.node("Flatten", x.name)
        width = x.channels * x.size**2
    elif kind == "mean":
        axes = {"axes": [2, 3]} if b.opset < 18 else {}
        more = [] if axes else [b.ints(2, 3)]
        flat, width = b.node("ReduceMean", x.name, *more, keepdims=0, **axes), x.channels
    else:
        flat, width = recurrent(b, x)
    return b.node("Gemm", flat, b.weights(5, width), b.weights(5), transB=1)


def recurrent(b: Builder, x: Tensor) -> tuple[str, int]:
    rows = {"axes": [2]} if b.opset < 18 else {}
    more = [] if rows else [b.ints(2)]
    row = b.node("ReduceMax", x.name, *more, keepdims=0, **rows)
    steps = b.node("Transpose", row, perm=[2, 0, 1])
    kind, gates = b.pick(("LSTM", 4), ("GRU", 3), ("RNN", 1))
    ways, width = b.pick(1, 2), b.pick(3, 4)
    weights = [b.weights(ways, gates * width, size) for size in (x.channels, width)]
    bias = b.weights(ways, 2 * gates * width)
    named: dict[str, Any] = {"direction": "bidirectional"} if ways == 2 else {}
    y = b.node(kind, steps, *weights, bias, outputs=2, hidden_size=width, **named)
    last = f"t{int(y[1:]) + 1}"  # the last state, [ways, N, width]
    turned = b.node("Transpose", last, perm=[1, 0, 2])
    return b.node("Reshape", turned, b.ints(0, ways * width)), ways * width


class Sized(Builder):
    """A builder that knows whether the space is fixed; 0 where it is dynamic."""

    size: int = 0


@st.composite
def graphs(draw: Draw) -> onnx.ModelProto:
    """A model `image` float32 [N, 3, S, S] -> `logits` [N, 5]; S is 8, or dynamic."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731  # reads like the rest
    b = Sized(
        draw=draw,
        opset=pick(*OPSETS),
        dtype=np.float32,
        constants="initializers",
        random=np.random.default_rng(draw(st.integers(0, 999))),
    )
    b.size = pick(SPACE, 0)
    b.nodes.append(helper.make_node("Shape", ["image"], ["sizes"]))
    x = conv(b, Tensor("image", 3, SPACE))
    ways = [x]
    for _ in range(draw(st.integers(2, 8))):
        x = pick(*BLOCKS)(b, pick(x, x, *ways))
        ways.append(x)
    if len(ways) > 2 and pick(False, True):
        y = pick(*ways)
        x = Tensor(b.node("Concat", x.name, y.name, axis=1), x.channels + y.channels, x.size)
    space = b.size or "S"
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, space, space])
    b.nodes.append(helper.make_node("Identity", [tail(b, x)], ["logits"]))
    graph = helper.make_graph(b.nodes, "generated", [taken], [given], b.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)])
    model.ir_version = 8 if b.opset < 19 else 10
    constants.tidy(model, metadata=[])  # ways that lead nowhere, as a regular graph has none
    return model
