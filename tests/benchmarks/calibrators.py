"""Runs one way to calibrate in a process of its own and prints as JSON what that took.

python -m tests.benchmarks.calibrators "ranges" model.onnx inputs.npz
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import calibrate

from compression import samples, statistics
from compression.calibration import gathering, taps
from compression.job import InputSpec

CEILING_GIB = 12
"""Of address space, so that what takes all there is takes only itself down."""
WORK_MEMORY_MIB = 64.0
LINES = InputSpec(name="x", dtype="float32", shape=(-1, 3, 48, -1))


def ranges(model: Path, inputs: samples.Samples) -> int:
    """Ours: extremes of every float tensor."""
    feeds = (inputs.sample(index) for index in range(len(inputs)))
    return len(statistics.ranges(onnx.load(model), feeds, count=len(inputs)))


def histograms(model: Path, inputs: samples.Samples) -> int:
    """Ours: extremes and a histogram of every float tensor."""
    loaded = onnx.load(model)
    wanted = dict.fromkeys(taps.float_tensors(loaded), gathering.What(histogram=True))
    return _gather(loaded, inputs, wanted)


def gram_matrices(model: Path, inputs: samples.Samples) -> int:
    """Ours: channel means and Gram matrices of what each Conv and MatMul reads."""
    loaded = onnx.load(model)
    there = set(taps.float_tensors(loaded))
    axes = {"Conv": 1, "MatMul": -1}
    wanted = {
        node.input[0]: gathering.What(channel_axis=axes[node.op_type], gram=True)
        for node in loaded.graph.node
        if node.op_type in axes and node.input[0] in there
    }
    return _gather(loaded, inputs, wanted)


def _gather(
    model: onnx.ModelProto, inputs: samples.Samples, wanted: dict[str, gathering.What]
) -> int:
    def feeds() -> Iterator[samples.Arrays]:
        return (inputs.sample(index) for index in range(len(inputs)))

    found = 0
    for _, one in gathering.stream(
        model, feeds, count=len(inputs), wanted=wanted, work_memory_mib=WORK_MEMORY_MIB
    ):
        assert one.samples == len(inputs)
        found += 1
    return found


class Reader(calibrate.CalibrationDataReader):
    """Hands samples to onnxruntime's calibrators one by one, as ours takes them."""

    def __init__(self, inputs: samples.Samples) -> None:
        self._left = iter(range(len(inputs)))
        self._inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample, or None."""
        index = next(self._left, None)
        return None if index is None else self._inputs.sample(index)


def theirs(method: calibrate.CalibrationMethod) -> Callable[[Path, samples.Samples], int]:
    """One of onnxruntime's calibrators with its defaults, on all tensors."""

    def run(model: Path, inputs: samples.Samples) -> int:
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / "augmented.onnx")
            one = calibrate.create_calibrator(
                model, augmented_model_path=augmented, calibrate_method=method
            )
            one.collect_data(Reader(inputs))
            return len(one.compute_data().data)

    return run


WAYS: dict[str, Callable[[Path, samples.Samples], int]] = {
    "ranges": ranges,
    "histograms": histograms,
    "Gram matrices": gram_matrices,
    "onnxruntime MinMax": theirs(calibrate.CalibrationMethod.MinMax),
    "onnxruntime Percentile": theirs(calibrate.CalibrationMethod.Percentile),
}


def main() -> None:
    """Print {tensors or failed, before_mib: with everything imported, peak_mib, cpu_s}."""
    resource.setrlimit(resource.RLIMIT_AS, (CEILING_GIB * 2**30, CEILING_GIB * 2**30))
    way, model, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    before_mib = peak_mib()
    started = time.process_time()
    answer: dict[str, object]
    try:
        with samples.open_samples(path, [LINES]) as inputs:
            answer = {"tensors": WAYS[way](model, inputs)}
    except Exception as error:  # a table that says how it failed is what is wanted
        answer = {"failed": f"{type(error).__name__} {error}"[:80]}
    cpu_s = time.process_time() - started
    print(json.dumps(answer | {"before_mib": before_mib, "peak_mib": peak_mib(), "cpu_s": cpu_s}))


def peak_mib() -> float:
    """This process's own peak: ru_maxrss would include what its parent had when it forked."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
