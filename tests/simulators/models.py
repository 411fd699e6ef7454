"""Small true ONNX models, written in milliseconds, for tests that load and run real files."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, NDArray[Any]]


def mlp(path: Path, *, seed: int = 0, hidden: int = 16, opset: int = 17) -> Path:
    """Write a two-layer perceptron: `x` float32 [N, 8] -> `y` float32 [N, 4] logits."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": _weights(random, 8, hidden),
        "b1": _weights(random, hidden) * 0.1,
        "w2": _weights(random, hidden, 4),
        "b2": _weights(random, 4) * 0.1,
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second"),
    ]
    return save(path, nodes, weights, {"x": ("N", 8)}, {"y": ("N", 4)}, opset=opset)


def cnn(path: Path, *, seed: int = 0, width: int = 16, opset: int = 17) -> Path:
    """Write a small mobile-style CNN: `image` float32 [N, 3, 32, 32] -> `logits` [N, 10]."""
    nodes, weights = _cnn_parts(seed, width)
    shapes = {"image": ("N", 3, 32, 32)}
    return save(path, nodes, weights, shapes, {"logits": ("N", 10)}, opset=opset)


def constants_in_nodes(path: Path, *, seed: int = 0, opset: int = 11) -> Path:
    """Write the CNN of `cnn` with its weights in Constant nodes, as some exporters do."""
    nodes, weights = _cnn_parts(seed, 8)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in weights.items()
    ]
    shapes = {"image": ("N", 3, 32, 32)}
    metadata = {"character": "abc"}
    outputs = {"logits": ("N", 10)}
    return save(path, constants + nodes, {}, shapes, outputs, opset=opset, metadata=metadata)


def _cnn_parts(seed: int, width: int) -> tuple[list[onnx.NodeProto], Arrays]:
    random = np.random.default_rng(seed)
    weights: Arrays = {
        "stem.w": _weights(random, width, 3, 3, 3),
        "stem.b": _weights(random, width) * 0.1,
        "depth.w": _weights(random, width, 1, 3, 3),
        "depth.b": _weights(random, width) * 0.1,
        "point.w": _weights(random, 2 * width, width, 1, 1),
        "point.b": _weights(random, 2 * width) * 0.1,
        "body.w": _weights(random, 2 * width, 2 * width, 3, 3),
        "body.b": _weights(random, 2 * width) * 0.1,
        "head.w": _weights(random, 2 * width, 10),
        "head.b": np.zeros(10, np.float32),
    }
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node(
            "Conv", ["image", "stem.w", "stem.b"], ["c1"], "stem", strides=[2, 2], **pads
        ),
        helper.make_node("Relu", ["c1"], ["r1"], "stem.act"),
        helper.make_node(
            "Conv", ["r1", "depth.w", "depth.b"], ["c2"], "depth", group=width, **pads
        ),
        helper.make_node("Relu", ["c2"], ["r2"], "depth.act"),
        helper.make_node("Conv", ["r2", "point.w", "point.b"], ["c3"], "point"),
        helper.make_node("Relu", ["c3"], ["r3"], "point.act"),
        helper.make_node("Conv", ["r3", "body.w", "body.b"], ["c4"], "body", **pads),
        helper.make_node("Add", ["c4", "r3"], ["a4"], "residual"),
        helper.make_node("Relu", ["a4"], ["r4"], "body.act"),
        helper.make_node("GlobalAveragePool", ["r4"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten", axis=1),
        helper.make_node("Gemm", ["f", "head.w", "head.b"], ["logits"], "head"),
    ]
    # The bias takes out what all inputs have in common, so that the ten classes really occur.
    features = _pooled(nodes[:-1], weights, random)
    weights["head.b"] = -(features.mean(axis=0) @ weights["head.w"]).astype(np.float32)
    return nodes, weights


def _pooled(
    nodes: list[onnx.NodeProto], weights: Arrays, random: np.random.Generator
) -> NDArray[np.float32]:
    path = Path(tempfile.mkdtemp()) / "features.onnx"
    save(path, nodes, weights, {"image": ("N", 3, 32, 32)}, {"f": ("N", "C")})
    session = onnxruntime.InferenceSession(path)
    path.unlink()
    path.parent.rmdir()
    images = sample_arrays({"image": ((3, 32, 32), np.dtype(np.float32))}, 32, random)
    features: NDArray[np.float32] = session.run(None, images)[0]
    return features


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Sequence[str | int]],
    outputs: Mapping[str, Sequence[str | int]],
    *,
    opset: int = 17,
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, int] | None = None,
) -> Path:
    """Write any small graph; tensors are float32 unless `dtypes` names a TensorProto type."""

    def values(shapes: Mapping[str, Sequence[str | int]]) -> list[onnx.ValueInfoProto]:
        kinds = dtypes or {}
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        list(nodes),
        "small",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    if metadata:
        helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    return path


def sample_inputs(path: Path, count: int = 8, seed: int = 0) -> Arrays:
    """Make inputs for the model at `path`, by input name, samples on the leading axis.

    Each sample has its own brightness and contrast, so that a random network tells them
    apart. Dynamic dims behind the leading one become 8.
    """
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for value in graph.input:
        if value.name not in weights:
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value or 8 for dim in kind.shape.dim[1:])
            wanted[value.name] = shape, helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return sample_arrays(wanted, count, np.random.default_rng(seed))


def sample_arrays(
    wanted: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    count: int,
    random: np.random.Generator,
) -> Arrays:
    """Make arrays of [count, *shape] for each name -> (shape of one sample, dtype)."""
    arrays: Arrays = {}
    for name, (shape, dtype) in wanted.items():
        full = (count, *shape)
        if np.issubdtype(dtype, np.floating):
            per_channel = (count, *shape[:1], *(1 for _ in shape[1:]))
            noise = random.normal(size=full) * random.uniform(0.2, 1.5, per_channel)
            arrays[name] = (noise + random.normal(size=per_channel)).astype(dtype)
        else:
            arrays[name] = random.integers(0, 8, full).astype(dtype)
    return arrays


def _weights(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    fan_in = max(1, int(np.prod(shape[1:])) if len(shape) > 2 else shape[0])
    weights: NDArray[np.float32] = (random.normal(size=shape) * (2.0 / fan_in) ** 0.5).astype("f4")
    return weights
