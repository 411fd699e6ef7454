"""Several models on one device: what each may take, and which step down for another (pure).

The room is for the models together: their peaks, once more the largest of them (a new version is
loaded beside the old one), and the worker. One alone needs just its own: it can be replaced in its
place. Who asks for room is given it by models of its own
priority or a lower one; those of the lowest step down first, among equals the one that takes most
for its weight. What serves is never driven out, and nobody steps down for less priority than its
own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Option:
    """One variant, and what serving it takes: memory at its peak, and CPU at its request rate.

    `cpu_share` is of all cores; 0 where nobody said at which rate it is asked.
    """

    sha256: str
    label: str
    peak_mib: float
    cpu_share: float = 0.0


@dataclass(frozen=True)
class Claim:
    """One model: its options, best first. `serving`: which of them serves; None: it is new.

    One that is `fixed` stays as it serves: it is being worked on.
    """

    model: str
    options: tuple[Option, ...]
    serving: int | None = None
    priority: int = 0
    weight: float = 1.0
    fixed: bool = False


@dataclass(frozen=True)
class Room:
    """What the models may take together; the worker's memory is part of it."""

    memory_mib: float = float("inf")
    cpu_share: float = 1.0
    worker_mib: float = 0.0

    def left_mib(self, options: Sequence[Option]) -> float:
        """Memory that is left with these served, a swap of the largest, and the worker."""
        peaks = [one.peak_mib for one in options]
        if len(peaks) == 1:
            return self.memory_mib - peaks[0]
        return self.memory_mib - self.worker_mib - sum(peaks) - max(peaks, default=0.0)

    def left_cpu(self, options: Sequence[Option]) -> float:
        """The share of all cores that is left with these served."""
        return self.cpu_share - sum(one.cpu_share for one in options)


@dataclass(frozen=True)
class Plan:
    """Which option each model is to serve; `refused`: who gets none, and why."""

    chosen: Mapping[str, Option]
    refused: Mapping[str, str]

    def moved(self, claims: Sequence[Claim]) -> tuple[tuple[str, Option], ...]:
        """The models that serve something else than before, in the order of the claims."""
        return tuple(
            (one.model, self.chosen[one.model])
            for one in claims
            if one.serving is not None and self.chosen[one.model] != one.options[one.serving]
        )


def arrange(claims: Sequence[Claim], room: Room, *, raising: bool = False) -> Plan:
    """Choose an option for each model so that all fit; a new one that cannot fit is refused.

    What serves stays where it is as far as that goes; `raising`: it may take more again.
    """
    state = _State(claims, room, raising=raising)
    refused: dict[str, str] = {}
    while missing := state.missing():
        if state.step_down():
            continue
        new = [one for one in claims if one.serving is None and one.model not in refused]
        if not new:
            break  # what serves goes on serving, whatever becomes of the room
        last = min(new, key=lambda one: (one.priority, one.weight))
        refused[last.model] = missing
        state = _State([one for one in claims if one.model not in refused], room, raising=raising)
    state.step_up()
    return Plan(chosen=state.options(), refused=refused)


def allowance(claim: Claim, others: Sequence[Claim], room: Room) -> tuple[float, float]:
    """What a model without options yet may take: memory in MiB, and a share of all cores.

    Its part by weight, or what the others leave where that is more; at most what they would leave
    if all that may step down for it did. 0 where there is nothing.
    """
    as_they_are = [one.options[one.serving or 0] for one in others]
    least = [_least(one, claim.priority) for one in others]
    weight = claim.weight / (claim.weight + sum(one.weight for one in others))
    fair_mib, fair_cpu = weight * _most_mib([], room), weight * room.cpu_share
    return (
        min(max(fair_mib, _most_mib(as_they_are, room)), _most_mib(least, room)),
        min(max(fair_cpu, room.left_cpu(as_they_are)), max(0.0, room.left_cpu(least))),
    )


