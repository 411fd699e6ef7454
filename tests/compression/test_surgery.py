"""Cutting channels is the same as zeroing them in the original, and leaves everything else."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compression import channels, graph, runtime
from compression.errors import BadModel
from compression.passes import structured_pruning
from compression.pruning import surgery
from tests.compression import channel_graphs as small
from tests.compression.masked import Oracle, first_inputs, random_units
from tests.fixtures.models import FIXTURES
from tests.fixtures.trained import collection


@pytest.mark.parametrize("name", small.GRAPHS)
def test_any_cut_of_a_small_graph_is_what_zeroing_is(name: str) -> None:
    model = small.GRAPHS[name]()
    found = channels.find(model)
    oracle = Oracle(model, found)
    assert found.groups
    for seed in range(2):
        assert oracle.gap(random_units(found, share=0.6, seed=seed)) <= 1e-5
    for one in (0, -1):  # a single unit is left of each, or of one
        keep = {group.id: [range(group.width)[one]] for group in found.groups}
        assert oracle.gap(keep) <= 1e-5
        for group in found.groups:
            assert oracle.gap({group.id: keep[group.id]}) <= 1e-5
        assert oracle.moved(keep) > 1e-3


@pytest.mark.parametrize("opset", [12, 13])
def test_the_sizes_of_a_split_are_kept_where_its_opset_has_them(opset: int) -> None:
    model = small.split(opset)
    found = channels.find(model)
    assert Oracle(model, found).gap(random_units(found, share=0.5, seed=0)) <= 1e-5


REAL = {
    "svhn": (1.0, 7),
    "text-angle": (1.0, 26),
    "magika": (0.999, 1),
    "autoencoder": (1.0, 12),
    "detector": (1.0, 33),
    "keywords": (1.0, 3),
    "sentences": (0.99, 4),
}
"""By model, the least share of products that can be reached, and the number of groups."""


@pytest.mark.parametrize("name", REAL)
def test_any_cut_of_a_trained_model_is_what_zeroing_is(name: str) -> None:
    if name in FIXTURES:
        fixture = FIXTURES[name]()
        path, arrays = fixture.onnx, dict(np.load(fixture.calibration))
    else:
        trained = collection.load(name)
        path, arrays = trained.onnx, trained.make_inputs(1, 5)
    feeds = first_inputs(arrays)
    model = graph.regular(path, sample=feeds)
    found = channels.find(model, sample=feeds)
    least, groups = REAL[name]
    assert found.macs_share >= least
    assert len(found.groups) == groups
    oracle = Oracle(model, found, cases=[feeds])
    for share, seed in ((0.5, 0), (0.9, 1)):
        keep = random_units(found, share=share, seed=seed)
        assert oracle.gap(keep) <= 1e-4
        assert oracle.moved(keep) > 1e-3  # else there would be nothing to compare


def test_heads_and_neurons_of_a_transformer_can_be_cut() -> None:
    model = graph.regular(collection.load("sentences").onnx)
    found = channels.find(model)
    assert sorted((g.width, g.unit_size) for g in found.groups) == [(4, 16)] * 2 + [(96, 1)] * 2


def test_constants_go_into_biases_where_that_is_exact() -> None:
    model = small.leaking()
    found = channels.find(model)
    leaks = {model.graph.node[leak.node].op_type: leak.folds for leak in found.trace.leaks[2:]}
    assert [leak.folds for leak in found.trace.leaks[:2]] == [True, False]  # padded: not exact
    assert leaks == {"Gemm": True, "MatMul": True}
    keep = {group.id: [0, 2] for group in found.groups}
    cut = surgery.cut(model, found, keep)
    zeros = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    assert Oracle(model, found, cases=[zeros]).gap(keep) <= 1e-6
    kinds = [node.op_type for node in cut.graph.node]
    assert kinds[kinds.index("MatMul") + 1] == "Add"


def test_what_is_removed_is_gone_from_the_file() -> None:
    model = small.residual()
    found = channels.find(model)
    cut = surgery.cut(model, found, {group.id: [0] for group in found.groups})
    weights = {t.name: list(t.dims) for t in cut.graph.initializer if len(t.dims) == 4}
    assert sorted(weights.values()) == [[1, 1, 3, 3], [1, 1, 3, 3], [1, 3, 3, 3], [4, 1, 1, 1]]


def test_names_and_metadata_and_the_original_stay() -> None:
    model = small.attention()
    before = model.SerializeToString()
    found = channels.find(model)
    cut = surgery.cut(model, found, random_units(found, share=0.5, seed=0))
    assert model.SerializeToString() == before
    assert cut.graph.input == model.graph.input
    assert cut.graph.output == model.graph.output
    assert cut.metadata_props == model.metadata_props


def test_what_was_cut_can_be_cut_again() -> None:
    model = small.fused()
    for left in (3, 2):
        (group,) = (found := channels.find(model)).groups
        keep = {group.id: [at for at in range(group.width) if at != 1]}
        assert Oracle(model, found).gap(keep) <= 1e-5
        model = surgery.cut(model, found, keep)
        assert channels.find(model).groups[0].width == left


def test_values_without_bounds_only_reach_what_they_reach_in_the_original() -> None:
    """1 / 0 in a channel that is cut must not spread to what is left."""
    b = small.builder()
    inverse = b.node("Div", b.constant(1.0), small.conv(b, "x", 3, 6))
    model = small.finished(b, small.head(b, inverse, 6))
    found = channels.find(model)
    (leak,) = found.trace.leaks
    assert not leak.folds
    assert Oracle(model, found).gap({found.groups[0].id: [0, 3]}) <= 1e-5


def test_a_width_that_nobody_may_change_is_not_changed() -> None:
    """A zero state that others read too stays where its own reader no longer needs it."""
    model = small.recurrent()
    maker = next(node for node in model.graph.node if node.op_type == "ConstantOfShape")
    model.graph.node.append(helper.make_node("Identity", [maker.output[0]], ["state"]))
    out = helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, None)
    model.graph.output.append(out)
    found = channels.find(model)
    cut = surgery.cut(model, found, random_units(found, share=0.5, seed=0))
    feeds = {"x": np.ones((2, 4, 6), np.float32)}
    assert runtime.run(runtime.session(cut), feeds)["state"].shape == (1, 2, 5)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"nothing": (0,)}, "no group 'nothing'"),
        ({"t1": (0, 6)}, r"cannot keep units \[6\] of 't1': it has units 0 to 5"),
        ({"t1": (-1,)}, r"units \[-1\]"),
        ({"t1": ()}, "cannot keep nothing of 't1'"),
        ({"t1": (0, 1, 2, 3, 4, 5)}, "every unit is kept"),
        ({}, "every unit is kept"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(keep: dict[str, Any], message: str) -> None:
    with pytest.raises(BadModel, match=message):
        structured_pruning.apply(small.chain(), structured_pruning.Settings(keep=keep))


def test_the_pass_cuts_what_its_settings_name() -> None:
    model = small.chain()
    settings = structured_pruning.Settings(keep={"t1": (4, 1)})
    cut = structured_pruning.apply(model, settings)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    left = {t.name: numpy_helper.to_array(t) for t in cut.graph.initializer}
    assert np.array_equal(left["t1"], weights["t1"][[1, 4]])
    feeds = {"x": np.ones((3, 3, 8, 8), np.float32)}
    assert runtime.run(runtime.session(cut), feeds)["y"].shape == (3, 4, 8, 8)
