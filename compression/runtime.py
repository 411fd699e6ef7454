"""onnxruntime sessions as compression uses them: options, loading, running, errors in one line."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from compression.errors import BadInputs, BadModel
from compression.job import InputSpec, Runtime
from compression.packed import reading

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip
_LEAST_DIM = 8
"""What a dynamic dim behind the batch becomes when nobody says how large it is."""


def options(how: Runtime | None = None, *, optimization: str | None = None) -> Any:
    """Session options as deployed: no spinning, one thread between operators, quiet."""
    how = how or Runtime()
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = how.threads
    chosen.inter_op_num_threads = 1
    chosen.enable_cpu_mem_arena = how.arena
    chosen.enable_mem_pattern = how.pattern
    if not how.pattern:  # weights outside of the arena, which only ever grows by powers of two
        chosen.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    chosen.log_severity_level = 3
    chosen.graph_optimization_level = LEVELS[optimization or how.optimization]
    # Threads that spin between requests burn the CPU that the device needs.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It drops zeros padded before a MaxPool, whose own padding is minus infinity.
    chosen.add_session_config_entry("optimization.disable_specified_optimizers", "Pad_Fusion")
    return chosen


def session(model: Path | onnx.ModelProto, chosen: Any | None = None) -> Any:
    """Load a model; a file may be packed.

    Raises:
        BadModel: onnxruntime does not load it; the message carries its reason. Or a packed file
            is corrupt.
    """
    if not isinstance(model, Path):
        return _loaded(model.SerializeToString(), chosen, name="the changed model")
    with reading.opened(model) as source:
        return _loaded(str(source), chosen, name=model.name)


def _loaded(source: str | bytes, chosen: Any | None, *, name: str) -> Any:
    try:
        return ort.InferenceSession(source, chosen or options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status
        raise BadModel(f"cannot load {name}: {one_line(error)}") from error


def run(loaded: Any, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run once; outputs by name.

    Raises:
        BadModel: it fails while running.
    """
    names = [value.name for value in loaded.get_outputs()]
    try:
        return dict(zip(names, loaded.run(names, dict(feeds)), strict=True))
    except Exception as error:
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        raise BadModel(f"cannot run the model on inputs of {shapes}: {one_line(error)}") from error


def ready(loaded: Any, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
    """Return what runs a session once on inputs that lie ready; outputs go where the session likes.

    Raises:
        BadModel: it fails while running, now or when called.
    """
    binding = loaded.io_binding()

    def once() -> None:
        try:
            loaded.run_with_iobinding(binding)
        except Exception as error:
            raise BadModel(f"cannot run the model: {one_line(error)}") from error

    try:
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for value in loaded.get_outputs():
            binding.bind_output(value.name, "cpu")
    except Exception as error:
        raise BadModel(f"cannot run the model: {one_line(error)}") from error
    return once


def each(loaded: Any, feeds: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Run once and give one output after the other, so that numpy never holds all of them.

    Raises:
        BadModel: it fails while running.
    """
    names = [value.name for value in loaded.get_outputs()]
    try:
        given = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        found = loaded.run_with_ort_values(names, given)
    except Exception as error:
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        raise BadModel(f"cannot run the model on inputs of {shapes}: {one_line(error)}") from error
    found.reverse()
    for name in names:
        yield name, found.pop().numpy()


def input_spec(value: Any) -> InputSpec:
    """Turn a session's NodeArg into words: dynamic dims are -1.

    Raises:
        BadModel: it is no tensor of numbers.
    """
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise BadModel(f"cannot use a model with {value.name!r} of type {value.type}")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in value.shape)
    return InputSpec(name=value.name, dtype=_DTYPES[kind], shape=shape)


def inputs(loaded: Any) -> tuple[InputSpec, ...]:
    """The inputs of a loaded model."""
    return tuple(input_spec(value) for value in loaded.get_inputs())


def synthetic(
    loaded: Any, *, seed: int, specs: tuple[InputSpec, ...] = ()
) -> dict[str, NDArray[Any]]:
    """Make random inputs for one run: normal floats, small whole numbers.

    Shapes are the specs' reference shapes where given.

    Raises:
        BadInputs: an input would be absurdly large.
    """
    rng = np.random.default_rng(seed)
    given = {spec.name: spec for spec in specs}
    feeds: dict[str, NDArray[Any]] = {}
    for own in inputs(loaded):
        spec = given.get(own.name, own)
        shape = spec.reference_shape or tuple(
            dim if dim >= 0 else (1 if at == 0 else _LEAST_DIM) for at, dim in enumerate(own.shape)
        )
        if functools.reduce(lambda a, b: a * b, shape, 1) > 2**28:
            raise BadInputs(f"cannot make inputs of shape {list(shape)} for {own.name!r}")
        if np.issubdtype(np.dtype(own.dtype), np.inexact):
            feeds[own.name] = rng.normal(size=shape).astype(own.dtype)
        else:
            feeds[own.name] = rng.integers(0, 2, shape).astype(own.dtype)
    return feeds


def one_line(error: BaseException) -> str:
    """The runtime's reason without its banner, in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ")[:300]
