"""What a model takes and gives, and whether inputs fit it (pure)."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.oip import Spec
from agent.protocol.tensors import Array

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def spec(node: Any, what: str) -> Spec:
    """An input or an output, as onnxruntime describes it.

    Raises:
        BadInput: of a type that the protocol has no name for.
    """
    if node.type not in _DATATYPES:
        raise BadInput(f"cannot serve {what} '{node.name}' of type {node.type}")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return Spec(node.name, tensors.DATATYPES[_DATATYPES[node.type]], shape)


def check(specs: Sequence[Spec], inputs: Mapping[str, Array]) -> None:
    """Check names, datatypes and shapes of `inputs` against what a model takes.

    Raises:
        BadInput: naming the input, and what is wrong with it.
    """
    for name, dtype, shape in specs:
        array = inputs.get(name)
        if array is None:
            raise BadInput(f"cannot run without input '{name}': given are {_names(inputs)}")
        if array.dtype != dtype:
            raise BadInput(
                f"cannot use input '{name}': {tensors.NAMES[array.dtype]}, "
                f"the model takes {tensors.NAMES[dtype]}"
            )
        if array.shape != shape and not _fits(array.shape, shape):
            raise BadInput(
                f"cannot use input '{name}': shape {list(array.shape)}, "
                f"the model takes {list(shape)}"
            )
    if len(inputs) != len(specs):
        odd = set(inputs) - {spec.name for spec in specs}
        raise BadInput(f"cannot use input {_names(odd)}: the model has no such input")


def _fits(shape: tuple[int, ...], free: tuple[int, ...]) -> bool:
    """Whether a shape is one of those that the model takes; dims of -1 are free."""
    return len(shape) == len(free) and all(
        want in (-1, dim) for want, dim in zip(free, shape, strict=True)
    )


def _names(names: Mapping[str, Any] | set[str]) -> str:
    return ", ".join(f"'{name[:60]}'" for name in sorted(names)[:5]) or "none"
