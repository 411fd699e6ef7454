"""LSTM, GRU and RNN with the activations that ONNX has as defaults.

torch's own kernels compute them; ONNX orders the gates differently (Operators.md: LSTM iofc, GRU
zrh) and its GRU may put the reset before the product, which torch has not: that is written out.
"""

from collections.abc import Callable
from typing import Any

import torch

from compression.recovery.nodes import Node, Operator, UnknownError, Values, given

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where torch's gates are among ONNX's: input, forget, cell, output; reset, update, new."""
_SEQUENCE_LENGTHS = 4


def _plain(node: Node, x: Values) -> None:
    """Only what the kernels compute."""
    wanted = [str(one) for one in _texts(node.get("activations"))]
    defaults = _DEFAULTS[node.operator]
    if wanted and [one.lower() for one in wanted] != [
        one.lower() for one in defaults * (len(wanted) // len(defaults))
    ]:
        raise UnknownError(f"{node.operator} with activations {', '.join(wanted)}")
    for name in ("clip", "layout", "input_forget"):
        if node.get(name):
            raise UnknownError(f"{node.operator} with {name}")
    lengths = given(x, _SEQUENCE_LENGTHS)
    if lengths is not None and not bool((lengths == x[0].shape[0]).all()):
        raise UnknownError(f"{node.operator} over sequences of several lengths")
    if given(x, 7) is not None:
        raise UnknownError("LSTM with peepholes")


def _texts(held: Any) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else one for one in held or []]


def _gates(node: Node, x: Values, direction: int) -> list[Any]:
    """Weights and biases of one direction as torch wants them."""
    w, r, b = x[1][direction], x[2][direction], given(x, 3)
    count = len(_ORDER[node.operator])
    size = w.shape[0] // count
    biases = [torch.zeros(count * size)] * 2 if b is None else list(b[direction].chunk(2))
    return [
        torch.cat([part[gate * size : (gate + 1) * size] for gate in _ORDER[node.operator]])
        for part in (w, r, *biases)
    ]


def _run(node: Node, x: Values) -> Any:
    _plain(node, x)
    directions = x[1].shape[0]
    hidden = node.get("hidden_size")
    shape = (directions, x[0].shape[1], hidden)
    states = [
        torch.zeros(shape) if given(x, at) is None else x[at]
        for at in ((5, 6) if node.operator == "LSTM" else (5,))
    ]
    backwards = [node.get("direction", "forward") == "reverse", True][:directions]
    step = _written_out if _reset_first(node) else _by_kernel
    made = []
    for direction, turned in enumerate(backwards):
        held = x[0].flip(0) if turned else x[0]
        begin = [state[direction : direction + 1].contiguous() for state in states]
        y, *ends = step(node, held, begin, _gates(node, x, direction))
        made.append((y.flip(0) if turned else y, *ends))
    columns = list(zip(*made, strict=True))
    return (torch.stack(columns[0], 1), *(torch.cat(each, 0) for each in columns[1:]))


def _reset_first(node: Node) -> bool:
    return node.operator == "GRU" and not node.get("linear_before_reset", 0)


def _by_kernel(node: Node, x: Any, begin: list[Any], weights: list[Any]) -> tuple[Any, ...]:
    kernels: dict[str, Callable[..., Any]] = {
        "LSTM": torch.lstm,
        "GRU": torch.gru,
        "RNN": torch.rnn_tanh,
    }
    states = begin if node.operator == "LSTM" else begin[0]
    # (x, states, weights, has_biases, layers, dropout, train, bidirectional, batch_first)
    made: tuple[Any, ...] = kernels[node.operator](
        x, states, weights, True, 1, 0.0, False, False, False
    )
    return made


def _written_out(node: Node, x: Any, begin: list[Any], weights: list[Any]) -> tuple[Any, ...]:
    w, r, wb, rb = weights
    size = w.shape[0] // 3
    h, every = begin[0][0], []
    given_part = x @ w.t() + wb
    for at in range(x.shape[0]):
        own = h @ r[: 2 * size].t() + rb[: 2 * size]
        reset, update = torch.sigmoid(given_part[at][:, : 2 * size] + own).chunk(2, -1)
        new = (reset * h) @ r[2 * size :].t() + rb[2 * size :]
        fresh = torch.tanh(given_part[at][:, 2 * size :] + new)
        h = (1 - update) * fresh + update * h
        every.append(h)
    return torch.stack(every), h.unsqueeze(0)


OPERATORS: dict[str, Operator] = {"LSTM": _run, "GRU": _run, "RNN": _run}
