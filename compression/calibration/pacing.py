"""How many inputs there is time for, from what one run takes: a slow board takes fewer (pure)."""

from typing import NamedTuple

LEAST_CALIBRATING, LEAST_LOOKING = 8, 6
"""However slow the model is."""
_PASS_SHARE, _LOOK_SHARE = 1 / 8, 1 / 48
"""Of the job's time: for one pass over what calibrates, for the look at one candidate."""
_PASS_RUNS, _LOOK_RUNS, _FIT_RUNS = 1.5, 2.0, 12.0
"""What one input costs there, in runs of the original."""


class Counts(NamedTuple):
    """The most inputs that calibrate, that are looked at, and that weights are fitted to."""

    calibrating: int
    looking: int
    fitting: int


def counts(*, once_s: float, within_s: float) -> Counts:
    """Say how many inputs fit a job of `within_s` seconds where one run takes `once_s`.

    With all of them a model of a second would be looked at for longer than its job may take.
    """
    runs = within_s / max(once_s, 1e-6)
    return Counts(
        max(LEAST_CALIBRATING, int(_PASS_SHARE * runs / _PASS_RUNS)),
        max(LEAST_LOOKING, int(_LOOK_SHARE * runs / _LOOK_RUNS)),
        max(LEAST_CALIBRATING, int(_PASS_SHARE * runs / _FIT_RUNS)),
    )


def spread(indices: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Pick at most so many of `indices`, at even distances."""
    few = min(most, len(indices))
    return tuple(indices[at * len(indices) // few] for at in range(few))
