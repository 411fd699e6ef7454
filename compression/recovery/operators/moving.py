"""Operators that move values, choose among them, or speak of shapes."""

from typing import Any

import torch
from onnx import numpy_helper
from torch.nn import functional

from compression.recovery.nodes import (
    Node,
    Operator,
    UnknownError,
    Values,
    given,
    numbers,
    setting,
)  # fmt: skip

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _reshape(node: Node, x: Values) -> Any:
    wanted = numbers(x, 1) or []
    if not node.get("allowzero", 0):
        wanted = [x[0].shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    return x[0].reshape([int(size) for size in wanted])


def _flatten(node: Node, x: Values) -> Any:
    axis = node.get("axis", 1) % (x[0].dim() + 1)
    rows = 1
    for size in x[0].shape[:axis]:
        rows *= size
    return x[0].reshape(rows, -1)


def _transpose(node: Node, x: Values) -> Any:
    return x[0].permute(node.get("perm") or list(reversed(range(x[0].dim()))))


def _split(node: Node, x: Values) -> Any:
    sizes = setting(node, x, "split", 1)
    axis = node.get("axis", 0)
    if sizes is None:
        count = node.get("num_outputs") or len(node.outputs)
        each = -(-x[0].shape[axis] // count)
        return torch.split(x[0], each, axis)
    return torch.split(x[0], sizes, axis)


def _squeeze(node: Node, x: Values) -> Any:
    axes = setting(node, x, "axes", 1)
    return x[0].squeeze() if axes is None else x[0].squeeze(tuple(axes))


def _unsqueeze(node: Node, x: Values) -> Any:
    axes = setting(node, x, "axes", 1) or []
    rank = x[0].dim() + len(axes)
    found = x[0]
    for axis in sorted(axis % rank for axis in axes):
        found = found.unsqueeze(axis)
    return found


def _slice(node: Node, x: Values) -> Any:
    starts, ends = setting(node, x, "starts", 1) or [], setting(node, x, "ends", 2) or []
    axes = setting(node, x, "axes", 3) or list(range(len(starts)))
    steps = numbers(x, 4) or [1] * len(starts)
    found = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = found.shape[axis]
        if step > 0:
            cut = [slice(None)] * found.dim()
            cut[axis] = slice(max(start, -size), min(end, size), step)
            found = found[tuple(cut)]
        else:  # torch has no negative steps
            places = range(size)[slice(start, None if end < -size else end, step)]
            found = found.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return found


def _gather(node: Node, x: Values) -> Any:
    axis = node.get("axis", 0) % x[0].dim()
    places = x[1].to(torch.int64)
    places = torch.where(places < 0, places + x[0].shape[axis], places)
    if axis == 0 and x[0].dim() == 2 and places.dim():
        return functional.embedding(places, x[0])
    found = x[0].index_select(axis, places.reshape(-1))
    return found.reshape(x[0].shape[:axis] + places.shape + x[0].shape[axis + 1 :])


def _gather_elements(node: Node, x: Values) -> Any:
    axis = node.get("axis", 0)
    places = x[1].to(torch.int64)
    return torch.gather(x[0], axis, torch.where(places < 0, places + x[0].shape[axis], places))


def _expand(node: Node, x: Values) -> Any:
    shape = torch.broadcast_shapes(tuple(x[0].shape), tuple(numbers(x, 1) or []))
    return x[0].expand(shape)


def _pad(node: Node, x: Values) -> Any:
    held = setting(node, x, "pads", 1) or []
    axes = numbers(x, 3)
    rank = x[0].dim()
    chosen = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    before, behind = dict.fromkeys(range(rank), 0), dict.fromkeys(range(rank), 0)
    before |= dict(zip(chosen, held[: len(chosen)], strict=True))
    behind |= dict(zip(chosen, held[len(chosen) :], strict=True))
    mode = _PAD_MODES[node.get("mode", "constant")]
    if mode == "constant":
        value = given(x, 2)
        filler = node.get("value", 0.0) if value is None else value.item()
        flat = [int(each[axis]) for axis in reversed(range(rank)) for each in (before, behind)]
        return functional.pad(x[0], flat, value=filler)
    return _mirrored(x[0], before, behind, mode)


def _mirrored(x: Any, before: dict[int, Any], behind: dict[int, Any], mode: str) -> Any:
    """torch pads only the last axes, of tensors of certain ranks: one axis after the other."""
    for axis in range(x.dim()):
        pair = [int(before[axis]), int(behind[axis])]
        if any(pair):
            last = x.movedim(axis, -1)
            flat = last.reshape(1, -1, last.shape[-1])
            made = functional.pad(flat, pair, mode=mode)
            x = made.reshape(*last.shape[:-1], made.shape[-1]).movedim(-1, axis)
    return x


def _shape(node: Node, x: Values) -> Any:
    found = list(x[0].shape)[node.get("start", 0) : node.get("end")]
    return torch.tensor(found, dtype=torch.int64)


def _constant(node: Node, x: Values) -> Any:
    held = node.get("value")
    if held is None:
        raise UnknownError("Constant that is no tensor")
    return torch.from_numpy(numpy_helper.to_array(held).copy())


def _filled(node: Node, x: Values) -> Any:
    shape = [int(size) for size in numbers(x, 0) or []]
    if node.get("value") is None:
        return torch.zeros(shape)
    value = torch.from_numpy(numpy_helper.to_array(node.get("value")).copy())
    return value.reshape(()).expand(shape).clone()


def _to_depth(node: Node, x: Values) -> Any:
    n, c, h, w = x[0].shape
    block = node.get("blocksize")
    held = x[0].reshape(n, c, h // block, block, w // block, block)
    return held.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def _to_space(node: Node, x: Values) -> Any:
    n, c, h, w = x[0].shape
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        held = x[0].reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        held = x[0].reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return held.reshape(n, c // block**2, h * block, w * block)


def _range(node: Node, x: Values) -> Any:
    return torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype)


def _triangle(node: Node, x: Values) -> Any:
    offset = given(x, 1)
    cut = torch.triu if node.get("upper", 1) else torch.tril
    return cut(x[0], 0 if offset is None else int(offset))


def _concat(node: Node, x: Values) -> Any:
    return torch.cat(list(x), node.get("axis"))


OPERATORS: dict[str, Operator] = {
    "Constant": _constant, "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice,
    "Gather": _gather, "GatherElements": _gather_elements, "Expand": _expand, "Pad": _pad,
    "Tile": lambda node, x: x[0].repeat(numbers(x, 1)),
    "Shape": _shape, "Size": lambda node, x: torch.tensor(x[0].numel()),
    "ConstantOfShape": _filled, "Range": _range, "Trilu": _triangle,
    "DepthToSpace": _to_space, "SpaceToDepth": _to_depth,
}  # fmt: skip
