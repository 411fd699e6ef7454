"""Stores float weights in 8 bits in the file; they are float again when the session has loaded.

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
    """The parameters of this pass. Constants go by their own name."""

    bits: Literal[8, 16] = 8
    per_channel: bool = True
    """One scale a channel, or a block where a channel is badly scaled; else one a constant."""
    least_bytes: int = Field(default=512, ge=0)
    """Smaller float constants stay as they are."""
    least_db: float = 40.0
    """Where a scale a channel keeps less signal to noise than this, blocks have their own."""
    wide: tuple[str, ...] = ()
    """Constants that get 16 bits, because their rounding is felt."""
    wide_share: float = Field(default=0.02, ge=0, le=1)
    """The smallest constants together get 16 bits up to this share of all their bytes: first
    layers and depthwise ones are small, and felt."""
    exclude: tuple[str, ...] = ()
    """Constants that stay float, by their name or by the first output of a node that reads them."""
    only: tuple[str, ...] | None = None
    """If given, the only constants that are stored."""


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
    # All are found before any is changed: what is expanded is no constant any more.
    found = [one for one in holders.weights(changed.graph) if _wanted(one, settings)]
    wide = set(settings.wide) | _smallest(found, settings.wide_share)
    stored = [one for one in found if _store(one, settings, wide=one.name in wide)]
    if not stored:
        raise BadModel(
            f"cannot store weights in {settings.bits} bits: "
            f"no float weights of {settings.least_bytes} bytes left"
        )
    return changed


def felt(
    sqnr_db: Mapping[str, float], sizes: Mapping[str, int], *, target_db: float
) -> tuple[str, ...]:
    """Name the constants to keep in 16 bits, so that the others together reach `target_db`.

    `sqnr_db` is of the outputs where each constant alone has 8 bits, `sizes` its bytes. Errors
    are taken as independent, so that their powers add up; most power for a byte goes first.
    """
    noise = {name: 10 ** (-value / 10) for name, value in sqnr_db.items()}
    left, chosen = sum(noise.values()), []
    for name in sorted(noise, key=lambda name: noise[name] / sizes[name], reverse=True):
        if left <= 10 ** (-target_db / 10):
            break
        left -= noise[name]
        chosen.append(name)
    return tuple(chosen)


def _wanted(one: holders.Weight, settings: Settings) -> bool:
    names = {one.name, *(node.output[0] for node in one.readers if node.output)}
    chosen = settings.only is None or one.name in settings.only
    return chosen and one.bytes >= settings.least_bytes and not names & set(settings.exclude)


def _smallest(found: list[holders.Weight], share: float) -> set[str]:
    """The smallest constants that together take at most this share of all."""
    left = share * sum(one.bytes for one in found)
    names: set[str] = set()
    for one in sorted(found, key=lambda one: (one.bytes, one.name)):
        left -= one.bytes
        if left < 0:
            break
        names.add(one.name)
    return names


def _store(one: holders.Weight, settings: Settings, *, wide: bool) -> bool:
    """Replace one constant; False where the file would not become smaller."""
    kept = one.kept if settings.per_channel else ()
    if wide or settings.bits == 16:
        packed = packing.rounded(one.values, kept=kept, width=np.int16)
    else:
        least_db = settings.least_db if settings.per_channel else -np.inf
        packed = packing.pack(one.values, kept=kept, least_db=least_db)
    if packed.bytes + _NODES_BYTES + 6 * len(one.name) >= one.bytes:
        return False
    arrays: dict[str, NDArray[Any]] = {"integers": packed.integers, "scale": packed.scale}
    if packed.reshaped:
        arrays["shape"] = np.array(packed.shape, np.int64)
    one.replace(_tensors(one.name, arrays), _expanded(one.name, reshaped=packed.reshaped))
    return True


def _tensors(name: str, parts: Mapping[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, _part(name, part)) for part, array in parts.items()]


def _part(name: str, part: str) -> str:
    """A name that no pass before has given: of a constant with two readers it may hold integers."""
    return f"{name}::stored::{part}"


def _expanded(name: str, *, reshaped: bool) -> list[onnx.NodeProto]:
    real, blocks = _part(name, "real"), _part(name, "blocks")
    nodes = [
        helper.make_node("Cast", [_part(name, "integers")], [real], to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, _part(name, "scale")], [blocks if reshaped else name]),
    ]
    if reshaped:
        nodes.append(helper.make_node("Reshape", [blocks, _part(name, "shape")], [name]))
    return nodes
