"""Runs an ONNX graph in torch, node by node, so that gradients reach its initializers by name.

Nothing is exported from torch, ever: weights go back into the same graph under their names, and
the graph stays what it was.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.utils import checkpoint

from compression.errors import BadModel
from compression.recovery import nodes, scales
from compression.recovery.foreign import Foreign
from compression.recovery.nodes import Node, UnknownError
from compression.recovery.operators import quantizing, table
from compression.regular import opsets

Values = dict[str, Any]


class Interpreter:
    """One graph. Its values are torch tensors by the graph's own names.

    What an output of QuantizeLinear holds are whole numbers as float32; or, where all that read it
    go straight back, what those make of it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        opset = opsets.version(model)
        self.nodes = tuple(nodes.read(proto, opset=opset) for proto in model.graph.node)
        self.outputs = tuple(value.name for value in model.graph.output)
        self.constants: Values = {}
        for tensor in model.graph.initializer:
            self.constants[tensor.name] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        self.foreign = Foreign(model)
        self.bounds: tuple[int, ...] = (0, len(self.nodes))
        """Where the nodes are divided into parts of which torch keeps the ends alone, and computes
        what lies between once more for the gradients (Chen et al. 2016, "Training deep nets with
        sublinear memory cost"): less memory, a third more time."""
        self.at = 0
        """The node that is being computed."""
        self._last = _last_readers(self.nodes)
        single = [name for name, one in self.constants.items()
                  if one.numel() == 1 and one.dtype in quantizing.KINDS]  # fmt: skip
        self._there, self._back = scales.crossings(self.nodes, frozenset(single), self.outputs)

    def run(
        self,
        feeds: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        wanted: Collection[str] = (),
    ) -> Values:
        """Return the outputs and `wanted` tensors by name.

        `parameters` stand in for initializers of these names. `feeds` are tensors. Where no
        gradient is asked for, a value is given up behind its last reader.

        Raises:
            BadModel: a node that is neither torch's nor onnxruntime's.
        """
        kept = {*self.outputs, *wanted}
        fixed: Values = {**self.constants, **(parameters or {})}
        values: Values = dict(feeds)
        for begin, end in pairwise(self.bounds):
            # The last part's gradients come at once: nothing is gained by computing it again.
            if end < len(self.nodes) and torch.is_grad_enabled():
                values = checkpoint.checkpoint(
                    self._part, begin, end, fixed, values, kept, use_reentrant=False
                )
            else:
                values = self._part(begin, end, fixed, values, kept)
        return {name: values[name] if name in values else fixed[name] for name in kept}

    def _part(
        self, begin: int, end: int, fixed: Values, given: Values, kept: Collection[str]
    ) -> Values:
        """Compute some of the nodes; return what is still needed behind them."""
        values = {**fixed, **given}
        for at in range(begin, end):
            self.at, node = at, self.nodes[at]
            made = self._compute(node, values)
            values.update(zip((name for name in node.outputs if name), made, strict=True))
            for name in self._last[at]:
                if name not in kept:
                    values.pop(name, None)
        return {name: value for name, value in values.items() if name not in fixed}

    def _compute(self, node: Node, values: Values) -> tuple[Any, ...]:
        if self.at in self._back:
            return (values[node.inputs[0]],)
        function = table.OPERATORS.get(node.operator)
        if self.at in self._there:
            function = quantizing.crossed
        if function is None:
            return self.foreign.run(node, values)
        inputs = [values[name] if name else None for name in node.inputs]
        try:
            made = function(node, inputs)
        except UnknownError:
            return self.foreign.run(node, values)
        except RuntimeError as error:  # torch's own, of shapes above all
            raise BadModel(f"cannot compute {node.operator} in torch: {_first(error)}") from error
        every = made if isinstance(made, tuple | list) else (made,)
        return tuple(one for one, name in zip(every, node.outputs, strict=False) if name)

    def unknown(self) -> tuple[str, ...]:
        """The operators that torch has no form of, in order of their names."""
        return tuple(sorted({n.operator for n in self.nodes} - set(table.OPERATORS)))


def tensors(feeds: Mapping[str, NDArray[Any]]) -> Values:
    """A sample as torch tensors; strings and other kinds that torch lacks are left out."""
    return {
        name: torch.from_numpy(np.asarray(array, order="C"))
        for name, array in feeds.items()
        if array.dtype.kind in "fiub"
    }


def _first(error: RuntimeError) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _last_readers(every: tuple[Node, ...]) -> list[list[str]]:
    """Of each node, the tensors that nobody reads behind it."""
    last = {name: at for at, node in enumerate(every) for name in (*node.outputs, *node.reads)}
    found: list[list[str]] = [[] for _ in every]
    for name, at in last.items():
        found[at].append(name)
    return found
