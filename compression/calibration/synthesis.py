"""Inputs for a model that came with none: made up, of a sensible kind, as far as the graph tells.

Whole numbers are rows of the tables that they look up, or the constants that they are compared
with. Images are dead leaves: overlapping shapes of random place, size and colour, whose statistics
are those of photographs (Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 2001).
What no graph says is the scale of floats: where it has BatchNormalization nodes, the scale is the
one with which their inputs come nearest to their running statistics; else scales take turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import normalized
from compression.errors import BadInputs, BadModel
from compression.job import InputSpec
from compression.regular import reading

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

SCALES: Mapping[str, Callable[[Floats], Floats]] = {
    "unit": lambda x: x,
    "signed": lambda x: 2 * x - 1,
    "standard": lambda x: (x - 0.45) / 0.225,
    "bytes": lambda x: 255 * x,
}
"""Values in [0, 1] as pre-processing commonly leaves them; `standard` is by ImageNet's figures."""
CHANNELS = {1, 3, 4}
"""Of an image: grey, colours, colours with transparency."""
SIDES = ((224, 224), (48, 192), (96, 96), (64, 64), (32, 32), (32, 320), (320, 320), (640, 640))
"""Height and width where an image may have any: the first that the model runs on."""
LENGTHS = (32, 64, 16, 8, 128, 512)
_MOST_ELEMENTS = 2**28
_TRIED = 3
"""Samples that tell scales apart."""


@dataclass(frozen=True)
class Plan:
    """How the inputs of one model are made: shapes by name, scales that take turns."""

    shapes: Mapping[str, tuple[int, ...]]
    scales: tuple[str, ...]
    values: Mapping[str, tuple[int, ...]]
    """Of inputs of whole numbers: what they may be."""


def make(
    model_path: Path, *, count: int, seed: int, specs: Sequence[InputSpec] = ()
) -> list[Arrays]:
    """Make up `count` runs' inputs by name, each with a batch axis as the model has it.

    Shapes are the specs' reference shapes where given. Equal arguments give equal inputs.

    Raises:
        BadInputs: an input would be absurdly large.
        BadModel: the model does not load, or runs at no shape that was tried.
    """
    model = reading.load(model_path)
    session = runtime.session(model_path)
    own = runtime.inputs(session)
    values = {spec.name: _values(model.graph, spec.name) for spec in own}
    plan = _runnable(session, own, values, {s.name: s.reference_shape for s in specs}, seed)
    scales = _scales(model, own, plan, seed)
    plan = Plan(plan.shapes, scales, values)
    return [_sample(own, plan, seed=seed, at=at) for at in range(count)]


def _runnable(
    session: Any,
    own: Sequence[InputSpec],
    values: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...] | None],
    seed: int,
) -> Plan:
    """The first shapes on which the model runs."""
    why = "it takes no inputs"
    for at in range(max(len(SIDES), len(LENGTHS))):
        shapes = {s.name: given.get(s.name) or _shape(s, at) for s in own}
        for name, shape in shapes.items():
            if np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
                raise BadInputs(f"cannot make inputs of shape {list(shape)} for {name!r}")
        plan = Plan(shapes, ("unit",), values)
        try:
            runtime.run(session, _sample(own, plan, seed=seed, at=0))
        except BadModel as error:
            why = str(error)
            continue
        return plan
    raise BadModel(f"cannot make up inputs that the model runs on ({why}); give --shape")


def _shape(spec: InputSpec, at: int) -> tuple[int, ...]:
    """The shape of the `at`-th attempt: dynamic dims become sides of an image, or lengths."""
    shape = [1 if place == 0 and dim < 0 else dim for place, dim in enumerate(spec.shape)]
    sides = SIDES[min(at, len(SIDES) - 1)]
    length = LENGTHS[min(at, len(LENGTHS) - 1)]
    if is_image(spec) and -1 in spec.shape[2:]:
        first = 2 if spec.shape[1] in CHANNELS or spec.shape[1] < 0 else 1
        for place, side in zip((first, first + 1), sides, strict=True):
            shape[place] = side if shape[place] < 0 else shape[place]
        return tuple(3 if dim < 0 else dim for dim in shape)
    return tuple(length if dim < 0 else dim for dim in shape)


def is_image(spec: InputSpec) -> bool:
    """Whether an input looks like images: four dims, the second or the last a count of colours."""
    if len(spec.shape) != 4 or not np.issubdtype(np.dtype(spec.dtype), np.inexact):
        return False
    return spec.shape[1] in CHANNELS or spec.shape[3] in CHANNELS


