"""What a pass may know beside the model that it changes."""

from dataclasses import dataclass
from typing import Protocol

import onnx

from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.statistics import Range
from compression.workplace import Workplace


class Calibrate(Protocol):
    """Gives the ranges of a model's float tensors on the calibration inputs."""

    def __call__(
        self, model: onnx.ModelProto, *, least_error: tuple[str, ...] = ()
    ) -> dict[str, Range]:
        """Return ranges by name; those in `least_error` end where 256 steps round best."""


@dataclass(frozen=True)
class Context:
    """What a pass may know beside the model that it changes."""

    reference: onnx.ModelProto
    """What the variant should compute: the regular original, behind those passes of the recipe
    that are exact in float, or cut channels. A tensor of this name has the same meaning in the
    variant."""
    calibrate: Calibrate
    original: onnx.ModelProto
    """The regular original, before any pass."""
    evidence: Evidence | None = None
    """Statistics on the calibration inputs; None where there are no inputs."""
    workplace: Workplace | None = None
    """Of the pass that is running, where passes may keep what they have."""

    def seen(self) -> Evidence:
        """Return the evidence.

        Raises:
            BadModel: there is none.
        """
        if self.evidence is None:
            raise BadModel("cannot correct by what was seen: there are no calibration inputs")
        return self.evidence
