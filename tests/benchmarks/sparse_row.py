"""One sparsity of one model for test_sparse.py: pruned once, then float and int8, on disk."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zstandard

from compression import agreement, pipeline, runtime, samples, statistics
from compression.calibration.evidence import Evidence
from compression.job import OutputSpec, PassSpec, Recipe
from compression.packed import writing
from compression.passes import naming

STORED = PassSpec(name="stored")
FORMS: dict[str, tuple[PassSpec, ...]] = {
    "float": (),
    "int8 weights": (STORED,),
    "int8": (PassSpec(name="quantization", parameters={"weights": "s8-7bit"}), STORED),
}


def rows(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make every form, write it plain and packed, and judge it on inputs that had no part in it."""
    folder, share = Path(asked["folder"]), asked["sparsity"]
    model = onnx.load(folder / "regular.onnx")
    original = runtime.session(model)
    specs = runtime.inputs(original)
    outputs = tuple(OutputSpec.model_validate(one) for one in asked["outputs"])
    prune = PassSpec(name="unstructured_pruning", parameters={"sparsity": share})
    with samples.open_samples(folder / "calibrating.npz", specs) as inputs:
        calibrating = [inputs.sample(at) for at in range(len(inputs))]
    with samples.open_samples(folder / "judging.npz", specs) as inputs:
        judging = [inputs.sample(at) for at in range(len(inputs))]
    wanted = [runtime.run(original, one) for one in judging]
    evidence = Evidence(lambda: iter(calibrating))

    def calibrate(one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> Any:
        few = calibrating[:64]
        return statistics.ranges(one, few, count=len(few))

    for form, passes in FORMS.items():
        before = (prune,) if share else ()
        started = time.process_time()
        recipe = Recipe(label=form, passes=(*before, *passes))
        made = pipeline.run(recipe, model, calibrate=calibrate, evidence=evidence)
        spent = time.process_time() - started
        plain = naming.shorten(made).SerializeToString(deterministic=True)
        packed = writing.pack(plain)
        name = f"{share}-{form.replace(' ', '-')}"
        (folder / f"{name}.onnx").write_bytes(plain)
        (folder / f"{name}.onnx.packed").write_bytes(packed)
        judge, candidate = agreement.Judge(outputs), runtime.session(made)
        for one, answer in zip(judging, wanted, strict=True):
            judge.add(answer, runtime.run(candidate, one))
        found = judge.agreement("held-out")
        yield {
            "form": form, "name": name, "plain": len(plain), "packed": len(packed),
            "zstd": len(zstandard.ZstdCompressor(level=19).compress(plain)),
            "agreement": found.value, "low": found.low, "cpu_s": spent,
        }  # fmt: skip


if __name__ == "__main__":
    np.seterr(all="ignore")
    for row in rows(json.loads(sys.argv[1])):
        print(json.dumps(row), flush=True)
