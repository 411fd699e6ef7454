"""One tensor of the Open Inference Protocol v2 as a numpy array: from and to JSON and bytes.

Specification: KServe "Open Inference Protocol" (inference_rest.md) and Triton's
extension_binary_data.md: little-endian, row-major, no padding; BYTES is a 4-byte length and
the bytes, here always UTF-8. The daemon never imports this: it would bring numpy with it.
"""

import math
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import BadInput

Array = npt.NDArray[Any]
Dtype = np.dtype[Any]
Shape = tuple[int, ...]

DATATYPES: dict[str, Dtype] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
NAMES: dict[Dtype, str] = {dtype: name for name, dtype in DATATYPES.items()}
# Which JSON values may stand in a tensor of which kind (numpy's kind letters).
_JSON_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "u": {int},
    "i": {int},
    "f": {int, float},
    "O": {str},
}
_MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 2**40


def from_json(name: str, data: Any, *, dtype: Dtype, shape: Shape) -> Array:
    """Make an array from `data`, a list that is flat or nested like `shape`.

    Raises:
        BadInput: ragged, of another shape, or a value that `dtype` cannot hold.
    """
    if dtype.kind == "f" and dtype.itemsize == 2:
        raise BadInput(f"cannot read input '{name}': FP16 has no form in JSON, send it in binary")
    values = _flat(name, data, shape)
    found = set(map(type, values))
    if not found <= _JSON_TYPES[dtype.kind]:
        odd = ", ".join(sorted(kind.__name__ for kind in found - _JSON_TYPES[dtype.kind]))
        raise BadInput(f"cannot read input '{name}': its data hold {odd}, not only {NAMES[dtype]}")
    return _array(name, values, dtype).reshape(shape)


def _flat(name: str, data: Any, shape: Shape) -> list[Any]:
    """One flat list; numpy is not asked to find the shape, its guesses can cost any memory."""
    if not isinstance(data, list):
        raise BadInput(f"cannot read input '{name}': its data are not a list")
    count = math.prod(shape)
    if not data or not isinstance(data[0], list):
        if len(data) != count:
            raise BadInput(
                f"cannot read input '{name}': {len(data)} values for shape {list(shape)}"
            )
        return data
    level = [data]
    for dim in shape:
        if not all(isinstance(part, list) and len(part) == dim for part in level):
            raise BadInput(f"cannot read input '{name}': its lists are not nested as {list(shape)}")
        level = list(chain.from_iterable(level))
    return level


def _array(name: str, values: list[Any], dtype: Dtype) -> Array:
    if dtype.kind == "O":
        array = np.empty(len(values), object)
        array[:] = values
        return array
    if dtype.kind == "b" or not values:
        return np.array(values, dtype)
    try:
        if dtype.kind == "f":
            with np.errstate(over="raise"):
                return np.array(values, "f8").astype(dtype)
        least, most = min(values), max(values)
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return np.array(values, dtype)
        shown = f"values from {least} to {most} do"
    except FloatingPointError:
        shown = "a value does"
    raise BadInput(f"cannot read input '{name}': {shown} not fit {NAMES[dtype]}")


def from_bytes(name: str, data: memoryview, *, dtype: Dtype, shape: Shape) -> Array:
    """Make the array of `shape` over `data` without a copy (BYTES and unaligned data: with one).

    Raises:
        BadInput: `data` has another length than the shape needs, or is not UTF-8 (BYTES).
    """
    if dtype.kind == "O":
        strings = _split_strings(name, data)
        if len(strings) != math.prod(shape):
            raise BadInput(
                f"cannot read input '{name}': {len(strings)} strings for shape {list(shape)}"
            )
        return _array(name, strings, dtype).reshape(shape)
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise BadInput(
            f"cannot read input '{name}': {len(data)} bytes of data, "
            f"shape {list(shape)} of {NAMES[dtype]} needs {needed}"
        )
    if not needed:
        return np.empty(shape, dtype)
    if dtype.kind == "b":  # a byte of 2 is no bool to C++
        truths: Array = np.frombuffer(data, "u1") != 0
        return truths.reshape(shape)
    array: Array = np.frombuffer(data, dtype)
    # Kernels may use loads that need alignment; the transport aligns what is long.
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def _split_strings(name: str, data: memoryview) -> list[str]:
    strings, at = [], 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or at > len(data):
            raise BadInput(f"cannot read input '{name}': a string ends after the data's end")
        try:
            strings.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError as error:  # onnxruntime's strings are UTF-8
            raise BadInput(f"cannot read input '{name}': a string is not UTF-8") from error
    return strings


def to_json(name: str, array: Array) -> Array | list[str]:
    """Make what orjson writes as a flat list; NaN and infinities become null there.

    Raises:
        BadInput: FP16, which has no form in JSON.
    """
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        raise BadInput(f"cannot write output '{name}' as JSON: FP16 needs binary_data")
    return [str(value) for value in array.flat] if array.dtype.kind == "O" else array.ravel()


def to_bytes(array: Array) -> memoryview:
    """Make the raw bytes, sharing memory where the array is contiguous (never for BYTES)."""
    if array.dtype.kind == "O":
        parts = [str(value).encode() for value in array.flat]
        return memoryview(b"".join(len(part).to_bytes(4, "little") + part for part in parts))
    if not array.size:  # memoryview cannot cast what has a zero in its shape
        return memoryview(b"")
    return np.ascontiguousarray(array).reshape(-1).view("u1").data


def header(name: str, tensor: dict[str, Any]) -> tuple[Shape, Dtype]:
    """Read shape and datatype of an input.

    Raises:
        BadInput: an unknown datatype, or a shape that is no list of whole numbers >= 0.
    """
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        known = ", ".join(DATATYPES)
        raise BadInput(f"cannot read input '{name}': datatype {datatype!r:.40} is none of {known}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise BadInput(f"cannot read input '{name}': shape {shape!r:.60} is no list of dimensions")
    elements = 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            raise BadInput(
                f"cannot read input '{name}': shape {shape!r:.60} is no list of dimensions"
            )
        elements *= dim or 1
    # numpy refuses what no memory could hold, even where a dimension of 0 makes it empty.
    if elements > _MAX_ELEMENTS:
        raise BadInput(f"cannot read input '{name}': shape {shape!r:.60} is more than memory holds")
    return tuple(shape), dtype
