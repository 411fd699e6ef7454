"""The variants of one model, best first: judged against a budget, ordered, picked (pure), kept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from compression import durable
from compression.errors import BadInputs
from compression.findings import (
    Agreement,
    Division,
    Ladder,
    Measurement,
    ModelRef,
    Recovered,
    Rejected,
    Rung,
    Sensitivity,
)
from compression.job import Budget, DeviceClass
from compression.words import explain

FILE = "ladder.json"
LEAST_MARGIN = 0.02
"""The least by which a figure of time has to be below its bound to be sure of it."""
MEMORY_MARGIN = 0.035
"""The same of memory: twice the standard deviation of peaks over ten trials of one file, which
was 0.03 to 1.7 % for four models."""
SAME_SPEED = 0.1
"""What is slower than the fastest by less than this share may come first by being smaller."""

UNFELT = 1e-3
"""A loss that nobody feels: by Pinsker's inequality probabilities then move by at most .022; of all
else the error is 30 dB below the signal."""

DEFAULT_MIN_AGREEMENT = 0.98
"""Where nobody says how alike the answers must be."""
TIMES = frozenset({"latency_p95_ms", "latency_ratio", "cpu_share"})
"""Bounds of time."""
_NO_LOSS, _MOST_DOUBLINGS = 1e-6, 64
_Figure = Callable[[Measurement], float]
# Budget field -> (what it is called, unit, how the measurement says it). All are upper bounds.
BOUNDS: dict[str, tuple[str, str, _Figure]] = {
    "latency_p95_ms": ("latency p95", " ms", lambda m: m.latency_p95_ms),
    "latency_ratio": ("latency ratio", "", lambda m: m.latency_ratio),
    "peak_memory_mib": ("peak memory", " MiB", lambda m: m.peak_memory_mib),
    "memory_ratio": (
        "memory ratio",
        "",
        lambda m: m.peak_memory_mib / max(m.original_peak_memory_mib, 1e-9),
    ),
    "size_mib": ("size", " MiB", lambda m: m.size_mib),
    "size_ratio": ("size ratio", "", lambda m: m.size_mib / max(m.original_size_mib, 1e-9)),
    "threads": ("threads", "", lambda m: m.threads),
}


def whole(budget: Budget) -> Budget:
    """Return the budget with the least agreement that holds where nobody gave one."""
    return budget.over(Budget(min_agreement=DEFAULT_MIN_AGREEMENT))


def cpu_share(measurement: Measurement, *, rate_hz: float, cores: int) -> float:
    """Share of all cores that `rate_hz` inferences a second use."""
    return measurement.cpu_ms_per_inference * rate_hz / 1000.0 / cores


def misses(measurement: Measurement, budget: Budget, *, cores: int) -> tuple[str, ...]:
    """Say where a measurement misses the budget, one sentence with values for each field."""
    return tuple(text for text, _ in _misses(measurement, budget, cores))


def shortfall(measurement: Measurement, budget: Budget, *, cores: int) -> float:
    """How far a measurement misses the budget: the sum of what each field is over by (0: met).

    Each is a fraction of its bound, so that milliseconds and MiB can be added.
    """
    return sum(over for _, over in _misses(measurement, budget, cores))


def _misses(measurement: Measurement, budget: Budget, cores: int) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for field, (name, unit, figure) in BOUNDS.items():
        bound = getattr(budget, field)
        value = figure(measurement)
        if bound is not None and value > bound:
            shown = f"{name} {_number(value)}{unit} over budget {_number(bound)}{unit}"
            found.append((shown, value / bound - 1.0))
    if budget.cpu_share is not None and budget.request_rate_hz is not None:
        share = cpu_share(measurement, rate_hz=budget.request_rate_hz, cores=cores)
        if share > budget.cpu_share:
            text = (
                f"CPU share {share:.1%} at {_number(budget.request_rate_hz)} Hz on {cores} "
                f"cores over budget {budget.cpu_share:.1%}"
            )
            found.append((text, share / budget.cpu_share - 1.0))
    agreement = measurement.agreement
    if budget.min_agreement is not None and agreement.value < budget.min_agreement:
        text = (
            f"agreement {agreement.value:.3f} ({agreement.kind}, {agreement.samples} "
            f"{agreement.split} samples) below {budget.min_agreement:.3f}"
        )
        found.append((text, budget.min_agreement / max(agreement.value, 1e-3) - 1.0))
    return found


def standing(rung: Rung) -> Agreement:
    """The agreement that a rung is ordered by: what it was chosen by, not what it reports.

    To order by what is reported would choose by it, and the figure of the first would be too good.
    """
    return rung.chosen_by or rung.measurement.agreement


def standard_error(agreement: Agreement) -> float:
    """One standard error, from the lower end of the 95 % interval."""
    return (agreement.value - agreement.low) / 1.96


def margin(measurement: Measurement) -> float:
    """By which share a figure of time may be off: twice its standard error, at least 2 %.

    The error is that of the ratio (half of its 95 % interval is about two of them); where no
    interval is known, the noise of the original against itself stands for it.
    """
    if measurement.ratio_high is None:
        return max(LEAST_MARGIN, 2 * measurement.noise)
    return max(LEAST_MARGIN, measurement.ratio_high / measurement.latency_ratio - 1.0)


def surely(rung: Rung, budget: Budget, *, cores: int) -> bool:
    """Whether a rung meets the bounds of time and memory by more than measuring them may be off.

    What the original is to itself is known exactly.
    """
    share, itself = 1.0 + margin(rung.measurement), not rung.recipe.passes
    factors = dict.fromkeys(("latency_p95_ms", "cpu_share"), share)
    factors |= {"peak_memory_mib": 1.0 + MEMORY_MARGIN}
    if not itself:
        factors |= {"latency_ratio": share, "memory_ratio": 1.0 + MEMORY_MARGIN}
    given = budget.model_dump(exclude_none=True)
    drawn = {field: given[field] / by for field, by in factors.items() if field in given}
    return not misses(rung.measurement, Budget(**(given | drawn)), cores=cores)


def judged(rung: Rung, budget: Budget, *, cores: int) -> Rung:
    """The same rung, judged against `budget`."""
    found = misses(rung.measurement, budget, cores=cores)
    return rung.model_copy(update={"meets_budget": not found, "misses": found})


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
    judgements = [judged(rung, budget, cores=device_class.cores) for rung in rungs]
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


def binding(budget: Budget, measurement: Measurement, *, cores: int) -> frozenset[str]:
    """The fields that the original itself does not keep, by any measurement of a variant of it."""
    m = measurement
    itself = m.model_copy(
        update={
            "latency_p95_ms": m.original_latency_p95_ms,
            "latency_ratio": 1.0,
            "cpu_ms_per_inference": m.original_cpu_ms_per_inference,
            "peak_memory_mib": m.original_peak_memory_mib,
            "size_mib": m.original_size_mib,
        }
    )
    given = budget.model_dump(exclude_none=True, exclude={"min_agreement", "threads"})
    rate = {"request_rate_hz": given.pop("request_rate_hz", None)}
    alone = {field: Budget(**{field: bound}, **rate) for field, bound in given.items()}
    return frozenset(one for one in alone if misses(itself, alone[one], cores=cores))


def in_order(rungs: Sequence[Rung], budget: Budget, *, cores: int) -> list[Rung]:
    """Return first those that meet `budget`, the nearest first; then others by how far they miss.

    Those that would meet it if all was measured anew come before those that might not (`surely`).
    What they are ordered by was found on inputs that chose (`Nearness`, `standing`), see `_tiers`.
    Of one tier the faster comes first, and of those nearly as fast as the fastest the nearer (where
    a bound binds), then the one of least time x size.
    """
    far = {id(rung): shortfall(rung.measurement, budget, cores=cores) for rung in rungs}
    meets = [rung for rung in rungs if not far[id(rung)]]
    sure = [rung for rung in meets if surely(rung, budget, cores=cores)]
    ahead = sure or meets
    bound = binding(budget, ahead[0].measurement, cores=cores) if ahead else frozenset()
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
        if not bound & TIMES:
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
    fitting = [rung for rung in ladder.rungs if not misses(rung.measurement, budget, cores=cores)]
    return next(iter(in_order(fitting, budget, cores=cores)), None)


def nearest(ladder: Ladder, budget: Budget) -> Rung | None:
    """The rung that misses `budget` by least; None only for a ladder without rungs."""
    cores = ladder.device_class.cores
    return min(
        ladder.rungs,
        key=lambda rung: shortfall(rung.measurement, budget, cores=cores),
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


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
