"""Inputs and outputs that are bound to the memory they lie in, once for all runs on them."""

import functools
from collections.abc import Mapping
from typing import Any

from agent.protocol.tensors import Array


class Bound:
    """Inputs and outputs that lie where they are, bound once; the arrays keep the memory."""

    def __init__(
        self,
        session: Any,
        binding: Any,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        self.binding = binding
        self.run = functools.partial(session.run_with_iobinding, binding)
        """Run now, on this thread; `told` says what its errors mean."""
        self.size = sum(array.nbytes for array in inputs.values())
        """Of the inputs, in bytes."""
        self.inputs = inputs
        self.outputs = tuple(outputs)
        self.arrays = list(outputs.values())
        self.flat = [array.ravel() for array in self.arrays]
        """The same memory in one dimension."""
