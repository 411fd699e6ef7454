"""Takes out channels that are as good as dead: next to nothing makes them, or reads them.

Not part of every candidate: of twelve real models two had any, worth two bytes in a hundred.
"""

import itertools

import onnx
from pydantic import Field

from compression import channels, runtime
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.pruning import dead, surgery
from compression.regular import equality
from compression.words import Words

_ASKED = 4
"""Inputs on which both models must answer the same."""


class Settings(Words):
    """The parameters of this pass."""

    below: float = Field(default=1e-4, ge=0, lt=1)
    """Weights below this share of the largest of their constant are next to nothing."""
    multiple: int = Field(default=8, ge=1)
    """Of channels: so many stay, dead ones too. Kernels work on blocks, and 41 take longer than 48:
    without it a text recogniser lost 2.4 % of its bytes and took a fifth longer."""
    tolerance: float = Field(default=equality.TOLERANCE, gt=0)
    """The largest relative difference of answers."""


def apply(
    model: onnx.ModelProto, settings: Settings, *, evidence: Evidence | None = None
) -> onnx.ModelProto:
    """Return a new model without the dead channels; names of tensors stay.

    With `evidence` both are run on a few inputs.

    Raises:
        BadModel: there are none, or the answers differ by more than the tolerance.
    """
    feeds = [] if evidence is None else list(itertools.islice(evidence.feeds(), _ASKED))
    found = channels.find(model, sample=feeds[0] if feeds else None)
    keep = dead.keep(model, found, below=settings.below, multiple=settings.multiple)
    if not keep:
        units = sum(group.width for group in found.groups)
        raise BadModel(
            f"cannot take out dead channels: of {units} none has weights below "
            f"{settings.below:g} of the largest, or too few for a multiple of {settings.multiple}"
        )
    cut = surgery.cut(model, found, keep)
    both = [runtime.session(one) for one in (model, cut)]
    for one in feeds:
        gap = equality.difference(*(runtime.run(session, one) for session in both))
        if gap > settings.tolerance:
            raise BadModel(
                f"cannot take out dead channels: answers differ by {gap:.1e} of the largest, "
                f"and {settings.tolerance:g} is allowed"
            )
    return cut