def _most_mib(others: Sequence[Option], room: Room) -> float:
    """The largest peak that fits beside others: it counts twice where it is the largest of all."""
    largest = max((one.peak_mib for one in others), default=0.0)
    free = room.memory_mib - room.worker_mib - sum(one.peak_mib for one in others)
    return max(0.0, free - largest if free / 2 < largest else free / 2)


def _least(claim: Claim, priority: int) -> Option:
    now = claim.options[claim.serving or 0]
    if claim.fixed or claim.priority > priority:
        return now
    later = claim.options[claim.serving or 0 :]
    return min(later, key=lambda one: (one.peak_mib, one.cpu_share))


class _State:
    """Options as they are being chosen."""

    def __init__(self, claims: Sequence[Claim], room: Room, *, raising: bool) -> None:
        self._claims, self._room = claims, room
        self._tops = {
            one.model: one.serving or 0 if one.fixed or not raising else 0 for one in claims
        }
        self._at = dict(self._tops)
        asking = [one.priority for one in claims if one.serving is None]
        self._asking = max(asking, default=None)

    def options(self) -> dict[str, Option]:
        return {one.model: one.options[self._at[one.model]] for one in self._claims}

    def missing(self) -> str:
        """What does not fit, with figures; empty where all does."""
        options, room = list(self.options().values()), self._room
        if not options:
            return ""
        if room.left_mib(options) < 0:
            peaks = sum(one.peak_mib for one in options)
            largest = max(one.peak_mib for one in options)
            if len(options) == 1:
                return f"it takes {peaks:.0f} MiB, more than {room.memory_mib:.0f} MiB"
            return (
                f"{len(options)} models take {peaks:.0f} MiB, with {largest:.0f} MiB for a swap "
                f"and {room.worker_mib:.0f} MiB for the worker more than {room.memory_mib:.0f} MiB"
            )
        if room.left_cpu(options) < -1e-9:
            share = sum(one.cpu_share for one in options)
            who = "it takes" if len(options) == 1 else f"{len(options)} models take"
            return f"{who} {share:.1%} of the CPU, more than {room.cpu_share:.1%}"
        return ""

    def step_down(self) -> bool:
        """Have one model take less of what is short; False where none can."""
        memory = self._room.left_mib(list(self.options().values())) < 0

        def takes(one: Option) -> float:
            return one.peak_mib if memory else one.cpu_share

        steps: list[tuple[int, float, str, int]] = []
        for claim in self._claims:
            at = self._at[claim.model]
            less = [
                n for n in range(at + 1, len(claim.options))
                if takes(claim.options[n]) < takes(claim.options[at])
            ]  # fmt: skip
            if less and self._may(claim):
                per_weight = takes(claim.options[at]) / claim.weight
                steps.append((claim.priority, -per_weight, claim.model, less[0]))
        if not steps:
            return False
        _, _, model, to = min(steps)
        self._at[model] = to
        return True

    def _may(self, claim: Claim) -> bool:
        """Whether a model may be asked: nobody steps down for less priority than its own."""
        if claim.fixed:
            return False
        asked_for_less = self._asking is not None and claim.priority > self._asking
        return claim.serving is None or not asked_for_less

    def step_up(self) -> None:
        """Give back what was taken and is not needed, to those of the highest priority first."""
        for claim in sorted(self._claims, key=lambda one: (-one.priority, -one.weight, one.model)):
            now = self._at[claim.model]
            for better in range(self._tops[claim.model], now):
                self._at[claim.model] = better
                if not self.missing():
                    break
                self._at[claim.model] = now


def without(claims: Sequence[Claim], model: str) -> tuple[Claim, ...]:
    """The claims of the others."""
    return tuple(one for one in claims if one.model != model)


def settled(claims: Sequence[Claim], plan: Plan) -> tuple[Claim, ...]:
    """The claims as they are once the plan has been followed."""
    return tuple(
        replace(one, serving=one.options.index(plan.chosen[one.model]))
        for one in claims
        if one.model in plan.chosen
    )
