"""What an ONNX file says of itself: its inputs and outputs, and what outputs seem to mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from agent.errors import BadInput
from compression.job import InputSpec, OutputSpec
from compression.meaning import tails
from compression.packed import reading


@dataclass(frozen=True)
class Facts:
    """A model's inputs and outputs; `guessed` names the outputs whose kind nobody gave."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    guessed: tuple[str, ...]


def read(path: Path, *, named: Sequence[OutputSpec] = ()) -> Facts:
    """Read a model's facts; the outputs in `named` mean what is said there.

    Raises:
        BadInput: no such file, no valid ONNX, weights in other files, or an unknown output.
    """
    graph = _load(path).graph
    weights = {each.name for each in graph.initializer}
    inputs = tuple(_input(each) for each in graph.input if each.name not in weights)
    known = [each.name for each in graph.output]
    for output in named:
        if output.name not in known:
            raise BadInput(
                f"cannot describe output {output.name!r}: {path.name} has {', '.join(known)}"
            )
    told = {output.name: output for output in named}
    given = [_input(each) for each in graph.output]
    guessed = tails.read(graph, inputs=inputs, outputs=given)
    outputs = tuple(told.get(each.name, each) for each in guessed)
    return Facts(inputs, outputs, tuple(name for name in known if name not in told))


def _load(path: Path) -> onnx.ModelProto:
    try:
        with reading.opened(path) as plain:
            model = onnx.load(str(plain), load_external_data=False)
    except Exception as error:  # protobuf and file errors have no common base
        raise _bad(path, error) from error
    if any(uses_external_data(each) for each in model.graph.initializer):
        raise BadInput(
            f"cannot publish {path}: its weights lie in other files; save it as one file "
            "(onnx.save without external data)"
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _bad(path, error) from error
    if not model.graph.input or not model.graph.output:
        raise BadInput(f"cannot publish {path}: it has no inputs or no outputs")
    return model


def _bad(path: Path, error: Exception) -> BadInput:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BadInput(f"cannot read {path} as an ONNX model: {reason}")


def _input(value: onnx.ValueInfoProto) -> InputSpec:
    return InputSpec(name=value.name, dtype=_dtype(value), shape=_shape(value))


def _dtype(value: onnx.ValueInfoProto) -> str:
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except KeyError as error:
        raise BadInput(f"cannot publish: {value.name!r} is no tensor") from error
    return str(dtype.name)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
