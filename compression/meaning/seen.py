"""What is seen of an output without running the model: its name, shape and last operators."""

import re
from dataclasses import dataclass

from compression.job import OutputKind

# The first pattern that is found in the lower-case name wins.
NAMES: tuple[tuple[str, OutputKind], ...] = (
    (r"landmark|keypoint|reconstruct|decoded|denoise", "tensor"),
    (r"box|detect|bbox|num_det", "detections"),
    (r"mask|segment", "mask"),
    (r"embed|feature|pooler|hidden_state", "embedding"),
    (r"(^|_)(h|c|hn|cn|state)(n|_?out)?$|state|^present", "state"),
    (r"logit|prob|label|class|softmax", "logits"),
    (r"score|confidence|anomaly", "score"),
)
_HELD = re.compile(r"(^|_)(h|c|h0|c0|hn|cn)(_?in)?$|state|^past|cache|memory")
_FEW_CHANNELS = {1, 3}
"""Channels of a picture: an image of them is no mask."""


@dataclass(frozen=True)
class Seen:
    """What is seen of an output without running the model. Dims of -1 are dynamic."""

    name: str
    shape: tuple[int, ...]
    tail: tuple[str, ...] = ()
    """The operators that lead to it, nearest first."""
    axis: int | None = None
    """Along which the last operator works, where it has one."""
    integers: bool = False
    like: tuple[str, ...] = ()
    """Inputs of the same shape and dtype."""
    image: tuple[int, int] | None = None
    """Height and width of an image that the model takes."""

    @property
    def maker(self) -> str:
        """The operator that writes it."""
        return self.tail[0] if self.tail else ""

    @property
    def last(self) -> int:
        """The last dim."""
        return self.shape[-1] if self.shape else 1

    @property
    def named(self) -> OutputKind | None:
        """What the name says."""
        lowered = self.name.lower()
        return next((kind for pattern, kind in NAMES if re.search(pattern, lowered)), None)

    @property
    def softmax(self) -> bool:
        """Whether it ends in a softmax, of one operator or of several."""
        parts = self.maker == "Div" and {"Exp", "ReduceSum"} <= set(self.tail)
        return parts or self.maker in {"Softmax", "LogSoftmax"}

    @property
    def normalised(self) -> bool:
        """Whether it ends in a division by its own length."""
        if self.maker == "LpNormalization":
            return True
        roots = {"ReduceL2"} & set(self.tail) or {"Sqrt", "ReduceSumSquare"} <= set(self.tail)
        roots = roots or ({"Sqrt", "ReduceSum"} <= set(self.tail) and "Exp" not in self.tail)
        return bool(roots) and self.maker in {"Div", "Mul"}

    @property
    def has_state(self) -> bool:
        """Whether an input of the same shape is called as what is handed on."""
        return any(_HELD.search(name.lower()) for name in self.like)

    @property
    def per_image_class(self) -> bool:
        """Whether it holds a figure per point and class of the image that is taken."""
        if len(self.shape) != 4:
            return False
        if self.softmax and self.axis == 1:
            return True
        as_large = self.image is not None and self.shape[2:] == self.image
        return as_large and self.shape[1] > 1 and self.shape[1] not in _FEW_CHANNELS
