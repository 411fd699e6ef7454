"""The highest values of an output as text, instead of the tensor (pure).

Specification: Triton's extension_classification.md.
"""

import math

import numpy as np

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.tensors import Array


def highest(name: str, array: Array, count: int) -> Array:
    """The `count` highest values as `VALUE:INDEX`, highest first; of equals the first comes first.

    Of an array [N, ...] they are taken from each of the N, as BYTES [N, count]; of [C] as [count].
    At most as many as there are.

    Raises:
        BadInput: the output holds no numbers.
    """
    if array.dtype.kind not in "iuf":
        raise BadInput(f"cannot classify output '{name}': it is {tensors.NAMES[array.dtype]}")
    count_rows = array.shape[0] if array.ndim > 1 else 1
    width = math.prod(array.shape[1:] if array.ndim > 1 else array.shape)
    rows = array.reshape(count_rows, width)
    if array.dtype.kind == "f":
        rows = np.where(np.isnan(rows), -np.inf, rows)
    # Ascending and stable, from behind: so that of equals the first ends up first.
    order = (width - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable"))[:, ::-1][:, :count]
    form = "{:d}:{:d}" if array.dtype.kind in "iu" else "{:f}:{:d}"
    shape = order.shape if array.ndim > 1 else order.shape[1:]
    texts = np.empty(order.size, object)
    flat = array.reshape(count_rows, width)
    texts[:] = [
        form.format(flat[row, index].item(), index)
        for row, indexes in enumerate(order.tolist())
        for index in indexes
    ]
    return texts.reshape(shape)
