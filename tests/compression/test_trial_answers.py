"""Models whose answers cannot be judged: NaN, random, of changing shape; one clear error each."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from compression import runtime
from compression.errors import BadModel
from compression.findings import Measurement
from compression.job import OutputSpec, TrialJob
from compression.ruler import answers
from compression.stream import Failed
from tests.compression import parent
from tests.simulators import models

SHAPE = {"x": ("N", 8)}


def graph(path: Path, *nodes, **weights) -> Path:
    """A graph from `x` [N, 8] to `y`."""
    return models.save(path, nodes, weights, SHAPE, {"y": ("N", "M")})


def good(path: Path) -> Path:
    return graph(path, helper.make_node("Tanh", ["x"], ["y"]))


def nan(path: Path) -> Path:
    """log(x): NaN for what is below zero, as for most inputs."""
    return graph(path, helper.make_node("Log", ["x"], ["y"]))


def noisy(path: Path) -> Path:
    return graph(
        path,
        helper.make_node("RandomNormalLike", ["x"], ["r"], scale=0.1),
        helper.make_node("Add", ["x", "r"], ["y"]),
    )


def growing(path: Path) -> Path:
    """As many columns as chance says: two numbers below a million are hardly ever the same."""
    to_int = {"to": TensorProto.INT64}
    return models.save(
        path,
        [
            helper.make_node("RandomUniform", [], ["r"], shape=[1], low=1.0, high=1e6),
            helper.make_node("Cast", ["r"], ["columns"], **to_int),
            helper.make_node("Concat", ["one", "columns"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["y"]),
            helper.make_node("Identity", ["x"], ["z"]),
        ],
        {"one": np.array([1], np.int64)},
        SHAPE,
        {"y": (1, "M"), "z": ("N", 8)},
    )


def tried(tmp_path: Path, *, original: Path, candidate: Path) -> Measurement | Failed:
    np.savez(tmp_path / "i.npz", **models.sample_inputs(original, 8))
    return parent.run_trial(
        TrialJob(
            candidate_path=str(candidate), original_path=str(original), seconds=1, rounds=3,
            inputs_path=str(tmp_path / "i.npz"), outputs=(OutputSpec(name="y"),),
        )
    )  # fmt: skip


@pytest.mark.parametrize("where", ["candidate", "original"])
def test_nan_is_named_with_its_output_and_its_sample(tmp_path: Path, where: str) -> None:
    pair = {"original": good(tmp_path / "o.onnx"), "candidate": good(tmp_path / "c.onnx")}
    name = nan(pair[where]).name
    found = tried(tmp_path, **pair)
    assert isinstance(found, Failed)
    assert found.kind == "bad-model"
    assert found.message.startswith(f"cannot judge {name}: output 'y' holds NaN (")
    assert found.message.endswith(" values) on sample 0, which holds none")


@pytest.mark.parametrize("where", ["candidate", "original"])
def test_a_model_that_answers_differently_each_time_is_refused(tmp_path: Path, where: str) -> None:
    pair = {"original": good(tmp_path / "o.onnx"), "candidate": good(tmp_path / "c.onnx")}
    name = noisy(pair[where]).name
    found = tried(tmp_path, **pair)
    assert isinstance(found, Failed)
    assert found.kind == "bad-model"
    assert found.message.startswith(f"cannot judge {name}: it answers differently each time (")


def test_a_random_model_against_itself_is_refused_too(tmp_path: Path) -> None:
    path = noisy(tmp_path / "o.onnx")
    found = tried(tmp_path, original=path, candidate=path)
    assert isinstance(found, Failed)
    assert "differently each time" in found.message


def test_an_output_of_changing_shape_is_refused(tmp_path: Path) -> None:
    session = runtime.session(growing(tmp_path / "m.onnx"))
    with pytest.raises(BadModel, match=r"has shape \[1, \d+\], then \[1, \d+\]"):
        answers.ask_twice("m.onnx", session, {"x": np.ones((1, 8), "f4")}, sample=0)


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([-np.inf, 1.0], [-np.inf, 1.0], 0.0),  # a mask is an answer
        ([-np.inf, 1.0], [0.0, 1.0], 1.0),
        ([], [], 0.0),
    ],
)
def test_how_far_two_answers_are_apart(
    first: list[float], second: list[float], apart: float
) -> None:
    assert answers._apart(np.array(first, "f4"), np.array(second, "f4")) == apart


def test_words_are_the_same_or_not() -> None:
    one = np.array(["a", "b"], object)
    assert answers._apart(one, one.copy()) == 0.0
    assert answers._apart(one, one[::-1]) == 1.0


def test_what_threads_add_in_another_order_is_the_same(tmp_path: Path) -> None:
    class Wobbly:
        """A real session whose answers move in the last bits."""

        def __init__(self) -> None:
            self.real = runtime.session(good(tmp_path / "m.onnx"))
            self.factor = 1.0

        def get_outputs(self):
            return self.real.get_outputs()

        def run(self, names, feeds):
            self.factor += 1e-6
            return [array * np.float32(self.factor) for array in self.real.run(names, feeds)]

    answers.ask_twice("m.onnx", Wobbly(), {"x": np.ones((1, 8), "f4")}, sample=0)
