"""What kernels cost on this device, kept on disk by device class, runtime and threads."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from compression import durable
from compression.job import DeviceClass, Runtime
from compression.latency.asking import Timed
from compression.latency.kernels import Kernel, Kernels
from compression.words import Words

Measure = Callable[[Sequence[Kernel]], Timed]
"""Times kernels, as many of the first as there is time for; None: it does not run."""


class Known(Words):
    """The file. Costs are in references (`compression.latency.timing`), by the kernel's key."""

    version: int = 1
    device_class: DeviceClass
    runtime: Runtime
    costs: dict[str, float] = Field(default_factory=dict)
    calling: float = 0.0
    """What a session's run costs, whatever it holds."""


class Table:
    """Looks costs up, and has measured what it lacks."""

    def __init__(
        self, folder: Path, device: DeviceClass, how: Runtime, *, measure: Measure
    ) -> None:
        name = hashlib.sha256(device.to_json() + how.to_json()).hexdigest()[:12]
        self.path = folder / f"kernels-{name}.json"
        self._measure = measure
        fresh = Known(device_class=device, runtime=how)
        self._known = _read(self.path, fresh)
        self._costs = dict(self._known.costs)
        self._calling = self._known.calling
        self._refused: set[str] = set()

    def __len__(self) -> int:
        return len(self._costs)

    def cost(self, kernels: Kernels) -> float | None:
        """What a model costs, its kernels and one call, in references; None where one is not known.

        Kernels that do not run alone, and those that cannot be taken apart, count as nothing:
        what a whole model measures corrects that.
        """
        self.learn(kernels.all)
        alone = self.sum(kernels)
        return None if alone is None else alone + self._calling

    def sum(self, kernels: Kernels) -> float | None:
        """What known kernels cost without the call; otherwise as `cost`."""
        total = 0.0
        for one in kernels.all:
            if one.key in self._refused:
                continue
            if one.key not in self._costs:
                return None
            total += self._costs[one.key]
        return total

    def learn(self, kernels: Iterable[Kernel]) -> None:
        """Have measured what is not known, and keep it."""
        lacking = {
            one.key: one
            for one in kernels
            if one.key not in self._costs and one.key not in self._refused
        }
        if not lacking:
            return
        found = self._measure(tuple(lacking.values()))
        # Fewer are answered than asked where time ran out: those are neither known nor refused.
        answered = dict(zip(lacking, found.costs, strict=False))
        known = {key: cost for key, cost in answered.items() if cost is not None}
        self._costs |= known
        self._refused |= answered.keys() - known.keys()
        if not self._calling and found.calling is not None:
            self._calling = found.calling
        if known:
            update = {"costs": self._costs, "calling": self._calling}
            kept = self._known.model_copy(update=update)
            with contextlib.suppress(OSError):  # it is only there to save time
                durable.replace(self.path, kept.to_json())


def _read(path: Path, fresh: Known) -> Known:
    """What an earlier run has measured, where it was this device and this runtime."""
    try:
        found = Known.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return fresh
    same = (found.version, found.device_class, found.runtime)
    return found if same == (fresh.version, fresh.device_class, fresh.runtime) else fresh
