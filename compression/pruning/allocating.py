"""How wide each group stays for a wanted share of the products: the cheapest loss first (pure)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.errors import BadModel
from compression.pruning import costs
from compression.pruning.groups import ChannelMap

MOST_CUT = 0.875
"""The largest share of one group that goes."""
_AHEAD = 6
"""Steps that are looked at together: a width may lose little only together with the next."""
_LEAST = 1e-7


def widths(
    channels: ChannelMap,
    losses: Mapping[str, Sequence[float]],
    levels: Sequence[float],
    *,
    macs: float,
) -> dict[str, int]:
    """Return the width of each group so that at most the share `macs` of all products is left.

    `losses` says what is lost where a group alone is cut by the shares `levels`; losses of several
    groups are taken to add up. Groups that it lacks stay whole. Step by step the group is narrowed
    that loses least for what it saves then.

    Raises:
        BadModel: no widths leave so little.
    """
    counts = costs.Costs(channels)
    tracks = [
        _steps(group.width, costs.steps(group)) if group.id in losses else (group.width,)
        for group in channels.groups
    ]
    curves = [
        _curve(group.width, track, losses.get(group.id, (0.0,) * len(levels)), levels)
        for group, track in zip(channels.groups, tracks, strict=True)
    ]
    at = np.zeros(len(tracks), int)
    now = np.array([group.width for group in channels.groups])
    left = counts.left(now)
    while left > macs:
        step = _cheapest(counts, tracks, curves, at, now)
        if step is None:
            raise BadModel(
                f"cannot cut to {macs:.2f} of the multiplications: with every group as narrow as "
                f"it may be, {left:.2f} are left"
            )
        number, to = step
        for early in range(at[number] + 1, to + 1):  # the last step need not go further than asked
            at[number], now[number] = early, tracks[number][early]
            left = counts.left(now)
            if left <= macs:
                break
    return {g.id: int(w) for g, w in zip(channels.groups, now, strict=True) if w < g.width}


def _cheapest(
    counts: costs.Costs,
    tracks: Sequence[Sequence[int]],
    curves: Sequence[NDArray[np.float64]],
    at: NDArray[np.int64],
    now: NDArray[np.int64],
) -> tuple[int, int] | None:
    """Which group to narrow, and how many steps, to lose least for what it saves; None: none."""
    left = counts.left(now)
    best: tuple[float, int, int] | None = None
    for number, (track, curve) in enumerate(zip(tracks, curves, strict=True)):
        for to in range(at[number] + 1, min(len(track), at[number] + 1 + _AHEAD)):
            tried = now.copy()
            tried[number] = track[to]
            saved = left - counts.left(tried)
            if saved <= 0:
                continue
            price = (curve[to] - curve[at[number]]) / saved
            if best is None or price < best[0]:
                best = (price, number, to)
    return None if best is None else best[1:]


def _steps(width: int, steps: tuple[int, ...]) -> tuple[int, ...]:
    least = width * (1 - MOST_CUT)
    return tuple(step for step in steps if step >= least) or (width,)


def _curve(
    width: int, track: Sequence[int], losses: Sequence[float], levels: Sequence[float]
) -> NDArray[Any]:
    """What is lost at each step: between levels a line, up to the first a square."""
    shares = 1 - np.array(track) / width
    finite = np.minimum(np.maximum(np.asarray(losses, float), _LEAST), 1e6)
    slope = (finite[-1] - finite[-2]) / (levels[-1] - levels[-2])
    end = finite[-1] + 2 * slope * (1 - levels[-1])
    found: NDArray[Any] = np.interp(shares, [0, *levels, 1], [0, *finite, end])
    early = shares < levels[0]
    found[early] = finite[0] * (shares[early] / levels[0]) ** 2
    return found
