"""Of forecasts that disagree the better cut is taken; the commonest class keeps its share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from compression import channels, runtime
from compression.calibration.evidence import Evidence
from compression.passes import structured_pruning
from compression.pruning import balance, comparing, fading, ordering, parts
from tests.compression import channel_graphs as small
from tests.compression.generated import Builder

Rows = list[dict[str, np.ndarray]]
CLASSES = 5


def tokens(count: int, *, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, 7, 6)).astype(np.float32)} for _ in range(count)]


def divided(rows: Rows, **more: Any) -> parts.Parts:
    return parts.divide(Evidence(lambda: iter(rows), **more), most=9999)


def classifier(layer: str = "MatMul", *, softmax: bool = True, axis: int = -1) -> onnx.ModelProto:
    """Tokens to shares of five classes, the first of which is the commonest."""
    b = small.builder()
    weight, bias = b.weights(6, CLASSES), b.weights(CLASSES)
    x = "x" if layer == "MatMul" else b.node("Flatten", b.node("ReduceMean", "x", axes=[1]))
    if layer == "MatMul":
        y = b.node("Add", b.node("MatMul", x, weight), bias)
    else:
        y = b.node("Gemm", x, weight, bias)
    if softmax:
        y = b.node("Softmax", y, axis=axis)
    model = small.finished(b, y, shape=small.TOKENS)
    named = model.graph.node.pop()  # so that the Softmax makes the output
    model.graph.node[-1].output[0] = named.output[0]
    return raised(model, 1.5 if layer == "MatMul" else 0.5, beside=0.0)


def raised(model: onnx.ModelProto, by: float, *, beside: float = 1.0) -> onnx.ModelProto:
    """The model with the logit of the first class raised, and the other biases times `beside`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if list(tensor.dims) == [CLASSES]:
            value = beside * numpy_helper.to_array(tensor)
            value[0] += by
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return changed


def kinds(model: onnx.ModelProto, rows: Rows) -> NDArray[np.int64]:
    session = runtime.session(model)
    found = [runtime.run(session, row)["y"].argmax(-1).ravel() for row in rows]
    return np.concatenate(found)


@pytest.mark.parametrize("layer", ["MatMul", "Gemm"])
@pytest.mark.parametrize("by", [0.4, -0.4])
def test_the_commonest_class_is_answered_as_often_as_by_the_original(layer: str, by: float) -> None:
    model, rows, fresh = classifier(layer), tokens(200), tokens(200, seed=9)
    cut = raised(model, by)
    before = (kinds(model, fresh) == kinds(cut, fresh)).mean()
    (moved,) = balance.restore(model, cut, divided(rows))
    assert moved.kind == 0
    assert moved.lowered == pytest.approx(by, abs=0.1)
    assert (kinds(cut, rows) == 0).sum() == (kinds(model, rows) == 0).sum()
    assert (kinds(model, fresh) == kinds(cut, fresh)).mean() > before


@pytest.mark.parametrize(
    "model",
    [classifier(), classifier(softmax=False), classifier(axis=1)],
    ids=["the same shares", "no shares", "shares along another axis"],
)
def test_where_nothing_is_to_be_moved_the_model_stays(model: onnx.ModelProto) -> None:
    is_right = "Softmax" in {node.op_type for node in model.graph.node}
    cut = raised(model, 0.0 if is_right and model == classifier() else 0.4)
    before = cut.SerializeToString()
    assert balance.restore(model, cut, divided(tokens(100))) == ()
    assert cut.SerializeToString() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_move_nothing(value: float) -> None:
    model = classifier()
    cut = raised(model, 0.4)
    rows = tokens(40)
    rows[7]["x"][0, 3, 2] = value
    assert balance.restore(model, cut, divided(rows)) == ()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300), st.floats(-3, 3))
def test_behind_a_shift_both_answer_the_class_equally_often(
    seed: int, count: int, bias: float
) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=count).astype(np.float32)
    theirs = gaps + rng.normal(size=count) * 0.3 > 0
    moved = balance.lowered(theirs, gaps + np.float32(bias))
    ours = gaps + np.float32(bias) > (0.0 if moved is None else moved)
    if moved is not None:
        assert ours.sum() == theirs.sum()
    elif not theirs.all():
        gained, lost = (ours & ~theirs).sum(), (theirs & ~ours).sum()
        assert abs(int(gained) - int(lost)) <= balance.SURE * np.sqrt(gained + lost)


def test_many_samples_are_thinned_out_and_stay_in_their_parts() -> None:
    rows = [{"x": np.full((1, 2), at, np.float32)} for at in range(1000)]
    whole = divided(rows)
    few = comparing.fewer(whole)
    taken = [int(sample["x"][0, 0]) for _, sample in few.feeds()]
    assert len(taken) == len(few.judges) == comparing.MOST
    assert (taken[0], taken[-1]) == (0, 999)
    assert max(np.diff(taken)) <= 4
    assert [whole.judges[at] for at in taken] == list(few.judges)
    assert [number for number, _ in few.feeds()] == list(range(comparing.MOST))
    assert comparing.fewer(few) is few


def test_a_later_cut_is_taken_where_it_clearly_answers_more_like_the_original() -> None:
    model, known = classifier(), divided(tokens(20))
    assert comparing.lost(model, model, known) == 0
    by = [3.0, 0.1, -1.0]
    assert comparing.best(model, by, lambda one: raised(model, one), known)[0] == 0.1
    assert comparing.best(model, [0.1, 0.099], lambda one: raised(model, one), known)[0] == 0.1
    broken = raised(model, np.nan)
    assert comparing.lost(model, broken, known) == np.inf
    found, made = comparing.best(
        model, [np.nan, 2.0], lambda one: broken if np.isnan(one) else raised(model, one), known
    )
    assert found == 2.0
    assert made == raised(model, 2.0)


def deep(b: Builder) -> onnx.ModelProto:
    """Blocks that each add to a stream, one behind the other."""
    x = small.conv(b, "x", 3, 8)
    for _ in range(3):
        inner = b.node("Relu", small.conv(b, x, 8, 24, 1))
        x = b.node("Add", x, small.conv(b, inner, 24, 8))
    return small.finished(b, small.head(b, x, 8))


def images(count: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        image = np.cumsum(rng.normal(size=(1, 3, 8, 8)), 3)
        yield {"x": image.astype(np.float32)}


@pytest.mark.parametrize(("clearly", "decides"), [(0.0, 0.3), (np.inf, 1.0)])
def test_of_forecasts_that_disagree_the_better_one_decides(
    clearly: float, decides: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = deep(small.builder()), list(images(16))
    asked = structured_pruning.Settings(keep=0.4)
    made = []
    for fades, enough in (((0.3, 1.0), clearly), ((decides,), 1.0), ((1.3 - decides,), 1.0)):
        monkeypatch.setattr(fading, "FADES", fades)
        monkeypatch.setattr(comparing, "CLEARLY", enough)
        evidence = Evidence(lambda: iter(rows))
        made.append(structured_pruning.apply(model, asked, evidence=evidence))
    assert made[0] == made[1] != made[2]


def test_where_nothing_fades_early_losses_count_as_late_ones_do() -> None:
    model = deep(small.builder())
    found = channels.find(model)
    order = ordering.Order(np.arange(24), np.linspace(0.1, 0.8, 24))
    same = {group.id: order for group in found.groups}
    plain = fading.losses(model, found, same, fade=1.0)
    alike = {plain[group.id] for group in found.groups if group.width == 24}
    assert len(alike) == 1
