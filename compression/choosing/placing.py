"""What two trials of a candidate say together: where it stands, what may be claimed of its time.

One is on the inputs that choose, the other on those that report, each in a process of its own.
"""

from collections.abc import Sequence

from compression import pairing
from compression.findings import Each, Measurement, Nearness, Rung

TIMED = (
    "latency_p50_ms", "latency_p95_ms", "original_latency_p50_ms", "original_latency_p95_ms",
    "latency_ratio", "ratio_basis", "wall_ratio", "cpu_ratio", "noise", "cpu_ms_per_inference",
    "original_cpu_ms_per_inference", "rounds",
)  # fmt: skip
"""Fields of a Measurement that one process timed together."""
PROCESSES = 0.025
"""How far the ratio of one file moves from process to process, as a standard deviation: where
weights lie in memory decides it, and no interval of one process shows it. Of 35 files that were
measured three or four times it was 0.1 to 6.6 %, of all of them together 2.2 %."""
_ORIGINAL = ""


def claimed(reported: Measurement, chosen: Measurement) -> Measurement:
    """What is reported, with the times of the slower of both processes.

    The interval holds what both said, and how far a third one may be from them.
    """
    slower = max(reported, chosen, key=lambda one: one.latency_ratio)
    fields = {name: getattr(slower, name) for name in TIMED}
    ratio = slower.latency_ratio
    lows = [one.ratio_low or one.latency_ratio for one in (reported, chosen)]
    highs = [one.ratio_high or one.latency_ratio for one in (reported, chosen)]
    fields |= {
        "ratio_low": min(*lows, ratio * (1 - 2 * PROCESSES)),
        "ratio_high": max(*highs, ratio * (1 + 2 * PROCESSES)),
    }
    method = reported.method | {
        "processes": f"of two processes ({reported.latency_ratio:.3f}, {chosen.latency_ratio:.3f}) "
        f"the slower; the interval allows for {2 * PROCESSES:.0%} from one to the next"
    }
    return reported.model_copy(update={**fields, "method": method})


class Places:
    """How near the candidates that are kept come to the original, each among all."""

    def __init__(self, sources: Sequence[int]) -> None:
        """`sources` are of the inputs that choose, in order."""
        self._sources = sources
        self._each: dict[str, Each] = {}
        self._keys: dict[str, str] = {}

    def add(self, key: str, each: Each | None) -> None:
        """Take a candidate into account."""
        if each is not None:
            self._each[key] = each

    def file(self, sha256: str, key: str) -> None:
        """Say which candidate a rung's file is."""
        self._keys[sha256] = key

    def of(self, rungs: Sequence[Rung]) -> list[Rung]:
        """The rungs with their nearness, where it is known."""
        if not self._each:
            return list(rungs)
        count = max(len(one.agreed) for one in self._each.values())
        itself = Each(agreed=(1.0,) * count, lost=(0.0,) * count, error=(0.0,) * count)
        every = {_ORIGINAL: itself, **self._each}
        found = pairing.places(list(every.values()), self._sources)
        near = {
            key: Nearness(place=place, loss=sum(every[key].lost) / max(1, len(every[key].lost)))
            for key, place in zip(every, found, strict=True)
        }
        keys = [self._keys.get(rung.sha256) if rung.recipe.passes else _ORIGINAL for rung in rungs]
        return [
            rung.model_copy(update={"nearness": None if key is None else near.get(key)})
            for rung, key in zip(rungs, keys, strict=True)
        ]
