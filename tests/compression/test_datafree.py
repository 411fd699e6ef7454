"""Without inputs: made-up ones of a sensible kind, and ranges that the model itself remembers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compression import graph, runtime, statistics
from compression.calibration import datafree, normalized, synthesis
from compression.calibration.material import MADE_UP, Material
from compression.errors import BadInputs, BadModel
from compression.job import CompressJob, InputSpec
from compression.report import division
from compression.statistics import Range
from tests.compression import parent
from tests.simulators import models


def normalizing(path: Path, *, low: float = 0.0, high: float = 1.0, clip: float | None = None):
    """A Conv and a BatchNormalization that saw dead leaves between `low` and `high`."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(6, 3, 3, 3)).astype("f4"),
        "b": np.zeros(6, np.float32),
        "scale": random.uniform(0.5, 2.0, 6).astype("f4"),
        "shift": random.normal(size=6).astype("f4"),
        "mean": np.zeros(6, np.float32),
        "var": np.ones(6, np.float32),
        "v": random.normal(size=(4, 6, 1, 1)).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], "norm"
        ),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["y"], "last"),
    ]
    shapes = {"x": ("N", 3, "H", "W")}
    models.save(path, nodes, weights, shapes, {"y": ("N", 4, "H", "W")})
    session = runtime.session(tapped(path, "c"))
    spec = InputSpec(name="x", dtype="float32", shape=(-1, 3, -1, -1))
    images = [
        synthesis._images(np.random.default_rng(seed), spec, (1, 3, 32, 32)) for seed in range(8)
    ]
    seen = [runtime.run(session, {"x": (low + (high - low) * i).astype("f4")})["c"] for i in images]
    channels = np.concatenate([each[0].reshape(6, -1) for each in seen], axis=1)
    weights["mean"], weights["var"] = channels.mean(axis=1), channels.var(axis=1)
    return models.save(path, nodes, weights, shapes, {"y": ("N", 4, "H", "W")})


def tapped(path: Path, name: str) -> onnx.ModelProto:
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize(
    ("low", "high", "scale"), [(0, 1, "unit"), (-1, 1, "signed"), (-2, 2.4, "standard"),
                               (0, 255, "bytes")],
)  # fmt: skip
def test_the_scale_of_images_is_the_one_that_the_model_remembers(
    tmp_path: Path, low: float, high: float, scale: str
) -> None:
    path = normalizing(tmp_path / "m.onnx", low=low, high=high)
    values = np.concatenate([one["x"].ravel() for one in synthesis.make(path, count=6, seed=0)])
    bounds = {"unit": (0, 1), "signed": (-1, 1), "standard": (-2, 2.5), "bytes": (0, 255)}[scale]
    assert bounds[0] <= values.min() < bounds[0] + 0.1 * (bounds[1] - bounds[0])
    assert bounds[1] >= values.max() > bounds[1] - 0.1 * (bounds[1] - bounds[0])


def test_without_memories_scales_take_turns(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    lows = [float(one["image"].min()) for one in synthesis.make(path, count=3, seed=0)]
    assert lows[0] >= 0 > lows[1] > lows[2]


def test_equal_seeds_make_equal_inputs_and_samples_differ(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    a, b = (synthesis.make(path, count=2, seed=3)[1]["image"] for _ in range(2))
    c, d = synthesis.make(path, count=2, seed=4)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, d["image"])
    assert not np.array_equal(c["image"], d["image"])


def test_whole_numbers_are_rows_of_the_smallest_table_that_they_look_up(tmp_path: Path) -> None:
    weights = {
        "words": np.ones((50, 4), np.float32), "kinds": np.ones((5, 4), np.float32),
        "w": np.ones((4, 2), np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "wide"], ["a"]),
        helper.make_node("Gather", ["kinds", "wide"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    path = models.save(
        tmp_path / "m.onnx", nodes, weights, {"ids": ("N", "T")}, {"y": ("N", "T", 2)},
        dtypes={"ids": TensorProto.INT32},
    )  # fmt: skip
    found = np.concatenate([one["ids"].ravel() for one in synthesis.make(path, count=9, seed=0)])
    assert found.dtype == np.int32
    assert set(found.tolist()) == set(range(5))


def test_a_number_that_is_compared_with_a_constant_is_that_constant(tmp_path: Path) -> None:
    weights = {"rate": np.array(16000, np.int64), "two": np.array(2, np.float32)}
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["same"]),
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Where", ["same", "x", "twice"], ["y"]),
    ]
    path = models.save(
        tmp_path / "m.onnx", nodes, weights, {"x": ("N", 4), "sr": ()}, {"y": ("N", 4)},
        dtypes={"sr": TensorProto.INT64},
    )  # fmt: skip
    (one,) = synthesis.make(path, count=1, seed=0)
    assert (one["sr"].shape, int(one["sr"])) == ((), 16000)


def test_shapes_are_the_given_ones_or_the_first_that_the_model_runs_on(tmp_path: Path) -> None:
    # A flattened image of 32 x 32 fits no other size.
    weights = {"w": np.ones((3 * 32 * 32, 2), np.float32)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    shapes = {"x": ("N", 3, "H", "W")}
    path = models.save(tmp_path / "m.onnx", nodes, weights, shapes, {"y": ("N", 2)})
    (one,) = synthesis.make(path, count=1, seed=0)
    assert one["x"].shape == (1, 3, 32, 32)
    spec = InputSpec(name="x", dtype="unknown", shape=(-1,) * 4, reference_shape=(1, 3, 16, 64))
    (one,) = synthesis.make(path, count=1, seed=0, specs=[spec])
    assert one["x"].shape == (1, 3, 16, 64)
    wrong = spec.model_copy(update={"reference_shape": (1, 3, 5, 5)})
    with pytest.raises(BadModel, match="give --shape"):
        synthesis.make(path, count=1, seed=0, specs=[wrong])
    huge = spec.model_copy(update={"reference_shape": (1, 3, 10**5, 10**5)})
    with pytest.raises(BadInputs, match="cannot make inputs of shape"):
        synthesis.make(path, count=1, seed=0, specs=[huge])


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]), st.integers(0, 99))
@settings(max_examples=30)
def test_leaves_of_any_size_lie_between_black_and_white(
    height: int, width: int, colours: int, seed: int
) -> None:
    image = synthesis._leaves(np.random.default_rng(seed), height, width, colours)
    assert image.shape == (height, width, colours)
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.fixture
def remembering(tmp_path: Path) -> tuple[Path, onnx.ModelProto, list[dict]]:
    """A model with normalization, the same made regular, and made-up inputs."""
    path = normalizing(tmp_path / "m.onnx")
    feeds = [{"x": one["x"][:, :, :40, :40]} for one in synthesis.make(path, count=6, seed=1)]
    return path, graph.regular(path, sample=feeds[0]), feeds


