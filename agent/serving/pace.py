"""Whether a model is quick enough to run on the event loop, by what its runs took (pure)."""

import math

INLINE_S = 1e-3
"""What runs for less runs on the event loop: the way to a thread and back costs about 50 us."""
ALONE_S = 15e-3
"""What runs for less may run there too while no other model is served: the way to a thread, whose
code is in no cache then, takes some per cent of it."""
PROOF = 64
"""Quick runs in a row, on a thread, after which a model that was slow once runs on the loop."""
DOUBT = 4
"""As PROOF, at first, where only wall time was slow: on a busy device that is others' too."""
FORGOTTEN = 256
"""Quick runs in a row after which such a doubt begins anew; else it doubles, up to PROOF."""
_NEWEST_WEIGHT = 0.2
_LARGER = 2


class Pace:
    """What runs of one model take, learnt run by run; `learn` is called by one thread at a time."""

    def __init__(self, took_s: float = math.inf, size: int = 0) -> None:
        """`took_s` is what a first run took on inputs of `size` bytes; infinite: none fitted."""
        self.typical_s = INLINE_S if math.isinf(took_s) else took_s
        self.most_bytes = _LARGER * size if took_s < INLINE_S else -1
        """Of the inputs of a run that may hold the loop; -1: none may."""
        self._quick_bytes = size if took_s < INLINE_S else 0
        self._to_prove = 0 if took_s < INLINE_S else 1
        self._doubt = DOUBT
        self._in_a_row = 0

    def quick(self, size: int) -> bool:
        """Whether a run on inputs of `size` bytes may hold the loop.

        What is much larger than all that was quick may not be.
        """
        return size <= self.most_bytes

    def short(self) -> bool:
        """Whether a run may hold the loop where nobody else waits for it."""
        return self.typical_s < ALONE_S

    def learn(self, took_s: float, size: int, *, certain: bool) -> None:
        """Take account of a run; `certain`: `took_s` is CPU time, and nobody else's."""
        self.typical_s += _NEWEST_WEIGHT * (took_s - self.typical_s)
        if took_s >= INLINE_S:
            self._in_a_row, self.most_bytes = 0, -1
            self._to_prove = PROOF if certain else self._doubt
            self._doubt = min(PROOF, 2 * self._doubt)
            return
        self._in_a_row += 1
        if self._in_a_row >= FORGOTTEN:
            self._doubt = DOUBT
        self._quick_bytes = max(self._quick_bytes, size)
        if self._to_prove:
            self._to_prove -= 1
        if not self._to_prove:
            self.most_bytes = _LARGER * self._quick_bytes