def _scales(
    model: onnx.ModelProto, own: Sequence[InputSpec], plan: Plan, seed: int
) -> tuple[str, ...]:
    """The one scale that running statistics speak for; else all but bytes, in turns."""
    several = tuple(name for name in SCALES if name != "bytes")
    if not any(np.issubdtype(np.dtype(spec.dtype), np.inexact) for spec in own):
        return ("unit",)

    def feeds(scale: str) -> list[Arrays]:
        tried = Plan(plan.shapes, (scale,), plan.values)
        return [_sample(own, tried, seed=seed, at=at) for at in range(_TRIED)]

    misfits = {name: normalized.misfit(model, feeds(name)) for name in SCALES}
    known = {name: misfit for name, misfit in misfits.items() if misfit is not None}
    return (min(known, key=lambda name: known[name]),) if known else several


def _sample(own: Sequence[InputSpec], plan: Plan, *, seed: int, at: int) -> Arrays:
    rng = np.random.default_rng([seed, at])
    scale = SCALES[plan.scales[at % len(plan.scales)]]
    feeds: Arrays = {}
    for spec in own:
        shape, dtype = plan.shapes[spec.name], np.dtype(spec.dtype)
        if not np.issubdtype(dtype, np.inexact):
            feeds[spec.name] = rng.choice(plan.values[spec.name], shape).astype(dtype)
        elif is_image(spec):
            feeds[spec.name] = scale(_images(rng, spec, shape)).astype(dtype)
        else:
            feeds[spec.name] = _signal(rng, shape).astype(dtype)
    return feeds


def _images(rng: np.random.Generator, spec: InputSpec, shape: tuple[int, ...]) -> Floats:
    """Dead leaves in [0, 1], of an input's shape, colours first or last."""
    last = spec.shape[1] not in CHANNELS
    batch, colours = shape[0], shape[3] if last else shape[1]
    height, width = shape[1:3] if last else shape[2:4]
    images = np.stack([_leaves(rng, height, width, colours) for _ in range(batch)])
    return images if last else images.transpose(0, 3, 1, 2)


def _leaves(rng: np.random.Generator, height: int, width: int, colours: int) -> Floats:
    """One image [height, width, colours]: discs and boxes, the later ones in front."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.full((height, width, colours), rng.uniform(size=colours))
    longest = max(height, width)
    # Areas fall with the cube of the radius, so that all sizes hide equally much.
    radii = longest / 2 / np.sqrt(rng.uniform(1.0, 400.0, size=60))
    for radius in sorted(radii, reverse=True):
        down, right = rng.uniform(0, height), rng.uniform(0, width)
        flat = rng.uniform(0.4, 2.5)
        if rng.uniform() < 0.5:
            inside = ((y - down) / flat) ** 2 + ((x - right) * flat) ** 2 < radius**2
        else:
            inside = (abs(y - down) < radius * flat) & (abs(x - right) < radius / flat)
        image[inside] = rng.beta(0.7, 0.7, size=colours)
    return np.clip(image + rng.normal(scale=0.02, size=image.shape), 0.0, 1.0)


def _signal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Normal values of deviation one, of which neighbours along the last axis are alike."""
    noise = rng.normal(size=shape)
    if len(shape) < 2 or shape[-1] < 8 or rng.uniform() < 0.5:
        return noise
    smooth = np.cumsum(noise, axis=-1)
    smooth -= smooth.mean(axis=-1, keepdims=True)
    return np.asarray(smooth / np.maximum(smooth.std(axis=-1, keepdims=True), 1e-6))


_FOLLOWED = frozenset({"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"})


def _values(graph: onnx.GraphProto, name: str) -> tuple[int, ...]:
    """What an input of whole numbers may be: rows of the smallest table that it looks up, what it
    is compared with, or 0 and 1 where it does neither."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    rows: list[int] = []
    compared: list[int] = []
    same = {name}
    for node in graph.node:
        if node.op_type in _FOLLOWED and node.input and node.input[0] in same:
            same |= set(node.output)
        elif node.op_type == "Gather" and node.input[1] in same and node.input[0] in constants:
            rows += constants[node.input[0]].dims[:1]
        elif node.op_type == "Equal" and same & set(node.input):
            others = [constants[other] for other in node.input if other in constants]
            compared += [int(v) for t in others for v in onnx.numpy_helper.to_array(t).ravel()[:8]]
    if compared:
        return tuple(compared)
    return tuple(range(min(rows))) if rows else (0, 1)