def seen_by(model: onnx.ModelProto, feeds: list[dict]) -> dict[str, Range]:
    return statistics.ranges(model, feeds, count=len(feeds))


def test_a_folded_node_still_says_its_range_and_the_rest_is_doubled(
    remembering: tuple[Path, onnx.ModelProto, list[dict]],
) -> None:
    path, model, feeds = remembering
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    original = onnx.load(path)
    beliefs = datafree.read(original, lambda: feeds, count=len(feeds))
    (one,) = normalized.remembered(original)
    seen = seen_by(model, feeds)
    believed = beliefs.widen(model, seen)
    (folded,) = {"c", "n"} & set(seen)
    wanted = float((one.shift - 6 * one.scale).min()), float((one.shift + 6 * one.scale).max())
    assert (believed[folded].low, believed[folded].high) == wanted
    assert (believed["r"].low, believed["r"].high) == (0.0, wanted[1])
    assert believed["y"].high == 2 * seen["y"].high
    assert believed["x"] == seen["x"]  # made up at a known scale
    assert believed.keys() == seen.keys()


def test_a_rescaled_channel_is_not_mistaken_for_what_the_model_remembers(
    remembering: tuple[Path, onnx.ModelProto, list[dict]],
) -> None:
    path, model, feeds = remembering
    beliefs = datafree.read(onnx.load(path), lambda: feeds, count=len(feeds))
    rescaled = onnx.ModelProto()
    rescaled.CopyFrom(model)
    conv = next(node for node in rescaled.graph.node if node.op_type == "Conv")
    for tensor in rescaled.graph.initializer:
        if tensor.name in list(conv.input)[1:]:
            smaller = onnx.numpy_helper.to_array(tensor) / 8
            tensor.CopyFrom(onnx.numpy_helper.from_array(smaller, tensor.name))
    name = conv.output[0]
    seen = seen_by(rescaled, feeds)
    believed = beliefs.widen(rescaled, seen)
    assert believed[name] == datafree.wider(seen[name], datafree.MARGIN)


def test_a_model_that_remembers_nothing_has_only_doubled_ranges(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    feeds = synthesis.make(path, count=2, seed=0)
    model = onnx.load(path)
    beliefs = datafree.read(model, lambda: feeds, count=2)
    assert beliefs == datafree.Beliefs()
    seen = seen_by(model, feeds)
    believed = beliefs.widen(model, seen)
    assert believed["c1"].low == 2 * seen["c1"].low
    assert believed["r1"].low == 0.0
    assert believed["image"] == seen["image"]


def test_damaged_memories_are_left_alone(tmp_path: Path) -> None:
    path = normalizing(tmp_path / "m.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "shift":
            bad = np.full(6, np.nan, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(bad, "shift"))
    assert normalized.remembered(model) == ()


def test_material_without_inputs_is_synthetic_and_says_so(tmp_path: Path) -> None:
    path = normalizing(tmp_path / "m.onnx")
    work = tmp_path / "work"
    work.mkdir()
    spec = InputSpec(name="x", dtype="unknown", shape=(-1,) * 4, reference_shape=(1, 3, 24, 24))
    job = CompressJob(
        model_name="m", model_path=str(path), device_class=parent.HASWELL, out_dir=str(tmp_path),
        inputs=(spec,),
    )  # fmt: skip
    material = Material.open(job, work)
    try:
        assert not material.verified
        assert (material.division.split, material.division.apart) == ("synthetic", True)
        assert len(material.inputs) == MADE_UP[1]
        assert material.inputs.sample(0)["x"].shape == (1, 3, 24, 24)
        assert "report (synthetic)" in division(material.division)
        again = Material.open(job, work)
        again.close()
        assert again.keys == material.keys
    finally:
        material.close()
