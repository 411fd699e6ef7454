"""What a recurrence reads, and its hidden size, which is a width like any other."""

import math

import numpy as np
import onnx

from compression.pruning.edits import Count, ZeroState
from compression.pruning.ties import Channels
from compression.pruning.tracing import Axes, Role, Trace
from compression.pruning.weighted import stop
from compression.regular.wiring import attribute

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(trace: Trace, node: onnx.NodeProto) -> None:
    """LSTM, GRU and RNN: what they read, and their hidden size where the first state is zeros."""
    gates, x = _GATES[node.op_type], trace.of(node.input[0])
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    weights = [1, 2, *(at for at in (3, 7) if inputs[at])]
    if attribute(node, "layout") or not all(trace.is_constant(inputs[at]) for at in weights):
        stop(trace, node, "meets a recurrence that is not followed")
        return
    shape = trace.shape(node.input[0])
    trace.macs[trace.at] = shape[0] * sum(math.prod(trace.shape(inputs[at])) for at in (1, 2))
    for axis in x[:2]:
        trace.ties.freeze(axis, f"lies along the time or batch of a {node.op_type}")
    if x[2] is not None:
        trace.reads(node, 1, 2, x[2], source=(0, 2))
    size = trace.shape(inputs[2])[2]
    own = trace.ties.new(size)

    def part(position: int, axis: int, times: int, role: Role) -> None:
        channels = own.take(np.tile(np.arange(size), times))
        trace.use(node, position, axis, role, channels)

    part(1, 1, gates, "makes")
    part(2, 1, gates, "makes")
    part(2, 2, 1, "reads")
    if inputs[3]:
        part(3, 1, 2 * gates, "makes")
    if inputs[7]:
        part(7, 1, 3, "makes")
    trace.edits.append(Count(trace.at, "hidden_size", own.atoms))
    if attribute(node, "activations"):
        trace.ties.freeze(own, f"belongs to a {node.op_type} with functions of its own")
    for position in (5, 6):
        if inputs[position]:
            _state(trace, node, position, own)
    axes: tuple[Axes, ...] = ((None, None, None, own), (None, None, own), (None, None, own))
    for name, carried in zip(node.output, axes, strict=False):
        if name and size > 1:
            trace.put(name, carried)


def _state(trace: Trace, node: onnx.NodeProto, position: int, own: Channels) -> None:
    """A first state of zeros can be left out; another one is a contract."""
    name = node.input[position]
    maker = next((one for one in trace.graph.node if name in one.output), None)
    value = trace.constant(name)
    zeros = value is not None and not value.any()
    if maker is not None and maker.op_type == "ConstantOfShape":
        given = attribute(maker, "value")
        zeros = given is None or not any(onnx.numpy_helper.to_array(given))
    if zeros:
        trace.edits.append(ZeroState(trace.at, position, own.atoms))
    else:
        trace.ties.freeze(own, f"is a state that somebody gives ({node.op_type})")
