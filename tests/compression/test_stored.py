"""Stored weights: a quarter of the bytes, float again once loaded, and only what is a weight."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compression import agreement, bodies, graph, pipeline, runtime, statistics
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import packing, stored
from tests.compression import generated
from tests.fixtures.trained import collection
from tests.simulators import models


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def alike(original: onnx.ModelProto | Path, changed: onnx.ModelProto, feeds: Any) -> float:
    """SQNR in dB of the least alike output."""
    a = runtime.run(runtime.session(original), feeds)
    b = runtime.run(runtime.session(changed), feeds)
    return min(agreement.sqnr_db(*agreement.powers(a[name], b[name])) for name in a)


def loaded(changed: onnx.ModelProto, folder: Path, *, optimization: str) -> onnx.ModelProto:
    """What the runtime runs, after it has optimised."""
    options = runtime.options(optimization=optimization)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.session(changed, options)
    return onnx.load(folder / "optimised.onnx")


def branches(weight: np.ndarray, *, as_node: bool) -> onnx.ModelProto:
    """`x` goes through a MatMul whose weight lies in the branch of an If, where `c` says so."""
    tensor = numpy_helper.from_array(weight, "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["inner"])]
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    rows, columns = weight.shape
    shape = ["N", columns]
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, shape)
    one = helper.make_graph(nodes, "then", [], [inner], [] if as_node else [tensor])
    other = helper.make_tensor_value_info("other", TensorProto.FLOAT, shape)
    two = helper.make_graph([helper.make_node("Identity", ["x"], ["other"])], "else", [], [other])
    node = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=two)
    whole = helper.make_graph(
        [node], "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("optimization", ["basic", "extended", "all"])
def test_nothing_of_it_is_left_once_the_runtime_has_loaded(
    tmp_path: Path, optimization: str
) -> None:
    model = graph.regular(models.cnn(tmp_path / "m.onnx", width=32))
    changed = stored.apply(model, stored.Settings())
    onnx.checker.check_model(changed, full_check=True)
    assert changed.ByteSize() < 0.4 * model.ByteSize()
    found, plain = (loaded(one, tmp_path, optimization=optimization) for one in (changed, model))
    kinds = [Counter(node.op_type for node in one.graph.node) for one in (found, plain)]
    assert kinds[0] == kinds[1]
    assert "Cast" in {node.op_type for node in changed.graph.node}


@pytest.mark.parametrize("name", ["autoencoder", "keywords", "sentences"])
def test_trained_models_hardly_notice(name: str) -> None:
    trained = collection.load(name)
    model = graph.regular(trained.onnx)
    changed = stored.apply(model, stored.Settings())
    assert changed.ByteSize() < 0.35 * model.ByteSize()
    feeds = trained.make_inputs(1, 3)
    assert alike(model, changed, {key.split("::")[0]: feeds[key] for key in feeds}) > 32


@pytest.mark.parametrize("as_node", [True, False])
def test_weights_inside_of_branches_are_stored_and_folded_there(
    tmp_path: Path, as_node: bool
) -> None:
    model = branches(normal(48, 48), as_node=as_node)
    assert stored.storable(model, stored.Settings()) == {"w": 48 * 48 * 4}
    changed = stored.apply(model, stored.Settings())
    onnx.checker.check_model(changed, full_check=True)
    assert changed.ByteSize() < 0.4 * model.ByteSize()
    kinds = [
        node.op_type for node in bodies.nodes(loaded(changed, tmp_path, optimization="basic").graph)
    ]
    assert sorted(kinds) == ["Identity", "If", "MatMul"]
    for flag in (True, False):
        feeds = {"x": normal(3, 48, seed=1), "c": np.array(flag)}
        assert alike(model, changed, feeds) > (38 if flag else 199)


def test_a_weight_that_a_body_reads_from_outside_is_stored_once() -> None:
    model = branches(normal(48, 48), as_node=False)
    body = next(one for one in bodies.of(model.graph.node[0]) if one.initializer)
    model.graph.initializer.append(body.initializer[0])
    del body.initializer[:]
    changed = stored.apply(model, stored.Settings())
    assert len(changed.graph.initializer) == 2  # integers and scales
    assert alike(model, changed, {"x": normal(3, 48, seed=1), "c": np.array(True)}) > 38


def read_by(operator: str, weight: np.ndarray, folder: Path, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    shapes = {"x": ("N", 32)}, {"y": ("N", 32)}
    return onnx.load(models.save(folder / "m.onnx", [node], {"w": weight}, *shapes))


@pytest.mark.parametrize(
    ("operator", "weight"),
    [
        ("Mul", normal(32, 32)),  # a factor of a normalisation
        ("Div", normal(32, 32)),
        ("Add", np.arange(1024, dtype="f4").reshape(32, 32)),  # a grid of coordinates
        ("Add", np.where(normal(32, 32) > 0, 0, -1e4).astype("f4")),  # a mask
        ("Add", np.full((32, 32), -np.inf, "f4")),
        ("Add", normal(1, 1024)),  # a bias
        ("MatMul", np.full((32, 32), np.nan, "f4")),
        ("MatMul", np.full((32, 32), np.finfo("f4").min)),
        ("MatMul", np.zeros((0, 32), "f4")),
        ("MatMul", normal(2, 2)),  # nothing to gain
        ("MatMul", np.ones((32, 32), "i4")),
    ],
)
def test_what_is_no_weight_is_left_alone(tmp_path: Path, operator: str, weight: np.ndarray) -> None:
    model = read_by(operator, weight, tmp_path)
    assert stored.storable(model, stored.Settings()) == {}
    with pytest.raises(BadModel, match="cannot store weights in 8 bits: no float weights of 512"):
        stored.apply(model, stored.Settings())


def test_zeros_and_wide_ranges_of_channels_come_through(tmp_path: Path) -> None:
    weight = normal(32, 32) * 10.0 ** np.arange(-28, 4).astype("f4")
    weight[:, 5] = 0
    model = read_by("MatMul", weight, tmp_path)
    changed = stored.apply(model, stored.Settings())
    feeds = {"x": normal(4, 32, seed=1)}
    a, b = (runtime.run(runtime.session(one), feeds)["y"] for one in (model, changed))
    assert not b[:, 5].any()
    for column in set(range(32)) - {5}:
        assert agreement.sqnr_db(*agreement.powers(a[:, column], b[:, column])) > 30


def test_a_weight_that_is_read_as_something_else_too_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Exp", ["w"], ["e"]),
        helper.make_node("Mul", ["h", "e"], ["y"]),
    ]
    shapes = {"x": (32, 32)}, {"y": (32, 32)}
    path = models.save(tmp_path / "m.onnx", nodes, {"w": normal(32, 32)}, *shapes)
    assert stored.storable(onnx.load(path), stored.Settings()) == {}


def test_an_output_that_is_a_weight_stays(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = {"x": ("N", 32)}, {"y": ("N", 32), "w": (32, 32)}
    path = models.save(tmp_path / "m.onnx", [node], {"w": normal(32, 32)}, *shapes)
    assert stored.storable(onnx.load(path), stored.Settings()) == {}


def test_gates_that_are_reordered_on_the_way_are_weights_still(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["w", "zero", "half", "zero"], ["a"]),
        helper.make_node("Slice", ["w", "half", "end", "zero"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["turned"], axis=0),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    weights = {
        "w": normal(32, 32), "zero": np.array([0]), "half": np.array([16]), "end": np.array([32])
    }  # fmt: skip
    shapes = {"x": ("N", 32)}, {"y": ("N", 32)}
    model = onnx.load(models.save(tmp_path / "m.onnx", nodes, weights, *shapes))
    assert stored.storable(model, stored.Settings()) == {"w": 4096}
    changed = stored.apply(model, stored.Settings())
    assert alike(model, changed, {"x": normal(4, 32, seed=1)}) > 38


def test_recipes_name_what_stays_float_and_what_gets_sixteen_bits(tmp_path: Path) -> None:
    model = graph.regular(models.cnn(tmp_path / "m.onnx", width=32))
    names = stored.storable(model, stored.Settings())
    largest = max(names, key=lambda name: names[name])
    feeds = {"image": normal(2, 3, 32, 32)}

    def error_db(**parameters: Any) -> tuple[float, int]:
        changed = stored.apply(model, stored.Settings(**parameters))
        return alike(model, changed, feeds), changed.ByteSize()

    _, all_bytes = error_db(wide_share=0)
    _, wide_bytes = error_db(wide_share=0, wide=[largest])
    _, float_bytes = error_db(wide_share=0, exclude=[largest])
    assert all_bytes < wide_bytes < float_bytes
    alone_db, _ = error_db(wide_share=0, only=[largest])
    assert error_db(wide_share=0, only=[largest], wide=[largest])[0] > alone_db + 30
    assert error_db(bits=16)[0] > 75
    reader = next(node for node in model.graph.node if largest in node.input)
    by_node = stored.storable(model, stored.Settings(exclude=(reader.output[0],)))
    assert by_node == {name: size for name, size in names.items() if name != largest}


def test_constants_whose_rounding_is_felt_most_for_their_size_get_sixteen_bits_first() -> None:
    alone = {"small": 25.0, "large": 25.0, "quiet": 60.0}
    sizes = {"small": 1000, "large": 100_000, "quiet": 10}
    assert stored.felt(alone, sizes, target_db=20) == ()
    assert stored.felt(alone, sizes, target_db=24) == ("small",)
    assert stored.felt(alone, sizes, target_db=50) == ("small", "quiet", "large")
    assert set(stored.felt(alone, sizes, target_db=90)) == set(alone)
    assert stored.felt({}, {}, target_db=40) == ()


def test_the_smallest_weights_get_sixteen_bits_within_their_share(tmp_path: Path) -> None:
    model = graph.regular(models.cnn(tmp_path / "m.onnx", width=32))
    names = stored.storable(model, stored.Settings())
    changed = stored.apply(model, stored.Settings(wide_share=0.1))
    wide = sum(
        4 * int(np.prod(tensor.dims))
        for tensor in changed.graph.initializer
        if tensor.data_type == TensorProto.INT16
    )
    assert 0 < wide <= 0.1 * sum(names.values())


def test_what_a_static_pass_has_quantized_is_left_to_it(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx", width=32)
    rows = [models.sample_inputs(path, 1, seed) for seed in range(4)]
    model = graph.regular(path, sample=rows[0])

    def calibrate(one: onnx.ModelProto, **_: Any) -> dict[str, statistics.Range]:
        return statistics.ranges(one, rows, count=len(rows))

    conv = PassSpec(name="quantization", parameters={"operators": ["Conv"], "weights": "s8-7bit"})
    rest = PassSpec(name="stored", parameters={"least_bytes": 256})
    first = pipeline.run(Recipe(label="", passes=(conv,)), model, calibrate=calibrate)
    both = pipeline.run(Recipe(label="", passes=(conv, rest)), model, calibrate=calibrate)
    assert both.ByteSize() < first.ByteSize()
    options = {"optimization": "extended"}
    kinds = Counter(node.op_type for node in loaded(both, tmp_path, **options).graph.node)
    assert kinds["QLinearConv"] == 4
    assert kinds["Cast"] == 0
    assert alike(first, both, rows[0]) > 35


def test_a_compressed_model_is_regular_again_as_float() -> None:
    trained = collection.load("keywords")
    model = graph.regular(trained.onnx)
    changed = stored.apply(model, stored.Settings())
    assert not graph.is_quantized(changed)


shapes = st.sampled_from(
    [((64, 48), (0,)), ((64, 48), (1,)), ((8, 4, 3, 3), (0,)), ((2, 32, 16), (0, 1)),
     ((7, 11), (1,)), ((4, 6, 2, 2), (1,)), ((3, 5), ())]
)  # fmt: skip


@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 4.0]))
@settings(max_examples=60, deadline=None)
def test_rounding_is_off_by_half_a_step_at_most(
    drawn: tuple[tuple[int, ...], tuple[int, ...]], seed: int, spread: float
) -> None:
    shape, kept = drawn
    random = np.random.default_rng(seed)
    values = (random.normal(size=shape) * np.exp(spread * random.normal(size=shape))).astype("f4")
    for least_db in (-np.inf, 40.0, np.inf):
        packed = packing.pack(values, kept=kept, least_db=least_db)
        step = np.broadcast_to(packed.scale, packed.integers.shape).reshape(shape)
        assert (abs(packed.expand() - values) <= step * 0.5001 + 1e-30).all()
        assert packed.integers.dtype == np.int8
        assert abs(packed.integers.astype(int)).max() <= 127


def test_blocks_save_what_an_outlier_would_cost_its_channel() -> None:
    values = normal(16, 256)
    values[:, 7] *= 200
    coarse = packing.rounded(values, kept=(0,))
    packed = packing.pack(values, kept=(0,), least_db=40)
    assert packed.reshaped
    rest = np.delete(values, np.arange(64), axis=1)
    error = [np.delete(one.expand(), np.arange(64), axis=1) - rest for one in (coarse, packed)]
    assert (error[1] ** 2).sum() < 1e-3 * (error[0] ** 2).sum()


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_graph_stays_valid_and_close(data: st.DataObject) -> None:
    model = data.draw(generated.graphs())
    try:
        changed = stored.apply(model, stored.Settings(least_bytes=64))
    except BadModel:
        return
    onnx.checker.check_model(changed, full_check=True)
    feeds = runtime.synthetic(runtime.session(model), seed=0)
    assert alike(model, changed, feeds) > 15


@pytest.mark.parametrize("first", ["dynamic", "blocks"])
def test_what_another_pass_made_of_the_same_constant_stays_beside_it(first: str) -> None:
    # As with tied embeddings: the table is looked up, and turned around it multiplies.
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("MatMul", ["found", "w"], ["h"]),
        helper.make_node("MatMul", ["w", "turned"], ["again"]),
        helper.make_node("Transpose", ["found"], ["turned"], perm=[1, 0]),
        helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "head"], ["y"]),
    ]
    nodes[2], nodes[3] = nodes[3], nodes[2]
    weights = [("table", normal(60, 32)), ("w", normal(32, 32, seed=1))]
    model = helper.make_model(
        helper.make_graph(
            nodes, "tied",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [5])],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 60]),
                helper.make_tensor_value_info("again", TensorProto.FLOAT, [32, 5]),
            ],
            [numpy_helper.from_array(values, name) for name, values in weights],
        ),
        opset_imports=[helper.make_opsetid("", 21)], ir_version=10,
    )  # fmt: skip
    passes = (PassSpec(name=first), PassSpec(name="stored"))
    changed = pipeline.run(Recipe(label=first, passes=passes), model, calibrate=None)
    onnx.checker.check_model(changed)
    assert alike(model, changed, {"ids": np.array([3, 1, 4, 1, 59])}) > 20
