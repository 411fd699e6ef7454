"""One loaded model computes what its graph says."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from agent.serving import runtime
from compression import runtime as measured_by
from compression.job import Runtime
from compression.passes import prepared
from tests.simulators import models


def test_zeros_padded_before_a_pooling_count(tmp_path: Path) -> None:
    # onnxruntime 1.31.1 merges the Pad into the MaxPool, which pads with minus infinity.
    path = models.save(
        tmp_path / "pad.onnx",
        [
            onnx.helper.make_node("Pad", ["x", "pads"], ["p"]),
            onnx.helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
        inputs={"x": (1, 1, 2, 2)},
        outputs={"y": (1, 1, 2, 2)},
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = runtime.load(path, sha256=sha256, runtime=Runtime())
    (answer,) = loaded.run({"x": np.full((1, 1, 2, 2), -3.0, np.float32)}, ["y"])
    assert np.array_equal(answer, np.zeros((1, 1, 2, 2), np.float32))


WAYS = {
    "as most are": Runtime(),
    "threads": Runtime(threads=2),
    "without arena": Runtime(arena=False),
    "without pattern": Runtime(pattern=False),
    "as it is": Runtime(optimization="disabled"),
    "hardly optimized": Runtime(optimization="basic"),
}
_ENTRIES = (
    "session.intra_op.allow_spinning", "session.use_device_allocator_for_initializers",
    "optimization.disable_specified_optimizers",
)  # fmt: skip


def settings_of(options) -> list:  # onnxruntime's, which has no types
    def entry(key: str) -> str:
        try:
            return str(options.get_session_config_entry(key))
        except RuntimeError:  # never set
            return ""

    fields = (
        options.intra_op_num_threads, options.inter_op_num_threads, options.enable_cpu_mem_arena,
        options.enable_mem_pattern, options.graph_optimization_level,
    )  # fmt: skip
    return [*map(str, fields), *map(entry, _ENTRIES)]


@pytest.mark.parametrize("way", WAYS)
def test_a_session_runs_as_its_rung_was_measured(way: str, tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = runtime.load(path, sha256=sha256, runtime=WAYS[way])
    found = settings_of(loaded._session.get_session_options())
    assert found == settings_of(measured_by.options(WAYS[way]))
    others = [settings_of(measured_by.options(how)) for name, how in WAYS.items() if name != way]
    assert found not in others


def test_a_prepared_file_answers_as_the_one_it_was_made_from(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    ready = tmp_path / "ready.onnx"
    onnx.save(prepared.apply(onnx.load(path)), ready)
    feeds = {name: array[:1] for name, array in models.sample_inputs(path, 2).items()}
    answers = [
        runtime.load(
            one, sha256=hashlib.sha256(one.read_bytes()).hexdigest(), runtime=how
        ).run(feeds, ["logits"])
        for one, how in ((path, Runtime()), (ready, Runtime(optimization="disabled")))
    ]  # fmt: skip
    assert np.array_equal(*[first for (first,) in answers])
