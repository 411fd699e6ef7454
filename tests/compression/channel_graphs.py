"""Small graphs, one for each way in which channels pass through models: a table by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.compression.generated import Builder

IMAGE = ("N", 3, 8, 8)
TOKENS = ("N", "T", 6)


def builder(*, opset: int = 17) -> Builder:
    """A builder with weights of its own."""
    return Builder(
        draw=None,  # type: ignore[arg-type]  # nothing is drawn
        opset=opset,
        dtype=np.float32,
        constants="initializers",
        random=np.random.default_rng(3),
    )


def finished(
    b: Builder, y: str, *, shape: tuple[int | str, ...] = IMAGE, given: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """The model `x` -> `y`, with further inputs by name and shape."""
    b.nodes.append(helper.make_node("Identity", [y], ["y"]))
    taken = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))
        for name, dims in {"x": shape, **(given or {})}.items()
    ]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(b.nodes, "small", taken, out, b.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)])
    model.ir_version = 8
    helper.set_model_props(model, {"labels": "a,b"})
    return model


def conv(b: Builder, x: str, before: int, after: int, kernel: int = 3, **more: Any) -> str:
    weight = b.weights(after, before // more.get("group", 1), kernel, kernel)
    return b.node("Conv", x, weight, b.weights(after), pads=[kernel // 2] * 4, **more)


def head(b: Builder, x: str, channels: int) -> str:
    """To four logits: a Conv without padding, whose channels are a contract."""
    return conv(b, x, channels, 4, 1)


def linear(b: Builder, x: str, before: int, after: int) -> str:
    return b.node("Add", b.node("MatMul", x, b.weights(before, after)), b.weights(after))


def chain() -> onnx.ModelProto:
    b = builder()
    hidden = b.node("Relu", conv(b, "x", 3, 6))
    return finished(b, head(b, hidden, 6))


def residual() -> onnx.ModelProto:
    b = builder()
    x = conv(b, "x", 3, 6)
    y = conv(b, b.node("Relu", conv(b, x, 6, 5)), 5, 6)
    return finished(b, head(b, b.node("Add", x, y), 6))


def concat() -> onnx.ModelProto:
    b = builder()
    joined = b.node("Concat", conv(b, "x", 3, 4), "x", conv(b, "x", 3, 5), axis=1)
    return finished(b, head(b, joined, 12))


def split(opset: int = 17) -> onnx.ModelProto:
    b = builder(opset=opset)
    x = conv(b, "x", 3, 10)
    if opset < 13:
        one = b.node("Split", x, outputs=2, axis=1, split=[4, 6])
    else:
        one = b.node("Split", x, b.ints(4, 6), outputs=2, axis=1)
    other = f"t{int(one[1:]) + 1}"
    joined = b.node("Concat", one, other, conv(b, other, 6, 6), axis=1)
    return finished(b, head(b, joined, 16))


def halves() -> onnx.ModelProto:
    """Real and imaginary parts, as a spectrum is computed."""
    b = builder()
    x = conv(b, "x", 3, 12)
    one = b.node("Slice", x, b.ints(0), b.ints(6), b.ints(1))
    other = b.node("Slice", x, b.ints(-6), b.ints(2**63 - 1), b.ints(-3))
    power = b.node("Add", b.node("Mul", one, one), b.node("Mul", other, other))
    return finished(b, head(b, b.node("Sqrt", power), 6))


def counted_back() -> onnx.ModelProto:
    """Parts whose bounds are counted from the end."""
    b = builder()
    x = conv(b, "x", 3, 12)
    one = b.node("Slice", x, b.ints(0), b.ints(-8), b.ints(1))
    other = b.node("Slice", x, b.ints(-8), b.ints(-3), b.ints(-3))
    last = b.node("Slice", x, b.ints(-3), b.ints(2**62), b.ints(1))
    away = [conv(b, x, width, 3) for x, width in ((one, 4), (other, 5), (last, 3))]
    return finished(b, head(b, b.node("Concat", *away, axis=1), 9))


def mirrored() -> onnx.ModelProto:
    b = builder()
    x = conv(b, "x", 3, 6)
    back = b.node("Slice", x, b.ints(-1), b.ints(-(2**62)), b.ints(1), b.ints(-1))
    picked = b.node("Gather", x, b.ints(4, 0, 0, 2), axis=1)
    return finished(b, head(b, b.node("Concat", back, picked, axis=1), 10))


def depthwise() -> onnx.ModelProto:
    b = builder()
    x = conv(b, conv(b, "x", 3, 6), 6, 12, group=6)
    many = [b.constant(b.random.uniform(0.5, 2, 12)) for _ in range(4)]
    return finished(b, head(b, b.node("BatchNormalization", x, *many), 12))


def grouped() -> onnx.ModelProto:
    b = builder()
    x = conv(b, conv(b, "x", 3, 8), 8, 12, group=4)
    return finished(b, head(b, x, 12))


def transposed() -> onnx.ModelProto:
    b = builder()
    x = conv(b, "x", 3, 6)
    x = b.node("ConvTranspose", x, b.weights(6, 8, 2, 2), b.weights(8), strides=[2, 2])
    x = b.node("ConvTranspose", x, b.weights(8, 3, 2, 2), b.weights(6), group=2)
    x = b.node("ConvTranspose", x, b.weights(6, 2, 2, 2), group=6)
    return finished(b, head(b, x, 12))


def excited() -> onnx.ModelProto:
    b = builder()
    x = conv(b, "x", 3, 6)
    inner = b.node("Relu", conv(b, b.node("GlobalAveragePool", x), 6, 4, 1))
    gate = b.node("HardSigmoid", conv(b, inner, 4, 6, 1))
    return finished(b, head(b, b.node("Mul", x, gate), 6))


def shuffled() -> onnx.ModelProto:
    b = builder()
    x = conv(b, "x", 3, 18)
    apart = b.node("Reshape", x, b.ints(0, 3, 6, 8, 8))
    turned = b.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
    x = conv(b, b.node("Reshape", turned, b.ints(0, 18, 8, 8)), 18, 6, group=3)
    return finished(b, head(b, x, 6))


def blocks() -> onnx.ModelProto:
    b = builder()
    up = b.node("DepthToSpace", conv(b, "x", 3, 12), blocksize=2, mode="CRD")
    wide = conv(b, b.node("SpaceToDepth", up, blocksize=2), 12, 8)
    return finished(b, head(b, b.node("DepthToSpace", wide, blocksize=2), 2))


def flattened() -> onnx.ModelProto:
    b = builder()
    flat = b.node("Flatten", b.node("MaxPool", conv(b, "x", 3, 6), kernel_shape=[4, 4]))
    return finished(b, b.node("Gemm", flat, b.weights(150, 4), b.weights(4)))


def padded() -> onnx.ModelProto:
    b = builder()
    x = b.node("Pad", conv(b, "x", 3, 6), b.ints(0, 1, 0, 0, 0, 2, 0, 0))
    scales = b.constant([1.0, 1.0, 2.0, 2.0])
    return finished(b, head(b, b.node("Resize", x, "", scales), 9))


def attention() -> onnx.ModelProto:
    """Two heads of three; the target of each Reshape is computed from what is read."""
    b = builder()
    shape = b.node("Shape", "x")
    ends = [b.node("Gather", shape, b.ints(at)) for at in (0, 1)]
    apart = b.node("Concat", *ends, b.ints(4), b.ints(3), axis=0)
    turned = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    q, k, v = (
        b.node("Transpose", b.node("Reshape", linear(b, "x", 6, 12), apart), perm=perm)
        for perm in turned.values()
    )
    seen = b.node("MatMul", b.node("Softmax", b.node("MatMul", q, k)), v)
    together = b.node("Concat", *ends, b.ints(12), axis=0)
    merged = b.node("Reshape", b.node("Transpose", seen, perm=[0, 2, 1, 3]), together)
    x = b.node("Add", "x", linear(b, merged, 12, 6))
    x = b.node("LayerNormalization", x, b.weights(6), b.weights(6))
    hidden = b.node("Mul", (wide := linear(b, x, 6, 10)), b.node("Sigmoid", wide))
    return finished(b, linear(b, hidden, 10, 6), shape=TOKENS)


def fused() -> onnx.ModelProto:
    """Queries, keys and values from one weight."""
    b = builder()
    apart = b.node("Reshape", linear(b, "x", 6, 24), b.ints(0, 0, 3, 4, 2))
    turned = b.node("Transpose", apart, perm=[2, 0, 3, 1, 4])
    q, k, v = (b.node("Gather", turned, b.constant(at, np.int64), axis=0) for at in range(3))
    scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2]))
    seen = b.node("MatMul", b.node("Softmax", scores), v)
    merged = b.node("Reshape", b.node("Transpose", seen, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    return finished(b, linear(b, merged, 8, 6), shape=TOKENS)


def recurrent() -> onnx.ModelProto:
    """A GRU of zeros' width behind a table of projections, then a bidirectional LSTM."""
    b = builder()
    steps = b.node("Transpose", linear(b, "x", 6, 8), perm=[1, 0, 2])
    batch = b.node("Gather", b.node("Shape", steps), b.ints(1))
    state = b.node("ConstantOfShape", b.node("Concat", b.ints(1), batch, b.ints(5), axis=0))
    weights = [b.weights(1, 15, 8), b.weights(1, 15, 5), b.weights(1, 30)]
    y = b.node("GRU", steps, *weights, "", state, outputs=2, hidden_size=5)
    weights = [b.weights(2, 16, 5), b.weights(2, 16, 4), b.weights(2, 32)]
    both = b.node(
        "LSTM", b.node("Squeeze", y, b.ints(1)), *weights, hidden_size=4, direction="bidirectional"
    )
    merged = b.node("Reshape", b.node("Transpose", both, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    return finished(b, linear(b, merged, 8, 6), shape=TOKENS)


def leaking() -> onnx.ModelProto:
    """A Sigmoid makes one half of a channel that is zero: Convs without and with padding."""
    b = builder()
    x = b.node("Sigmoid", conv(b, "x", 3, 6))
    x = b.node("Exp", b.node("Conv", x, b.weights(6, 6, 1, 1)))
    x = b.node("Sigmoid", conv(b, x, 6, 6))
    flat = b.node("Flatten", b.node("GlobalMaxPool", x))
    hidden = b.node("Gemm", flat, b.weights(6, 6), b.weights(6), alpha=0.5, beta=2.0)
    return finished(b, b.node("MatMul", b.node("Softplus", hidden), b.weights(6, 4)))


def bordered() -> onnx.ModelProto:
    """One half is no constant where a pooling counts zeros at the border."""
    b = builder()
    x = b.node("Sigmoid", conv(b, "x", 3, 6))
    counted = {"pads": [1] * 4, "count_include_pad": 1}
    return finished(b, head(b, b.node("AveragePool", x, kernel_shape=[3, 3], **counted), 6))


GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    one.__name__: one
    for one in (
        chain, residual, concat, split, halves, counted_back, mirrored, depthwise, grouped,
        transposed, excited, shuffled, blocks, flattened, padded, attention, fused, recurrent,
        leaking, bordered,
    )
}  # fmt: skip


def branch(b: Builder, x: str) -> str:
    """An If whose body reads `x`."""
    bodies = []
    for kind in ("Relu", "Neg"):
        name = b.name()
        nodes = [helper.make_node(kind, [x], [name])]
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        bodies.append(helper.make_graph(nodes, kind, [], [out]))
    condition = numpy_helper.from_array(np.array(True), b.name())
    b.initializers.append(condition)
    return b.node("If", condition.name, then_branch=bodies[0], else_branch=bodies[1])
