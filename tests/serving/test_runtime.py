"""One loaded model computes what its graph says."""

import hashlib
from pathlib import Path

import numpy as np
import onnx

from agent.serving import runtime
from compression.job import Runtime
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
