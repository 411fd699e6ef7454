"""The words of the Open Inference Protocol v2, and its responses in JSON and binary (no I/O).

Specification: KServe "Open Inference Protocol" (inference_rest.md), and Triton's
extension_binary_data.md (a JSON object, then raw tensors in order), extension_classification.md,
extension_shared_memory.md and extension_parameters.md.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from agent.protocol import tensors
from agent.protocol.tensors import Array, Dtype, Shape

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"


class Shared(NamedTuple):
    """Where in a registered region of shared memory a tensor lies; bytes."""

    region: str
    offset: int
    size: int


class SharedTensor(NamedTuple):
    """An input that lies in shared memory."""

    place: Shared
    dtype: Dtype
    shape: Shape


class Wanted(NamedTuple):
    """One output that was asked for by name, and the form it goes out in."""

    name: str
    binary: bool
    classes: int = 0
    """So many of its highest values, as text; 0: the tensor itself."""
    shared: Shared | None = None


class Output(NamedTuple):
    """One output on its way out; of a `shared` one, `array` is what lies there."""

    name: str
    array: Array
    binary: bool = False
    shared: Shared | None = None


class Spec(NamedTuple):
    """One input or output of a model; dims of -1 are free."""

    name: str
    dtype: Dtype
    shape: Shape


_NOTHING_SHARED: Mapping[str, SharedTensor] = MappingProxyType({})


class InferRequest(NamedTuple):
    """What was asked: arrays by input name. No `outputs` means all of them."""

    inputs: dict[str, Array]
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False
    """For outputs that were not named."""
    id: str | None = None
    shared: Mapping[str, SharedTensor] = _NOTHING_SHARED
    """Inputs that lie in shared memory."""
    within_s: float | None = None
    """How long the client waits (Triton's `timeout`, in microseconds)."""
    sequence: bool = False
    """Whether state is to be kept between requests."""


class Encoded(NamedTuple):
    """A body in parts; `json_bytes` is the first part's length where raw tensors follow it."""

    parts: list[bytes | memoryview]
    json_bytes: int | None = None


def write_response(head: dict[str, Any], outputs: Sequence[Output]) -> Encoded:
    """Write `head` (model_name, model_version, id) and the outputs.

    Raises:
        BadInput: an output in FP16 that was not asked for in binary.
    """
    listed: list[dict[str, Any]] = []
    raw: list[memoryview] = []
    for name, array, binary, shared in outputs:
        tensor: dict[str, Any] = {
            "name": name,
            "shape": array.shape,
            "datatype": tensors.NAMES[array.dtype],
        }
        if shared is not None:
            tensor["parameters"] = {
                "shared_memory_region": shared.region,
                "shared_memory_offset": shared.offset,
                "shared_memory_byte_size": shared.size,
            }
        elif binary:
            data = tensors.to_bytes(array)
            raw.append(data)
            tensor["parameters"] = {"binary_data_size": len(data)}
        else:
            tensor["data"] = tensors.to_json(name, array)
        listed.append(tensor)
    text = orjson.dumps({**head, "outputs": listed}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded([text, *raw], len(text) if raw else None)
