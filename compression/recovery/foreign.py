"""Nodes that torch is not asked to compute: each a model of its own in onnxruntime's hands.

They compute what they always did. No gradient passes through them: what lies before them learns
from what else it reaches, or stays as it is.
"""

from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnx import helper

from compression import runtime
from compression.errors import BadModel
from compression.recovery.nodes import DTYPES, Node

_KINDS = {dtype: kind for kind, dtype in DTYPES.items()}


class Foreign:
    """Runs such nodes; a session is made once for each node and kinds of inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._sessions: dict[tuple[Any, ...], Any] = {}
        self.operators: set[str] = set()
        """The names of those that were run."""

    def run(self, node: Node, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the outputs of a node from the values of what it reads.

        Raises:
            BadModel: onnxruntime does not run it either.
        """
        self.operators.add(node.operator)
        names = sorted(name for name in node.reads if name in values)  # bodies have their own too
        kinds = tuple(values[name].dtype for name in names)
        key = (node.outputs, kinds)
        if key not in self._sessions:
            self._sessions[key] = self._session(node, names, kinds)
        feeds = {name: values[name].detach().numpy() for name in names}
        found = runtime.run(self._sessions[key], feeds)
        return tuple(torch.from_numpy(found[name]) for name in node.outputs if name)

    def _session(self, node: Node, names: list[str], kinds: tuple[Any, ...]) -> Any:
        if unknown := [kind for kind in kinds if kind not in _KINDS]:
            raise BadModel(f"cannot run {node.operator}: it reads {unknown[0]}")
        inputs = [
            helper.make_tensor_value_info(name, _KINDS[kind], None)
            for name, kind in zip(names, kinds, strict=True)
        ]
        # An output without a type takes the one that onnxruntime infers.
        outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
        alone = onnx.ModelProto(ir_version=self._model.ir_version)
        alone.opset_import.extend(self._model.opset_import)
        alone.functions.extend(self._model.functions)
        alone.graph.CopyFrom(helper.make_graph([node.proto], "alone", inputs, outputs))
        return runtime.session(alone, runtime.options(optimization="disabled"))
