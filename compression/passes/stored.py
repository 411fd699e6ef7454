"""Stores float weights as 8 bits in the file; they are float again when the session has loaded.

A constant becomes Cast(integers) x scale, which onnxruntime computes once, while it loads
(constant folding, at every optimization level but "disabled"): so it runs exactly as fast as
float does, from a file a quarter as large. DequantizeLinear would not do: the runtime leaves it
for the integer kernels. After loading it takes no more memory than float; while it loads, a copy
of the weights more.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from compression.errors import BadModel
from compression.passes import holders, packing
from compression.words import Words

_NODES_BYTES = 160
"""What two nodes and their names take in a file, besides the constant's own name."""


class Settings(Words):
    """The parameters of this pass."""

    format: Literal["s8", "f16"] = "s8"
    """8 bits with scales, or halves: twice as large, and exact to 11 bits."""
    per_channel: bool = True
    """One scale a channel, or a block where a channel is badly scaled; else one a constant."""
    least_bytes: int = Field(default=512, ge=0)
    """Smaller float constants stay as they are."""
    least_db: float = 40.0
    """Where a scale a channel keeps less signal to noise than this, blocks have their own."""
    exclude: tuple[str, ...] = ()
    """Constants that stay float, by their name or by the first output of a node that reads them."""


def storable(model: onnx.ModelProto, settings: Settings) -> dict[str, int]:
    """Name the constants that this pass would store, in bodies of If, Loop and Scan too.

    Returns their float bytes by name; of equal names in several bodies the sum.
    """
    found: dict[str, int] = {}
    for one in holders.weights(model.graph):
        if _wanted(one, settings):
            found[one.name] = found.get(one.name, 0) + one.bytes
    return found


def apply(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Return a new model with its float weights stored in 8 (or 16) bits.

    Raises:
        BadModel: no float weights of that size are left in it.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = 0
    # All are found before any is changed: what is expanded is no constant any more.
    for one in list(holders.weights(changed.graph)):
        if _wanted(one, settings):
            stored += _store(one, settings)
    if not stored:
        raise BadModel(
            f"cannot store weights in 8 bits: no float weights of {settings.least_bytes} bytes left"
        )
    return changed


def _wanted(one: holders.Weight, settings: Settings) -> bool:
    names = {one.name, *(node.output[0] for node in one.readers if node.output)}
    return one.bytes >= settings.least_bytes and not names & set(settings.exclude)


def _store(one: holders.Weight, settings: Settings) -> bool:
    """Replace one constant; False where the file would not become smaller."""
    parts: dict[str, NDArray[Any]]
    values = one.values
    if settings.format == "f16":
        half = values.astype(np.float16)
        if not np.allclose(half.astype(np.float32), values, rtol=1e-3, atol=1e-7):
            return False  # beyond the range of halves
        parts, nodes = {"half": half}, _widened(one.name)
    else:
        kept = one.kept if settings.per_channel else ()
        least_db = settings.least_db if settings.per_channel else -np.inf
        packed = packing.pack(values, kept=kept, least_db=least_db)
        parts = {"s8": packed.integers, "scale": packed.scale}
        if packed.reshaped:
            parts["shape"] = np.array(packed.shape, np.int64)
        nodes = _expanded(one.name, reshaped=packed.reshaped)
    size = sum(array.nbytes for array in parts.values()) + _NODES_BYTES + 6 * len(one.name)
    if size >= one.bytes:
        return False
    one.replace(_tensors(one.name, parts), nodes)
    return True


def _tensors(name: str, parts: Mapping[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, f"{name}::{part}") for part, array in parts.items()]


def _widened(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Cast", [f"{name}::half"], [name], to=TensorProto.FLOAT)]


def _expanded(name: str, *, reshaped: bool) -> list[onnx.NodeProto]:
    real, blocks = f"{name}::real", f"{name}::blocks"
    nodes = [
        helper.make_node("Cast", [f"{name}::s8"], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, f"{name}::scale"], [blocks if reshaped else name]),
    ]
    if reshaped:
        nodes.append(helper.make_node("Reshape", [blocks, f"{name}::shape"], [name]))
    return nodes
