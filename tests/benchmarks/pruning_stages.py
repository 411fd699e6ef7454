"""Cuts half of a model's products in this process; prints CPU seconds by stage and peak memory."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from compression import channels, graph, runtime, samples
from compression.calibration.evidence import Evidence
from compression.passes import structured_pruning
from compression.pruning import balance, comparing, planning, refitting, surgery
from tests.benchmarks.pruning_row import highest_mib

T = TypeVar("T")
STAGES = (
    (channels, "find", "groups"),
    (planning, "study", "order"),
    (planning, "for_share", "widths"),
    (surgery, "cut", "cut"),
    (refitting, "refit", "refit"),
    (balance, "restore", "balance"),
    (comparing, "lost", "compare"),
)
"""What is timed of the pass, by module and function. A stage may come several times."""


def main(model: Path, inputs: Path, keep: float) -> None:
    """Print one line of JSON."""
    spent = {"regular": 0.0}
    original = timed(lambda: graph.regular(model), spent, "regular")
    for module, name, stage in STAGES:
        spent[stage] = 0.0
        setattr(module, name, watched(getattr(module, name), spent, stage))
    with samples.open_samples(inputs, runtime.inputs(runtime.session(original))) as held:
        evidence = Evidence(lambda: (held.sample(at) for at in range(len(held))))
        settings = structured_pruning.Settings(keep=keep)
        whole = channels.find(original, sample=held.sample(0)).macs
        cut = structured_pruning.apply(original, settings, evidence=evidence)
        peak = highest_mib()
        left = channels.find(cut, sample=held.sample(0)).macs / whole
        found = {"inputs": len(held), "macs": left, "peak_mib": peak, "cpu_s": spent}
    print(json.dumps(found | {"torch": "torch" in sys.modules}))


def watched(act: Callable[..., T], spent: dict[str, float], stage: str) -> Callable[..., T]:
    """The same function, whose CPU seconds are added up."""
    return lambda *given, **more: timed(lambda: act(*given, **more), spent, stage)


def timed(act: Callable[[], T], spent: dict[str, float], stage: str) -> T:
    """What is answered; the CPU seconds that this took are added to a stage."""
    started = time.process_time()
    try:
        return act()
    finally:
        spent[stage] += time.process_time() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), 0.5)
