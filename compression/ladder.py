"""The variants of one model, best first: put in order, picked (pure), and kept on disk."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from compression import durable, judging
from compression.errors import BadInputs
from compression.findings import (
    Agreement,
    Division,
    Ladder,
    ModelRef,
    Recovered,
    Rejected,
    Rung,
    Sensitivity,
)
from compression.job import Budget, DeviceClass
from compression.words import explain

FILE = "ladder.json"
SAME_SPEED = 0.1
"""What is slower than the fastest by less than this share may come first by being smaller."""

UNFELT = 1e-3
"""A loss that nobody feels: by Pinsker's inequality probabilities then move by at most .022; of all
else the error is 30 dB below the signal."""

_NO_LOSS, _MOST_DOUBLINGS = 1e-6, 64


def standing(rung: Rung) -> Agreement:
    """The agreement that a rung is ordered by: what it was chosen by, not what it reports.

    To order by what is reported would choose by it, and the figure of the first would be too good.
    """
    return rung.chosen_by or rung.measurement.agreement


def standard_error(agreement: Agreement) -> float:
    """One standard error, from the lower end of the 95 % interval."""
    return (agreement.value - agreement.low) / 1.96


def build(
    *,
    model: ModelRef,
    device_class: DeviceClass,
    budget: Budget,
    rungs: Sequence[Rung],
    rejected: Sequence[Rejected] = (),
    division: Division | None = None,
    sensitivities: Sequence[Sensitivity] = (),
    recovered: Sequence[Recovered] = (),
) -> Ladder:
    """Judge every rung against `budget` and put them in order, see `in_order`."""
    judgements = [judging.judged(rung, budget, cores=device_class.cores) for rung in rungs]
    ordered = in_order(judgements, budget, cores=device_class.cores)
    return Ladder(
        model=model,
        device_class=device_class,
        budget=budget,
        rungs=tuple(ordered),
        rejected=tuple(rejected),
        division=division,
        sensitivities=tuple(sensitivities),
        recovered=tuple(recovered),
    )


def in_order(rungs: Sequence[Rung], budget: Budget, *, cores: int) -> list[Rung]:
    """Return first those that meet `budget`, the nearest first; then others by how far they miss.

    Those that would meet it if all was measured anew (`judging.surely`) come before those that
    might not. What they are ordered by was found on inputs that chose (`Nearness`, `standing`), see
    `_tiers`. Of one tier the faster comes first, and of those nearly as fast as the fastest the
    nearer (where a bound binds), then the one of least time x size.
    """
    far = {id(rung): judging.shortfall(rung.measurement, budget, cores=cores) for rung in rungs}
    meets = [rung for rung in rungs if not far[id(rung)]]
    sure = [rung for rung in meets if judging.surely(rung, budget, cores=cores)]
    ahead = sure or meets
    bound = judging.binding(budget, ahead[0].measurement, cores=cores) if ahead else frozenset()
    tiers = _tiers(ahead, bound)
    fastest: dict[float, float] = {}
    for rung in ahead:
        ratio, tier = rung.measurement.latency_ratio, tiers[id(rung)]
        fastest[tier] = min(ratio, fastest.get(tier, ratio))

    def place(rung: Rung) -> tuple[float, ...]:
        m = rung.measurement
        if id(rung) not in tiers:
            doubt = float(bool(far[id(rung)]) or len(ahead) < len(meets))
            return (far[id(rung)], doubt, -standing(rung).value, m.latency_ratio, m.size_mib)
        tier = tiers[id(rung)]
        as_fast = m.latency_ratio <= fastest[tier] * (1 + SAME_SPEED)
        near = float(rung.nearness.place) if as_fast and bound and rung.nearness else 0.0
        cost = m.latency_ratio * m.size_mib if as_fast else m.latency_ratio
        return (0.0, 0.0, tier, float(not as_fast), near, cost, m.size_mib)

    return sorted(rungs, key=place)


def _tiers(rungs: Sequence[Rung], bound: frozenset[str]) -> dict[int, float]:
    """How good each of some that meet a budget is, by id: less is better, equals are one tier.

    `bound` are the bounds that the original misses. Where there are any, the nearest to it comes
    first (`Nearness.place`). What nobody feels is alike, unless time is what is bounded: then speed
    is not asked for, and of one place those come first that lose less than half of what others do.

    Where there are none, speed is what is asked for: what is within one standard error of the
    highest agreement is as good (Breiman et al., "Classification and Regression Trees", 1984,
    section 3.4.3). So it is where no inputs were compared one by one.
    """
    near = {id(rung): rung.nearness for rung in rungs if rung.nearness is not None}
    if bound and len(near) == len(rungs):
        if not bound & judging.TIMES:
            return {one: float(-1 if n.loss <= UNFELT else n.place) for one, n in near.items()}
        least: dict[int, float] = {}
        for n in near.values():
            least[n.place] = min(n.loss, least.get(n.place, n.loss))
        return {one: n.place + _doublings(n.loss, least[n.place]) for one, n in near.items()}
    standings = {id(rung): standing(rung) for rung in rungs}
    best = max((one.value for one in standings.values()), default=0.0)
    tops = [one for one in standings.values() if one.value == best]
    enough = min((one.value - standard_error(one) for one in tops), default=0.0)
    return {one: 0.0 if s.value >= enough else 2.0 - s.value for one, s in standings.items()}


def _doublings(loss: float, least: float) -> float:
    """How often the least loss is doubled in another, as a part of one place."""
    times = (loss + _NO_LOSS) / (least + _NO_LOSS)
    return min(_MOST_DOUBLINGS - 1, int(math.log2(times))) / _MOST_DOUBLINGS


def pick(ladder: Ladder, budget: Budget) -> Rung | None:
    """The best rung under `budget`, which need not be the ladder's own; None: nothing meets it."""
    cores = ladder.device_class.cores
    fitting = [
        rung for rung in ladder.rungs if not judging.misses(rung.measurement, budget, cores=cores)
    ]
    return next(iter(in_order(fitting, budget, cores=cores)), None)


def nearest(ladder: Ladder, budget: Budget) -> Rung | None:
    """The rung that misses `budget` by least; None only for a ladder without rungs."""
    cores = ladder.device_class.cores
    return min(
        ladder.rungs,
        key=lambda rung: judging.shortfall(rung.measurement, budget, cores=cores),
        default=None,
    )


def load(folder: Path) -> Ladder:
    """Read `ladder.json` of a folder.

    Raises:
        BadInputs: it is not there, or not a ladder.
    """
    path = folder / FILE
    try:
        return Ladder.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInputs(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadInputs(f"cannot read {path}: {explain(error)}") from error


def save(ladder: Ladder, folder: Path) -> Path:
    """Write `ladder.json` beside, sync it and rename it: a power cut leaves the old or the new."""
    path = folder / FILE
    durable.replace(path, ladder.to_json())
    return path
