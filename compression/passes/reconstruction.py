"""Rounds the weights of quantized layers again, so that the outputs of each layer change least.

Where the nearest integers look at each weight alone, this looks at what the layer's inputs have in
common: what one weight loses by rounding others can give back (feedback.py). The inputs are those
of the compressed model, as in Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from pydantic import Field

from compression.calibration.evidence import Evidence
from compression.calibration.moments import Input
from compression.errors import BadModel
from compression.passes import biases, counterparts, feedback, forms, qdq
from compression.words import Words

_PAIR = 128
"""255 x (a + b) stays within 16 bits up to here."""


class Settings(Words):
    """The parameters of this pass."""

    samples: int = Field(default=48, ge=1)
    """The most calibration inputs that are run."""
    damping: float = Field(default=0.01, gt=0, le=1)
    """What is added to the diagonal of the Gram matrix, in parts of its mean."""
    pairs: bool = False
    """Weights of seven bits get up to eight, as far as the sums of no pair can saturate."""
    most_inputs: int = Field(default=1536, ge=1)
    """Layers of which one output sees more inputs are left as they are."""
    only: tuple[str, ...] | None = None
    """If given, the only layers that are rounded again, by the name of their first output."""


@dataclass(frozen=True)
class _Rounded:
    """New integers [groups, outputs, inputs] of a layer and the scales [groups, outputs]."""

    q: NDArray[np.float64]
    scale: NDArray[np.float64]


def apply(
    model: onnx.ModelProto,
    settings: Settings,
    *,
    reference: onnx.ModelProto,
    evidence: Evidence,
) -> onnx.ModelProto:
    """Return a new model with other integers; `reference` is the float model behind `model`.

    Biases take over what is left of each mean. Layers whose weights others share, or whose inputs
    say nothing, are left alone.

    Raises:
        BadModel: no layer was rounded again.
    """
    floats, variant = qdq.Graph(reference), qdq.Graph(model)
    found = {}
    for layer in counterparts.layers(floats, variant):
        form = forms.form(floats, layer.node)
        if form is None or form.inputs > settings.most_inputs or not _own(variant, layer):
            continue
        if settings.only is None or layer.output in settings.only:
            found[layer.output] = (layer, form)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    held = {one.layer: one for one in biases.find(changed, [one for one, _ in found.values()])}
    inputs = {
        name: Input(_input(variant, layer), form.groups * form.inputs, form.window)
        for name, (layer, form) in found.items()
    }
    done = 0
    for name, seen in evidence.moments(model, inputs, most=settings.samples):
        layer, form = found[name]
        bias = held.get(name)
        weights = form.rows(floats.weights[layer.node.input[1]].astype(np.float64))
        gram = seen.gram
        if bias is None:  # nothing can take over what rounding does to the mean
            gram = gram + seen.mean[:, :, None] * seen.mean[:, None, :]
        rounded = _rounded(weights, variant, layer, form, settings=settings, gram=gram)
        if rounded is None:
            continue
        _write(changed, variant, layer, form, rounded)
        if bias is not None:
            lost = weights - rounded.q * rounded.scale[..., None]
            _move(changed, variant, layer, bias, (lost @ seen.mean[..., None]).ravel())
        done += 1
    if not done:
        raise BadModel("cannot round weights again: no layer has integer weights of its own")
    return changed


def _input(variant: qdq.Graph, layer: counterparts.Layer) -> str:
    """Name the float tensor that the layer reads, before a rounding that happens while it runs."""
    name = str(layer.kernel.input[0])
    return name if layer.is_static else str(variant.maker[name].input[0])


def _own(variant: qdq.Graph, layer: counterparts.Layer) -> bool:
    """Whether nobody else reads these integers."""
    names = {layer.weights.q, layer.weights.scale}
    return all(len(variant.readers[name]) == 1 for name in names) and (
        not layer.is_static or len(variant.readers[layer.kernel.input[1]]) == 1
    )


def _rounded(
    weights: NDArray[np.float64],
    variant: qdq.Graph,
    layer: counterparts.Layer,
    form: forms.Form,
    *,
    settings: Settings,
    gram: NDArray[np.float64],
) -> _Rounded | None:
    order = form.order
    factor = feedback.upper(gram[:, order][:, :, order], damping=settings.damping)
    if factor is None:
        return None
    before = variant.weights[layer.weights.q].astype(np.int64)
    before = np.abs(before - int(variant.weights[layer.weights.zero].flat[0]))
    limits = feedback.Limits(int(max(before.max(), 1)))
    scale = form.per_output(variant.weights[layer.weights.scale].astype(np.float64))
    ordered = weights[:, :, order]
    if settings.pairs and limits.single <= _PAIR // 2:
        # A depthwise kernel multiplies in 16 bits and adds in 32: no pairs there.
        limits = feedback.Limits(127, None if form.is_depthwise else _PAIR)
        least = limits.scales(ordered)
        if layer.weights.axis is None:
            least = np.full_like(least, least.max())
        # Scales that were not decided by the largest weight are wide for the sake of the bias.
        axes = -1 if layer.weights.axis is not None else None
        decided = np.abs(ordered).max(axis=axes) > (_PAIR // 2 - 1) * scale
        scale = np.where(decided & (least > 0), np.minimum(scale, least), scale)
        scale = scale.astype(np.float32).astype(np.float64)
    # Zeros are what pruning left: a packed file is small by them.
    q = feedback.round_all(ordered, scale, factor, limits, zeros=ordered == 0)
    return _Rounded(q[:, :, np.argsort(order)], scale)


def _write(
    changed: onnx.ModelProto,
    variant: qdq.Graph,
    layer: counterparts.Layer,
    form: forms.Form,
    rounded: _Rounded,
) -> None:
    names = layer.weights
    q = form.back(rounded.q)
    if form.turned and not layer.is_static:  # MatMulInteger knows no transposed weights
        q = q.T
    q = q + int(variant.weights[names.zero].flat[0])
    _put(changed, names.q, q.astype(variant.weights[names.q].dtype))
    before = variant.weights[names.scale]
    scale = rounded.scale.ravel()[: before.size].astype(np.float32)
    _put(changed, names.scale, scale.reshape(before.shape))


def _move(
    changed: onnx.ModelProto,
    variant: qdq.Graph,
    layer: counterparts.Layer,
    bias: biases.Bias,
    shift: NDArray[np.float64],
) -> None:
    """Give a bias the scale of its accumulator, and `shift` beside its own value."""
    if bias.scale is not None:
        held = {tensor.name: tensor for tensor in changed.graph.initializer}
        scale = numpy_helper.to_array(held[layer.weights.scale])
        x_scale = variant.weights[variant.maker[layer.kernel.input[0]].input[1]]
        bias.rescale(changed, np.asarray(scale * x_scale, np.float32))
    bias.add(changed, shift)


def _put(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
