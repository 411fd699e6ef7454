"""What is cut is repaired by what is left: exactly where it can be, else better than it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression import channels, graph, pipeline, runtime, statistics
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import structured_pruning
from compression.pruning import behind, branches, parts, refitting, surgery
from tests.compression import channel_graphs as small
from tests.compression.generated import Builder
from tests.compression.variants import sqnr
from tests.fixtures.models import FIXTURES
from tests.simulators import models

Rows = list[dict[str, np.ndarray]]


def images(count: int, *, seed: int = 0, name: str = "x", size: int = 8) -> Rows:
    """Smooth images, whose neighbours say nearly the same."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 1, 3, size, size))
    smooth = np.cumsum(np.cumsum(noise, 3), 4) / size + rng.uniform(-2, 2, (count, 1, 3, 1, 1))
    return [{name: one} for one in np.clip(smooth, -2, 2).astype(np.float32)]


def tokens(count: int, *, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, 7, 6)).astype(np.float32)} for _ in range(count)]


def evidence(rows: Rows, **more: Any) -> Evidence:
    return Evidence(lambda: iter(rows), **more)


def doubled(b: Builder, weight: str, bias: str | None, *, axis: int, count: int) -> None:
    """Make the second half of a layer's channels a multiple of the first."""
    for tensor in b.initializers:
        if tensor.name in {weight, bias}:
            value = numpy_helper.to_array(tensor).copy()
            moved = np.moveaxis(value, axis if tensor.name == weight else 0, 0)
            moved[count // 2 :] = 1.5 * moved[: count // 2]
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def spatial(*middle: Callable[[Builder, str], str]) -> onnx.ModelProto:
    """A Conv of twelve channels, half of which say nothing new, what follows, and a head."""
    b = small.builder()
    weight, bias = b.weights(12, 3, 3, 3), b.weights(12)
    doubled(b, weight, bias, axis=0, count=12)
    x = b.node("Relu", b.node("Conv", "x", weight, bias, pads=[1] * 4))
    for one in middle:
        x = one(b, x)
    return small.finished(b, x)


def flattened(b: Builder, x: str) -> str:
    flat = b.node("Flatten", b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    return b.node("Gemm", flat, b.weights(12 * 16, 5), b.weights(5))


def by_rows(bias: bool, *, layer: str = "MatMul") -> onnx.ModelProto:
    b = small.builder()
    weight = b.weights(6, 12)
    doubled(b, weight, None, axis=1, count=12)
    x = b.node("Relu", b.node("MatMul", "x", weight))
    y = b.node(layer, x, b.weights(12, 4))
    if bias:
        y = b.node("Add", y, b.weights(4))
    return small.finished(b, y, shape=small.TOKENS)


EXACT: dict[str, tuple[Callable[[], onnx.ModelProto], Rows]] = {
    "pointwise": (lambda: spatial(lambda b, x: small.conv(b, x, 12, 4, 1)), images(24)),
    "kernel": (lambda: spatial(lambda b, x: small.conv(b, x, 12, 4)), images(24)),
    "stride": (lambda: spatial(lambda b, x: small.conv(b, x, 12, 4, strides=[2, 2])), images(24)),
    "no bias": (
        lambda: spatial(lambda b, x: b.node("Conv", x, b.weights(4, 12, 1, 1))), images(24),
    ),
    "flatten": (lambda: spatial(flattened), images(64)),
    "rows": (lambda: by_rows(bias=False), tokens(24)),
    "rows with a bias": (lambda: by_rows(bias=True), tokens(24)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_channels_that_say_nothing_new_are_cut_for_nothing(name: str) -> None:
    make, rows = EXACT[name]
    model = make()
    (group,) = channels.find(model).groups
    assert group.width == 12
    settings = structured_pruning.Settings(keep={group.id: 6})
    cut = structured_pruning.apply(model, settings, evidence=evidence(rows))
    fresh = images(8, seed=5) if "rows" not in name else tokens(8, seed=5)
    assert channels.find(cut).groups[0].width == 6
    assert sqnr(model, cut, fresh) > 35
    plain = settings.model_copy(update={"refit": False})
    assert sqnr(model, structured_pruning.apply(model, plain, evidence=evidence(rows)), fresh) < 20


@pytest.mark.parametrize(
    "name", [name for name in EXACT if "no bias" not in name and name != "rows"]
)
def test_biases_take_the_means_over(name: str) -> None:
    make, rows = EXACT[name]
    model = make()
    (group,) = channels.find(model).groups
    settings = structured_pruning.Settings(keep={group.id: (3, 4, 9)}, ridge=1e-3)
    cut = structured_pruning.apply(model, settings, evidence=evidence(rows))
    one, other = (
        np.concatenate([runtime.run(runtime.session(each), row)["y"] for row in rows])
        for each in (model, cut)
    )
    axes = tuple(at for at in range(one.ndim) if at != (one.ndim - 1 if "rows" in name else 1))
    if name not in {"kernel", "stride"}:  # at a border the means are others
        assert other.mean(axes) == pytest.approx(
            one.mean(axes), abs=1e-3 * float(np.abs(one).max())
        )
    assert sqnr(model, cut, rows) > 3


def test_what_lies_behind_a_depthwise_conv_takes_over_for_it() -> None:
    model = spatial(
        lambda b, x: small.conv(b, x, 12, 12, group=12),
        lambda b, x: b.node("Relu", x),
        lambda b, x: small.conv(b, x, 12, 4, 1),
    )
    rows, fresh = images(64), images(8, seed=5)
    (group,) = channels.find(model).groups
    repaired, plain = (
        structured_pruning.apply(
            model,
            structured_pruning.Settings(keep={group.id: tuple(range(6))}, refit=refit),
            evidence=evidence(rows),
        )
        for refit in (True, False)
    )
    assert sqnr(model, repaired, fresh) > sqnr(model, plain, fresh) + 4


def test_kernels_too_large_for_the_memory_are_fitted_by_channels() -> None:
    model = spatial(lambda b, x: small.conv(b, x, 12, 4))
    rows, fresh = images(24), images(8, seed=5)
    found = channels.find(model)
    keep = {found.groups[0].id: tuple(range(6))}  # those that the others repeat
    cut = surgery.cut(model, found, keep)
    tight = evidence(rows, work_memory_mib=0.03)
    stays = behind.stays(model, found, keep)
    divided = parts.divide(tight, most=99)
    assert len(refitting.refit(model, cut, stays, divided)) == 1
    assert sqnr(model, cut, fresh) > 35
    nothing = surgery.cut(model, found, keep)
    starved = parts.divide(evidence(rows, work_memory_mib=1e-4), most=99)
    assert refitting.refit(model, nothing, stays, starved) == ()
    assert nothing == surgery.cut(model, found, keep)


def test_layers_of_one_depth_are_fitted_in_one_pass() -> None:
    model = small.residual()
    found = channels.find(model)
    keep = {group.id: tuple(range(group.width - 1)) for group in found.groups}
    passes = 0
    rows = images(16)

    def feeds() -> Any:
        nonlocal passes
        passes += 1
        return iter(rows)

    divided = parts.divide(Evidence(feeds), most=99)
    passes = 0
    cut = surgery.cut(model, found, keep)
    fitted = refitting.refit(model, cut, behind.stays(model, found, keep), divided)
    assert {one.layer for one in fitted} == {"t6", "t10", "t14"}
    assert passes == 2 * 3  # the cut model and the original, at each of three depths


def joined(b: Builder, *, constants: int = 0) -> onnx.ModelProto:
    """A branch of one hidden layer and a deeper one beside it, t10."""
    first = small.conv(b, b.node("Relu", small.conv(b, "x", 3, 12)), 12, 4)
    deep = b.node("Relu", small.conv(b, "x", 3, 24))
    deep = small.conv(b, b.node("Relu", small.conv(b, deep, 24, 24)), 24, 4)
    for _ in range(constants):
        deep = b.node("Add", deep, b.weights(1, 4, 1, 1))
    return small.finished(b, b.node("Add", first, deep))


@pytest.mark.parametrize("constants", [0, 2])
def test_a_branch_makes_up_for_what_the_other_lacks(
    constants: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = joined(small.builder(), constants=constants)
    found = channels.find(model)
    assert [group.width for group in found.groups] == [12, 24, 24]
    kept = (tuple(range(3)), tuple(range(22)), tuple(range(20)))
    keep = {group.id: units for group, units in zip(found.groups, kept, strict=True)}
    settings = structured_pruning.Settings.model_validate({"keep": keep})
    rows, fresh = images(96), images(16, seed=5)
    repaired = structured_pruning.apply(model, settings, evidence=evidence(rows))
    monkeypatch.setattr(branches, "others", lambda *_: {})
    apart = structured_pruning.apply(model, settings, evidence=evidence(rows))
    assert sqnr(model, repaired, fresh) > sqnr(model, apart, fresh) + 1


def test_the_later_of_two_branches_makes_up_and_only_where_nobody_else_reads_it() -> None:
    b = small.builder()
    x = b.node("Relu", "x")
    y = b.node("Add", b.node("Add", x, b.weights(3, 1, 1)), "deep")
    model = small.finished(b, b.node("Add", b.node("Mul", y, y), "deep2"))
    late, early = {"deep": 3, x: 1}, {"deep": 4, x: 1}
    assert branches.others(model, {x: 3}, late) == {x: "deep"}
    assert branches.others(model, {x: 3}, early) == {}  # not final yet
    assert branches.others(model, {x: 3}, {}) == {}  # an input of the graph, or nobody knows
    assert branches.others(model, {y: 9, "y": 9}, {"deep2": 1}) == {}  # read twice; leaves


def test_a_fit_is_kept_only_where_other_samples_say_that_it_helps() -> None:
    """With fewer rows than weights a fit bends to noise; the samples that judge see that."""
    model = spatial(flattened)
    rng = np.random.default_rng(0)
    rows = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(12)]
    fresh = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(32)]
    found = channels.find(model)
    keep = {found.groups[0].id: (0, 1, 2, 6, 7)}
    stays = behind.stays(model, found, keep)
    free, judged = surgery.cut(model, found, keep), surgery.cut(model, found, keep)
    before = sqnr(model, judged, fresh)
    divided = parts.divide(evidence(rows), most=99)
    refitting.refit(model, free, stays, divided, ridge=1e-9)
    refitting.refit(model, judged, stays, divided)
    assert sqnr(model, judged, fresh) >= sqnr(model, free, fresh) - 0.1
    assert sqnr(model, judged, fresh) >= before - 0.1


def test_a_source_lies_in_one_part_as_a_whole() -> None:
    rows = images(24)
    sources = [at // 3 for at in range(24)]
    divided = parts.divide(evidence(rows, sources=lambda: sources), most=20)
    assert len(divided.judges) == 20
    for source in range(7):
        assert len({divided.judges[at] for at in range(20) if sources[at] == source}) == 1
    assert 0 < sum(divided.judges) < 10
    numbers = [at for at, _ in divided.feeds(judging=True)]
    assert numbers == [at for at in range(20) if divided.judges[at]]


def svhn() -> tuple[onnx.ModelProto, Rows, Rows]:
    fixture = FIXTURES["svhn"]()
    with np.load(fixture.calibration) as held:
        rows = [{"image": held["image"][at : at + 1]} for at in range(48)]
    with np.load(fixture.evaluation) as held:
        fresh = [{"image": one[None]} for one in held["image"][:200]]
    return graph.regular(fixture.onnx), rows, fresh


def agreeing(model: onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    original, candidate = runtime.session(model), runtime.session(changed)
    hits = [
        runtime.run(original, row)["logits"].argmax()
        == runtime.run(candidate, row)["logits"].argmax()
        for row in rows
    ]
    return float(np.mean(hits))


def made(model: onnx.ModelProto, rows: Rows, *passes: PassSpec) -> onnx.ModelProto:
    def calibrate(one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> Any:
        return statistics.ranges(one, rows, count=len(rows))

    recipe = Recipe(label="test", passes=passes)
    return pipeline.run(recipe, model, calibrate=calibrate, evidence=shared(rows))


KEPT: dict[int, Evidence] = {}


def shared(rows: Rows) -> Evidence:
    """One evidence for all recipes, as a job has it."""
    return KEPT.setdefault(id(rows), evidence(rows))


def test_a_trained_model_loses_half_of_its_products_and_is_quantized_behind_that() -> None:
    model, rows, fresh = svhn()
    prune = PassSpec(name="structured_pruning", parameters={"keep": 0.5})
    cut = made(model, rows, prune)
    assert channels.find(cut).macs <= 0.5 * channels.find(model).macs
    assert agreeing(model, cut, fresh) >= 0.95
    quantized = made(
        model, rows, prune,
        PassSpec(name="quantization", parameters={"weights": "s8-7bit"}),
        PassSpec(name="correction"),
        PassSpec(name="stored"),
    )  # fmt: skip
    assert agreeing(model, quantized, fresh) >= 0.93
    assert quantized.ByteSize() < 0.3 * cut.ByteSize() + 20_000


def test_a_cut_behind_integers_is_refused(tmp_path: Path) -> None:
    model = graph.regular(models.cnn(tmp_path / "cnn.onnx"))
    rows = [{"image": row["x"]} for row in images(8, size=32)]
    quantize = PassSpec(name="quantization", parameters={"weights": "s8-7bit"})
    prune = PassSpec(name="structured_pruning", parameters={"keep": 0.5})
    with pytest.raises(BadModel, match="cannot cut channels behind a pass that is not exact"):
        made(model, rows, quantize, prune)


def pruned(model: onnx.ModelProto, rows: Rows, **parameters: Any) -> onnx.ModelProto:
    settings = structured_pruning.Settings.model_validate(parameters)
    return structured_pruning.apply(model, settings, evidence=evidence(rows))


def test_too_few_inputs_are_refused_and_how_many_are_needed_is_said() -> None:
    model = small.chain()
    with pytest.raises(BadModel, match=r"by 7 calibration inputs .* at least 8 of 2 are needed"):
        pruned(model, images(7), keep=0.5)
    one_source = evidence(images(9), sources=lambda: [4] * 9)
    with pytest.raises(BadModel, match="of 1 sources"):
        structured_pruning.apply(model, structured_pruning.Settings(keep=0.5), evidence=one_source)


def test_a_group_too_wide_for_the_inputs_stays_whole_and_says_so(tmp_path: Path) -> None:
    model = graph.regular(models.mlp(tmp_path / "mlp.onnx", hidden=512))
    rows = [
        {"x": np.random.default_rng(at).normal(size=(1, 8)).astype(np.float32)} for at in range(16)
    ]
    with pytest.raises(BadModel, match=r"among 512 units of .* by 16 .* at least 43 are needed"):
        pruned(model, rows, keep=0.5)
    (group,) = channels.find(model).groups
    with pytest.raises(BadModel, match="at least 43 are needed"):
        pruned(model, rows, keep={group.id: 100})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"nobody": 3}, "no group 'nobody'"),
        ({"t1": 6}, "every unit is kept"),
        ({"t1": 7}, "cannot keep 7 units of 't1': it has 6"),
        ({"t1": 0}, "cannot keep 0 units"),
        (0.001, "are left"),
    ],
)
def test_impossible_wishes_are_refused(keep: Any, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        pruned(small.chain(), images(16), keep=keep)


def test_a_model_without_groups_says_why() -> None:
    b = small.builder()
    model = small.finished(b, small.conv(b, "x", 3, 4))
    with pytest.raises(BadModel, match=r"no groups of them: .* reaches a graph output"):
        pruned(model, images(16), keep=0.5)


@pytest.mark.parametrize("value", [0.0, -1e4, 3e38])
def test_layers_that_are_dead_or_overflow_are_cut_too(value: float) -> None:
    """A bias of -10,000 closes every Relu; one of 3e38 makes what follows infinite."""
    b = small.builder()
    bias = b.weights(12)
    weight = b.weights(12, 3, 3, 3)
    for tensor in b.initializers:
        if tensor.name == bias:
            tensor.CopyFrom(numpy_helper.from_array(np.full(12, value, np.float32), bias))
    x = b.node("Relu", b.node("Conv", "x", weight, bias, pads=[1] * 4))
    model = small.finished(b, small.conv(b, x, 12, 4, 1))
    (group,) = channels.find(model, sample=images(1)[0]).groups if value < 1 else (None,)
    if group is None:
        with pytest.raises(BadModel):
            pruned(model, images(16), keep={"t1": 6})
        return
    cut = pruned(model, images(16), keep={group.id: 6})
    answers = runtime.run(runtime.session(cut), images(1)[0])["y"]
    assert np.isfinite(answers).all()
    if value < 0:
        assert sqnr(model, cut, images(4, seed=9)) > 100
