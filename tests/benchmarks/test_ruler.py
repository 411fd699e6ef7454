"""How far the ruler is off: a model against itself, known costs, and peak memory beside time(1).

Not a gate, except that an answer must come: it prints tables, each with the load it was taken
under. Run by `./dev prove benchmarks -k ruler`; about four minutes.
"""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compression.findings import Measurement
from compression.job import OutputSpec, Runtime, TrialJob
from tests.compression import parent
from tests.simulators import models

TIMES = 20
TIME = Path("/usr/bin/time")
BARE = """
import sys, numpy, onnx, onnxruntime
if len(sys.argv) > 1:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
    stored = numpy.load(sys.argv[2])
    feeds = {name: stored[name][:1] for name in stored.files}
    for _ in range(2):
        session.run(None, feeds)
"""

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1200)]
Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def aloud(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    aloud("")
    return aloud


def trial(
    candidate: Path, original: Path, *, seconds: float = 2.0, arena: bool = True
) -> Measurement:
    inputs = original.with_suffix(".npz")
    if not inputs.exists():
        np.savez(inputs, **models.sample_inputs(original, 8))
    output = onnx.load(original).graph.output[0].name
    found = parent.run_trial(
        TrialJob(
            candidate_path=str(candidate), original_path=str(original), inputs_path=str(inputs),
            outputs=(OutputSpec(name=output),), seconds=seconds, runtime=Runtime(arena=arena),
        )
    )  # fmt: skip
    assert isinstance(found, Measurement), found
    return found


@contextlib.contextmanager
def other_core_loaded(*, busy: bool) -> Iterator[None]:
    """A child that counts without end on the last core, if `busy`."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        os.sched_setaffinity(child.pid, {max(os.sched_getaffinity(0))})
        try:
            yield
        finally:
            child.kill()


def spread(name: str, values: list[float]) -> str:
    deviation = statistics.stdev(values)
    return (
        f"  {name:<13} median {statistics.median(values):.4f}  sd {deviation:.4f}  "
        f"{min(values):.4f} .. {max(values):.4f}"
    )


@pytest.mark.parametrize("busy", [False, True], ids=["as it is", "other core loaded"])
def test_the_same_model_against_itself(tmp_path: Path, say: Say, *, busy: bool) -> None:
    original = models.cnn(tmp_path / "o.onnx", width=48)
    same = onnx.load(original)
    same.doc_string = "the same network in a file of its own, so that it is timed"
    onnx.save(same, tmp_path / "c.onnx")
    with other_core_loaded(busy=busy):
        found = [trial(tmp_path / "c.onnx", original) for _ in range(TIMES)]
    judged = [one.latency_ratio for one in found]
    held = sum((one.ratio_low or 1) <= 1.0 <= (one.ratio_high or 1) for one in found)
    by_cpu = sum(one.ratio_basis == "cpu" for one in found)
    say(
        f"{TIMES} trials of a model against itself, {found[0].latency_p50_ms:.2f} ms, "
        f"{'the other core loaded by a busy loop' if busy else 'nothing added'}"
    )
    say(spread("judged ratio", judged))
    say(spread("wall ratio", [one.wall_ratio for one in found]))
    say(spread("CPU ratio", [one.cpu_ratio for one in found]))
    say(spread("noise", [one.noise for one in found]))
    say(spread("rounds", [float(one.rounds) for one in found]))
    say(f"  judged by CPU time: {by_cpu}; the 95 % interval held 1.0: {held} of {TIMES}")
    say(f"  load in the median trial: {sorted(found, key=lambda m: m.noise)[10].method['load']}")


def test_a_known_slow_down(tmp_path: Path, say: Say) -> None:
    # Small and many: packed copies of large weights leave the cache, and a call costs as much as
    # half a node, so that work would not be all that is known to differ.
    weight = np.random.default_rng(0).normal(0, 0.09, (128, 128)).astype("f4")

    def chain(count: int) -> Path:
        names = ["x", *(f"h{n}" for n in range(1, count)), "y"]
        nodes = [helper.make_node("MatMul", [names[n], "w"], [names[n + 1]]) for n in range(count)]
        path = tmp_path / f"chain{count}.onnx"
        return models.save(path, nodes, {"w": weight}, {"x": ("N", 64, 128)}, {"y": ("N", 64, 128)})

    original = chain(120)
    say(f"{'known ratio':>12} {'measured':>9}  95 % interval    error    by  noise")
    for count in (30, 60, 90, 150, 240, 480):
        known, found = count / 120, trial(chain(count), original)
        say(
            f"{known:12.3f} {found.latency_ratio:9.3f} "
            f"{found.ratio_low or 0:8.3f}-{found.ratio_high or 0:.3f}  "
            f"{found.latency_ratio / known - 1:+7.1%} {found.ratio_basis:>5} {found.noise:6.1%}"
        )
    say(f"  load: {found.method['load']}")


def test_known_extra_memory(tmp_path: Path, say: Say) -> None:
    def expanding(mib: int) -> Path:
        nodes = [
            helper.make_node("Expand", ["x", "shape"], ["e"]),
            helper.make_node("Gather", ["e", "zero"], ["y"]),
        ]
        weights = {"shape": np.array([mib, 2**18]), "zero": np.array([0])}
        path = tmp_path / f"expand{mib}.onnx"
        return models.save(path, nodes, weights, {"x": (1, 1)}, {"y": (1, 2**18)})

    original = expanding(1)
    # The runtime's arena keeps more than a model asks for, and how much more is not known.
    say(f"{'known MiB more':>15} {'measured':>9} {'error MiB':>10}  with an arena")
    for mib in (9, 33, 129, 513):
        both = [
            trial(expanding(mib), original, seconds=0.5, arena=arena) for arena in (False, True)
        ]
        more, kept = (one.peak_memory_mib - one.original_peak_memory_mib for one in both)
        say(f"{mib - 1:15d} {more:9.2f} {more - (mib - 1):+10.2f} {kept:14.2f}")


@pytest.mark.skipif(not TIME.exists(), reason="needs /usr/bin/time: apt-get install time")
def test_peak_memory_beside_the_kernels_own_figure(tmp_path: Path, say: Say) -> None:
    script = tmp_path / "bare.py"
    script.write_text(BARE)

    def kernels_mib(*arguments: str) -> float:
        taken = []
        for _ in range(3):
            done = subprocess.run(
                [TIME, "-v", sys.executable, "-P", script, *arguments],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            line = next(one for one in done.stderr.splitlines() if "Maximum resident" in one)
            taken.append(int(line.rpartition(" ")[2]) / 1024)
        return statistics.median(taken)

    imported = kernels_mib()
    say(f"a bare script that only imports the runtime: {imported:.1f} MiB")
    say(f"{'model':>12} {'file MiB':>9} {'time -v, less that':>19} {'ruler':>8} {'difference':>11}")
    for name, make in MEASURED.items():
        path = make(tmp_path / f"{name}.onnx")
        found = trial(path, path, seconds=0.5)
        bare = kernels_mib(str(path), str(path.with_suffix(".npz"))) - imported
        say(
            f"{name:>12} {path.stat().st_size / 2**20:9.2f} {bare:19.2f} "
            f"{found.peak_memory_mib:8.2f} {found.peak_memory_mib - bare:+11.2f}"
        )


MEASURED: dict[str, Callable[[Path], Path]] = {
    "mlp": models.mlp,
    "cnn 16": lambda path: models.cnn(path, width=16),
    "cnn 128": lambda path: models.cnn(path, width=128),
    "cnn 384": lambda path: models.cnn(path, width=384),
}
