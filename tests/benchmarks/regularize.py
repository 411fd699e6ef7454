"""Makes one model regular in a process of its own and prints as JSON what that took.

python -m tests.benchmarks.regularize model.onnx
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx

from compression import bodies, graph
from compression.errors import CompressionError
from compression.regular import equality, halves, reading


def main() -> None:
    """Print {gap, shapes, before, after, seconds, peak_mib, ...}, or {refused}."""
    path = Path(sys.argv[1])
    before_mib = peak_mib()
    started = time.perf_counter()
    try:
        model = graph.regular(path)
    except CompressionError as error:
        print(json.dumps({"refused": str(error)}))
        return
    taken = {"seconds": time.perf_counter() - started, "peak_mib": peak_mib() - before_mib}
    print(json.dumps(taken | compared(path, model)))


def compared(path: Path, model: onnx.ModelProto) -> dict[str, Any]:
    """The regular form beside the original, on inputs that `graph.regular` has not seen."""
    original = reading.load(path)
    half = halves.present(original)
    oracle = asked(path)
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "changed.onnx"
        onnx.save(model, changed)
        gap = oracle.gap(changed)
    return {
        "mib": path.stat().st_size / 2**20,
        "gap": gap,
        "tolerance": equality.HALF_TOLERANCE if half else equality.TOLERANCE,
        "shapes": [[list(array.shape) for array in feeds.values()] for feeds, _ in oracle.cases],
        "opset": [graph.opset(original), graph.opset(model)],
        "before": sum(1 for _ in bodies.nodes(original.graph)),
        "after": sum(1 for _ in bodies.nodes(model.graph)),
        "quantized": graph.is_quantized(original),
        "same_names": names(original) == names(model),
    }


def asked(path: Path) -> equality.Oracle:
    """The original's answers; whole numbers may be sizes, with which not every draw goes."""
    for seed in (11, 12, 13):
        with contextlib.suppress(CompressionError):
            return equality.ask(path, sample=None, seed=seed)
    return equality.ask(path, sample=None)


def names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs, without weights that pose as inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs, [value.name for value in model.graph.output]


def peak_mib() -> float:
    """The most memory that this process has held, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
