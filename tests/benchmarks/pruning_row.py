"""Rows of the table of test_pruning.py: cuts a model in this process, whose peak they show."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import agreement, channels, runtime, samples
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import OutputSpec
from compression.passes import structured_pruning
from compression.ruler import resident

Arrays = dict[str, NDArray[Any]]


def rows(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut by one order to each share, then judge on inputs that had no part in it."""
    folder = Path(asked["folder"])
    model = onnx.load(folder / "regular.onnx")
    original = runtime.session(model)
    specs = runtime.inputs(original)
    outputs = tuple(OutputSpec.model_validate(one) for one in asked["outputs"])
    with (
        samples.open_samples(folder / "calibrating.npz", specs) as inputs,
        samples.open_samples(folder / "judging.npz", specs) as judging,
    ):
        evidence = Evidence(lambda: (inputs.sample(at) for at in range(len(inputs))))
        sample = inputs.sample(0)
        whole, groups_s = timed(lambda: channels.find(model, sample=sample))
        for share, refit in asked["cuts"]:
            settings = structured_pruning.Settings(keep=share, order=asked["order"], refit=refit)
            row = {"keep": share, "refit": refit, "groups_s": groups_s}
            try:
                cut, spent_s = timed(
                    lambda: structured_pruning.apply(model, settings, evidence=evidence)  # noqa: B023 - called at once
                )
            except BadModel as error:
                yield row | {"problem": str(error)}
                continue
            peak = highest_mib()
            judge, candidate, letters = agreement.Judge(outputs), runtime.session(cut), np.zeros(2)
            for at in range(len(judging)):
                one = judging.sample(at)
                theirs, ours = runtime.run(original, one), runtime.run(candidate, one)
                judge.add(theirs, ours)
                letters += read(outputs[0], theirs, ours)
            yield row | {
                "letters": letters[0] / letters[1] if letters[1] else None,
                "macs": channels.find(cut, sample=sample).macs / whole.macs,
                "agreement": judge.agreement("held-out").value,
                "cpu_s": spent_s,
                "peak_mib": peak,
            }


def read(spec: OutputSpec, theirs: Arrays, ours: Arrays) -> tuple[int, int]:
    """Of the steps at which the original reads something, those that agree, and all."""
    if spec.kind != "steps" or spec.blank is None:
        return 0, 0
    wanted, found = (one[spec.name].argmax(-1) for one in (theirs, ours))
    is_letter = wanted != spec.blank
    return int((is_letter & (wanted == found)).sum()), int(is_letter.sum())


def highest_mib() -> float:
    """The most memory that this process had; `ru_maxrss` counts what its parent had as well."""
    return resident.kib("VmHWM") / 1024


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """What is answered, and the CPU seconds that this took."""
    started = time.process_time()
    return act(), time.process_time() - started


if __name__ == "__main__":
    for found in rows(json.loads(sys.argv[1])):
        print(json.dumps(found), flush=True)
