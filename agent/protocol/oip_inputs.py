"""Reads the inputs of a request: described in JSON, with their data there, behind it, or elsewhere.

What is described is read once for requests that say the same; then only arrays are made.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.oip import Shared, SharedTensor
from agent.protocol.tensors import Array, Dtype, Shape


class Given(NamedTuple):
    """One input as the JSON has it: its data there, `size` bytes behind it, or in shared memory."""

    name: str
    dtype: Dtype
    shape: Shape
    data: Any = None
    size: int | None = None
    place: Shared | None = None


def read(listed: Sequence[dict[str, Any]]) -> tuple[Given, ...]:
    """Read what is said of the inputs.

    Raises:
        BadInput: naming the input.
    """
    given: dict[str, Given] = {}
    for tensor in listed:
        name = tensor["name"]
        if name in given:
            raise BadInput(f"cannot read input '{name}': given twice")
        shape, dtype = tensors.header(name, tensor)
        if "parameters" not in tensor:
            given[name] = Given(name, dtype, shape, tensor.get("data"))
            continue
        said = parameters(tensor, f"input '{name}'")
        place = place_of(said, f"input '{name}'")
        size = said.get("binary_data_size")
        if place is not None and ("data" in tensor or size is not None):
            raise BadInput(f"cannot read input '{name}': both data and shared memory are given")
        if "binary_data_size" in said and type(size) is not int:
            raise BadInput(f"cannot read input '{name}': binary_data_size {size!r:.40} is no count")
        given[name] = Given(name, dtype, shape, tensor.get("data"), size, place)
    return tuple(given.values())


def arrays(
    given: Sequence[Given], tail: memoryview
) -> tuple[dict[str, Array], dict[str, SharedTensor]]:
    """Make the arrays, and tell those in shared memory; binary ones share the memory of `tail`.

    Raises:
        BadInput: data that are not what was said of them; the message names the input.
    """
    inputs: dict[str, Array] = {}
    shared: dict[str, SharedTensor] = {}
    at = 0
    for name, dtype, shape, data, size, place in given:
        if place is not None:
            shared[name] = SharedTensor(place, dtype, shape)
        elif size is None:
            inputs[name] = tensors.from_json(name, data, dtype=dtype, shape=shape)
        elif 0 <= size <= len(tail) - at:
            raw = tail[at : at + size]
            inputs[name] = tensors.from_bytes(name, raw, dtype=dtype, shape=shape)
            at += size
        else:
            raise BadInput(
                f"cannot read input '{name}': binary_data_size {size!r:.40}, "
                f"but {len(tail) - at} bytes are left in the body"
            )
    if at != len(tail):
        raise BadInput(f"cannot read the request: {len(tail) - at} bytes after the last input")
    return inputs, shared


def place_of(parameters: dict[str, Any], what: str) -> Shared | None:
    """Where in shared memory, if anywhere; region and size are required together."""
    region = parameters.get("shared_memory_region")
    size = parameters.get("shared_memory_byte_size")
    if region is None and size is None:
        return None
    offset = parameters.get("shared_memory_offset", 0)
    numbers = [each for each in (offset, size) if type(each) is int and 0 <= each < 2**63]
    if not isinstance(region, str) or len(numbers) < 2:
        raise BadInput(
            f"cannot read {what}: it is to lie in shared memory: region {region!r:.40}, "
            f"byte_size {size!r:.40}, offset {offset!r:.40}"
        )
    return Shared(region, *numbers)


def parameters(holder: dict[str, Any], what: str) -> dict[str, Any]:
    """The parameters of a tensor or a request; none are an empty object."""
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadInput(f"cannot read {what}: parameters is no object")
    return found
