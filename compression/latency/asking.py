"""Has kernels timed: each in a file, many to one request of the parent, which runs the trial."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compression import working
from compression.job import KernelJob, Runtime
from compression.latency.kernels import Kernel
from compression.stream import TrialAnswer

KERNEL_S = 0.12
"""About what one kernel takes, loading and pauses among it; slow ones take longer."""
MANY = 64
"""To one request: a kernel that kills the trial takes the others of its request along."""
LEAST_S = 5.0


@dataclass(frozen=True)
class Timed:
    """What kernels cost, as many of the first as there was time for, and what a session's run."""

    costs: tuple[float | None, ...]
    calling: float | None = None


def asker(
    ask: Callable[[KernelJob], TrialAnswer], *, folder: Path, how: Runtime, stop: float
) -> Callable[[Sequence[Kernel]], Timed]:
    """Return what times kernels through `ask` until `stop` (working.now_s()).

    It answers for as many of the first as there was time for, and goes no further where a request
    came to none. Where a trial dies, its kernels are
    asked for in two halves, until it is known which of them cannot be run.
    """

    def measure(kernels: Sequence[Kernel]) -> Timed:
        found: list[float | None] = []
        calling: list[float] = []
        waiting = [kernels[at : at + MANY] for at in range(0, len(kernels), MANY)]
        while waiting:
            left_s = stop - working.now_s()
            if left_s <= 0:
                break
            part = waiting.pop(0)
            seconds = max(LEAST_S, min(left_s, 4 * KERNEL_S * len(part)))
            with _written(part, folder) as paths:
                answer = ask(KernelJob(kernels=paths, runtime=how, seconds=seconds))
            if answer.kernels is not None:
                if not answer.kernels.timed:
                    break
                found += answer.kernels.costs[: answer.kernels.timed]
                calling.append(answer.kernels.calling)
                if answer.kernels.timed < len(part):
                    waiting.insert(0, part[answer.kernels.timed :])
            elif len(part) > 1:
                half = math.ceil(len(part) / 2)
                waiting[:0] = [part[:half], part[half:]]
            else:
                found.append(None)
        return Timed(tuple(found), min(calling, default=None))

    return measure


@contextlib.contextmanager
def _written(kernels: Sequence[Kernel], folder: Path) -> Iterator[tuple[str, ...]]:
    paths = [folder / f"kernel-{one.key}.onnx" for one in kernels]
    try:
        for path, one in zip(paths, kernels, strict=True):
            path.write_bytes(one.model.SerializeToString())
        yield tuple(str(path) for path in paths)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
