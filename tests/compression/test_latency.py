"""Kernels and their table: what a model is run as, what that costs, and what is kept."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compression import runtime
from compression.job import DeviceClass, KernelCosts, KernelJob, Runtime
from compression.latency import asking, kernels, table
from compression.latency.kernels import Kernel, Kernels
from compression.stream import Failed, TrialAnswer
from tests.compression import parent
from tests.simulators import models

HOW = Runtime()
DEVICE = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="test")


def cut_up(path: Path, folder: Path, **feeds: np.ndarray) -> Kernels:
    model = onnx.load(path)
    sample = feeds or {name: array[:1] for name, array in models.sample_inputs(path, 1).items()}
    return kernels.of(model, sample, folder=folder)


def ask(job: KernelJob) -> TrialAnswer:
    found = parent.time_kernels(job)
    if isinstance(found, Failed):
        return TrialAnswer(failed=found)
    return TrialAnswer(kernels=found)


def timed(*made: Kernel, folder: Path) -> list[float | None]:
    measure = asking.asker(ask, folder=folder, how=HOW, stop=time.monotonic() + 60)
    return list(measure(made).costs)


def test_every_kernel_runs_alone_and_costs_something(tmp_path: Path) -> None:
    found = cut_up(models.cnn(tmp_path / "a.onnx"), tmp_path)
    assert not found.unknown
    assert len(found.all) >= 4
    costs = timed(*found.all, folder=tmp_path)
    assert all(cost is not None for cost in costs)
    assert sum(cost or 0.0 for cost in costs) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx"]  # nothing is left behind


def test_kernels_of_the_same_shapes_have_the_same_key_whatever_their_weights(
    tmp_path: Path,
) -> None:
    first = cut_up(models.cnn(tmp_path / "a.onnx", seed=0), tmp_path)
    other = cut_up(models.cnn(tmp_path / "b.onnx", seed=1), tmp_path)
    wider = cut_up(models.cnn(tmp_path / "c.onnx", width=32), tmp_path)
    assert [one.key for one in first.all] == [one.key for one in other.all]
    assert {one.key for one in first.all} != {one.key for one in wider.all}


def test_ten_times_the_products_cost_more(tmp_path: Path) -> None:
    made = []
    for width in (32, 320):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        weights = {"w": np.zeros((width, 256), np.float32)}
        path = models.save(
            tmp_path / f"{width}.onnx", nodes, weights, {"x": (64, width)}, {"y": (64, 256)}
        )
        made += cut_up(path, tmp_path, x=np.ones((64, width), np.float32)).all
    small, large = timed(*made, folder=tmp_path)
    assert small is not None
    assert large is not None
    assert large > 3 * small


def test_a_node_with_a_body_is_named_and_the_others_are_still_known(tmp_path: Path) -> None:
    bodies = [
        helper.make_graph(
            [helper.make_node(kind, ["h"], [kind])], kind, [],
            [helper.make_tensor_value_info(kind, onnx.TensorProto.FLOAT, None)],
        )
        for kind in ("Sin", "Cos")
    ]  # fmt: skip
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["above"]),
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["above"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    zero = {"zero": np.array(0.0, np.float32)}
    path = models.save(tmp_path / "if.onnx", nodes, zero, {"x": (1, 8)}, {"y": (1, 8)})
    found = cut_up(path, tmp_path, x=np.ones((1, 8), np.float32))
    assert found.unknown == ("If",)
    assert "Exp" in [one.operator for one in found.all]


def test_where_to_look_stays_what_it_was(tmp_path: Path) -> None:
    # A Gather whose indices are computed: made-up ones would lie outside the table.
    nodes = [
        helper.make_node("ArgMax", ["x"], ["at"], axis=1, keepdims=0),
        helper.make_node("Gather", ["rows", "at"], ["y"]),
    ]
    weights = {"rows": np.ones((8, 4), np.float32)}
    path = models.save(tmp_path / "g.onnx", nodes, weights, {"x": ("N", 8)}, {"y": ("N", 4)})
    found = cut_up(path, tmp_path, x=np.eye(8, dtype=np.float32))
    gather = next(one for one in found.all if one.operator == "Gather")
    runtime.run(runtime.session(gather.model), {})
    assert timed(gather, folder=tmp_path)[0] is not None


def test_a_kernel_that_does_not_run_has_no_cost_and_the_next_one_has(tmp_path: Path) -> None:
    found = cut_up(models.mlp(tmp_path / "a.onnx"), tmp_path)
    broken = Kernel("b" * 32, "Gemm", onnx.ModelProto())
    first, second = timed(broken, found.all[0], folder=tmp_path)
    assert first is None
    assert second is not None


class Counting:
    """Answers as a trial would, and counts what it was asked."""

    def __init__(self, *, deadly: str = "") -> None:
        self.asked: list[str] = []
        self._deadly = deadly

    def ask(self, job: KernelJob) -> TrialAnswer:
        keys = [Path(path).stem.removeprefix("kernel-") for path in job.kernels]
        self.asked += keys
        if self._deadly in keys:
            return TrialAnswer(failed=Failed(kind="cannot-run", message="cannot run here: dead"))
        costs = KernelCosts(costs=(1.0,) * len(keys), timed=len(keys), reference_us=1.0)
        return TrialAnswer(kernels=costs)


def opened(folder: Path, ask: Counting, device: DeviceClass = DEVICE) -> table.Table:
    measure = asking.asker(ask.ask, folder=folder, how=HOW, stop=time.monotonic() + 60)
    return table.Table(folder, device, HOW, measure=measure)


def bare(*keys: str) -> Kernels:
    return Kernels(tuple(Kernel(key, "Conv", onnx.ModelProto()) for key in keys))


def test_what_is_known_is_not_asked_again_not_even_by_the_next_process(tmp_path: Path) -> None:
    counting = Counting()
    assert opened(tmp_path, counting).cost(bare("a", "b", "a")) == 3.0
    assert counting.asked == ["a", "b"]
    assert opened(tmp_path, counting).cost(bare("b", "c")) == 2.0
    assert counting.asked == ["a", "b", "c"]


def test_another_runtime_or_processor_starts_a_table_of_its_own(tmp_path: Path) -> None:
    counting = Counting()
    opened(tmp_path, counting).cost(bare("a"))
    newer = DEVICE.model_copy(update={"onnxruntime": "2"})
    opened(tmp_path, counting, newer).cost(bare("a"))
    assert counting.asked == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 9}', b"\xff" * 100])
def test_a_table_that_cannot_be_read_is_measured_again(tmp_path: Path, content: bytes) -> None:
    counting = Counting()
    one = opened(tmp_path, counting)
    one.cost(bare("a"))
    one.path.write_bytes(content)
    assert opened(tmp_path, counting).cost(bare("a")) == 1.0
    assert counting.asked == ["a", "a"]


def test_a_table_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path) -> None:
    counting = Counting()
    measure = asking.asker(counting.ask, folder=tmp_path, how=HOW, stop=time.monotonic() + 60)
    one = table.Table(tmp_path / "nowhere", DEVICE, HOW, measure=measure)
    assert one.cost(bare("a")) == one.cost(bare("a")) == 1.0
    assert counting.asked == ["a"]


def test_a_kernel_that_kills_its_trial_is_found_and_counts_as_nothing(tmp_path: Path) -> None:
    counting = Counting(deadly="c")
    one = opened(tmp_path, counting)
    assert one.cost(bare("a", "b", "c", "d", "e")) == 4.0
    before = len(counting.asked)
    assert one.cost(bare("c", "e")) == 1.0
    assert len(counting.asked) == before


def test_without_time_nothing_is_guessed(tmp_path: Path) -> None:
    counting = Counting()
    measure = asking.asker(counting.ask, folder=tmp_path, how=HOW, stop=time.monotonic() - 1)
    late = table.Table(tmp_path, DEVICE, HOW, measure=measure)
    assert late.cost(bare("a")) is None
    assert counting.asked == []
