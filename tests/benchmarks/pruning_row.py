"""One row of the table of test_pruning.py: cuts a model in this process, whose peak it reports."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import onnx

from compression import agreement, channels, runtime, samples
from compression.calibration.evidence import Evidence
from compression.job import OutputSpec
from compression.passes import structured_pruning


def main(asked: dict[str, Any]) -> dict[str, float]:
    """Cut, then judge on inputs that had no part in it."""
    folder = Path(asked["folder"])
    model = onnx.load(folder / "regular.onnx")
    original = runtime.session(model)
    specs = runtime.inputs(original)
    settings = structured_pruning.Settings.model_validate(
        {key: asked[key] for key in ("keep", "order", "refit")} | {"samples": 4096}
    )
    started = time.process_time()
    with samples.open_samples(folder / "calibrating.npz", specs) as inputs:
        evidence = Evidence(lambda: (inputs.sample(at) for at in range(len(inputs))))
        cut = structured_pruning.apply(model, settings, evidence=evidence)
        spent = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sample = inputs.sample(0)
        products = [channels.find(each, sample=sample).macs for each in (cut, model)]
    outputs = tuple(OutputSpec.model_validate(one) for one in asked["outputs"])
    judge = agreement.Judge(outputs)
    candidate = runtime.session(cut)
    with samples.open_samples(folder / "judging.npz", specs) as inputs:
        for at in range(len(inputs)):
            row = inputs.sample(at)
            judge.add(runtime.run(original, row), runtime.run(candidate, row))
    return {
        "macs": products[0] / products[1],
        "agreement": judge.agreement("held-out").value,
        "cpu_s": spent,
        "peak_mib": peak,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
