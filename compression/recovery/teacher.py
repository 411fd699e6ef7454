"""The original in onnxruntime, with the tensors that a student is compared by brought out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import taps
from compression.errors import BadModel

Arrays = Mapping[str, NDArray[Any]]
_TOLERANCE = 1e-3


class Teacher:
    """Answers with `names`: tensors that the original's nodes make."""

    def __init__(self, original: onnx.ModelProto, names: Sequence[str], *, threads: int) -> None:
        self.names = tuple(names)
        self._session = taps.session(taps.outputs(original, self.names), threads=threads)

    def answer(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """The tensors by name, for one batch.

        Raises:
            BadModel: the original does not run on it.
        """
        return runtime.run(self._session, feeds)


def takes_batches(teacher: Teacher, one: Arrays, other: Arrays) -> bool:
    """Whether two samples at once are answered as each alone: leading axes may mean other things.

    Both have the same shapes.
    """
    try:
        together = teacher.answer({name: np.concatenate([one[name], other[name]]) for name in one})
        apart = [teacher.answer(each) for each in (one, other)]
    except (BadModel, ValueError):  # a fixed shape, or one that has no axis to join
        return False
    for name, found in together.items():
        first, second = (each[name] for each in apart)
        if first.ndim == 0 or len(found) != 2 * len(first):
            return False
        wanted = np.concatenate([first, second])
        if found.dtype.kind == "f":
            largest = float(np.abs(wanted).max(initial=1e-9))
            if not np.abs(found - wanted).max(initial=0.0) <= _TOLERANCE * largest:
                return False
        elif not np.array_equal(found, wanted):
            return False
    return True
