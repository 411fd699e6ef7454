"""Single weights go, the others make up for it, and zeros stay zero in whatever comes behind."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression import pipeline, report, runtime, statistics
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.findings import Measurement
from compression.job import PassSpec, Recipe
from compression.packed import writing
from compression.passes import unstructured_pruning
from compression.passes.unstructured_pruning import Settings
from tests.compression import channel_graphs as small
from tests.compression.test_page import ladder_of, rung
from tests.compression.test_recurrent import FEATURES, normal, recurrence
from tests.compression.variants import a_pass, convs, images, made, sqnr

Rows = list[dict[str, np.ndarray]]
ALL = {"least_bytes": 0}


def pruned(model: onnx.ModelProto, rows: Rows, **parameters: Any) -> onnx.ModelProto:
    settings = Settings.model_validate(ALL | parameters)
    evidence = Evidence(lambda: iter(rows)) if settings.needs_inputs else None
    return unstructured_pruning.apply(model, settings, evidence=evidence)


def zeros(model: onnx.ModelProto, *, least: int = 100) -> dict[str, float]:
    """The share of the most common value of each larger constant."""
    held = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    return {
        name: float(np.unique(array, return_counts=True)[1].max() / array.size)
        for name, array in held.items()
        if array.size >= least
    }


@pytest.mark.parametrize(
    ("order", "refit"),
    [("magnitude", False), ("activations", False), ("surgeon", False), ("magnitude", True),
     ("surgeon", True)],
)  # fmt: skip
@pytest.mark.parametrize(
    "how", [{"sparsity": 0.6, "scope": scope} for scope in ("row", "layer", "model")]
    + [{"pattern": (2, 4)}],
)  # fmt: skip
def test_as_many_weights_are_zero_as_were_asked_for(
    tmp_path: Path, order: str, refit: bool, how: dict[str, Any]
) -> None:
    model, rows = convs(tmp_path), images(10)
    found = pruned(model, rows, order=order, refit=refit, **how)
    onnx.checker.check_model(found, full_check=True)
    share = unstructured_pruning.sparsity(found, Settings(**ALL, **how))
    assert share == pytest.approx(how.get("sparsity", 0.5), abs=0.03)
    assert sqnr(model, found, images(3, seed=1)) > 0
    names = [{value.name for value in one.graph.output} for one in (model, found)]
    assert names[0] == names[1]


@pytest.mark.parametrize(("groups", "bias"), [(1, False), (4, True)])
def test_what_is_fitted_anew_comes_closer_on_inputs_it_was_not_fitted_to(
    tmp_path: Path, groups: int, bias: bool
) -> None:
    model, rows, others = convs(tmp_path, groups=groups, bias=bias), images(24), images(6, seed=9)
    how = {"sparsity": 0.5, "scope": "row"}
    plain = sqnr(model, pruned(model, rows, order="magnitude", refit=False, **how), others)
    by_inputs = sqnr(model, pruned(model, rows, order="activations", refit=False, **how), others)
    fitted = sqnr(model, pruned(model, rows, order="activations", **how), others)
    surgeon = sqnr(model, pruned(model, rows, order="surgeon", refit=False, **how), others)
    best = sqnr(model, pruned(model, rows, **how), others)
    assert min(fitted, surgeon, best) > max(plain, by_inputs) + 2
    assert best > fitted - 3


def doubled(layer: str) -> onnx.ModelProto:
    """A product of 32 inputs of which the second half says what the first one says."""
    b = small.builder()
    b.random = np.random.default_rng(7)
    first, second = b.weights(6, 16), b.weights(32, 12)
    x = b.node("MatMul", "x", first)
    twice = b.node("Concat", x, b.node("Mul", x, b.constant(np.float32(1.5))), axis=-1)
    return small.finished(b, b.node(layer, twice, second), shape=small.TOKENS)


def test_what_says_nothing_new_goes_for_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = [{"x": rng.normal(size=(1, 7, 6)).astype(np.float32)} for _ in range(40)]
    model = doubled("MatMul")
    how = {"sparsity": 0.5, "scope": "row", "least_bytes": 1000}
    found = pruned(model, rows, **how)
    assert zeros(found)[max(zeros(found), key=zeros(found).__getitem__)] == pytest.approx(0.5)
    assert sqnr(model, found, rows[:5]) > 40
    assert sqnr(model, pruned(model, rows, order="magnitude", refit=False, **how), rows[:5]) < 20


CHAINS: dict[str, tuple[PassSpec, ...]] = {
    "s8": (a_pass("quantization"),),
    "7 bits, rounded again": (
        a_pass("quantization", weights="s8-7bit"),
        a_pass("reconstruction", pairs=True),
        a_pass("correction"),
    ),
    "u8, rounded again": (
        a_pass("quantization", weights="u8", per_channel=False), a_pass("reconstruction"),
    ),
    "all operators": (a_pass("quantization", operators=["*"]), a_pass("stored", least_bytes=0)),
    "stored": (a_pass("stored", least_bytes=0),),
    "stored wide": (a_pass("stored", bits=16, least_bytes=0),),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_zeros_survive_what_rounds_weights(tmp_path: Path, chain: str) -> None:
    model, rows = convs(tmp_path, uneven=3.0), images(16)
    first = a_pass("unstructured_pruning", sparsity=0.7, scope="row", **ALL)
    found = made(model, rows, a_pass("equalization"), first, *CHAINS[chain])
    shares = zeros(found)
    assert len(shares) == 2 or len(shares) == 3
    assert min(shares.values()) >= 0.68  # of 27 inputs, 19 went
    assert sqnr(model, found, images(4, seed=2)) > 3


@pytest.mark.parametrize("passes", [("dynamic",), ("dynamic", "reconstruction"), ("blocks",)])
def test_zeros_survive_in_products(passes: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = [{"x": rng.normal(size=(1, 7, 6)).astype(np.float32)} for _ in range(24)]
    b = small.builder()
    hidden = b.node("Relu", b.node("MatMul", "x", b.weights(6, 64)))
    model = small.finished(b, b.node("MatMul", hidden, b.weights(64, 96)), shape=small.TOKENS)
    first = a_pass("unstructured_pruning", sparsity=0.7, scope="row")
    found = made(model, rows, first, *(a_pass(name) for name in passes))
    assert max(zeros(found, least=5000).values()) >= 0.69


def test_a_packed_file_is_small_by_its_zeros(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(16)
    passes = (a_pass("unstructured_pruning", sparsity=0.8, **ALL), a_pass("stored"))
    sizes = [
        len(writing.pack(made(model, rows, *chain).SerializeToString()))
        for chain in (passes, passes[1:])
    ]
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers_keep_the_weights_of_inputs_that_say_something(
    operator: str, direction: str
) -> None:
    model = recurrence(operator=operator, direction=direction, states=False)
    sizes = np.where(np.arange(FEATURES) % 2, 1.0, 1e-3)
    rows = [{"x": (normal(12, 1, FEATURES, seed=at) * sizes).astype("f4")} for at in range(12)]
    how = {"sparsity": 0.5, "scope": "row"}
    found = pruned(model, rows, **how)
    w = next(numpy_helper.to_array(one) for one in found.graph.initializer if one.name == "w")
    assert (w[..., ::2] == 0).mean() > 0.98
    assert (w[..., 1::2] != 0).mean() > 0.98
    blind = pruned(model, rows, order="magnitude", refit=False, **how)
    fresh = [{"x": (normal(12, 1, FEATURES, seed=99) * sizes).astype("f4")}]
    assert sqnr(model, found, fresh) > sqnr(model, blind, fresh) + 2
    r = next(numpy_helper.to_array(one) for one in found.graph.initializer if one.name == "r")
    assert (r == 0).mean() == pytest.approx(0.5)


def test_shared_weights_go_by_magnitude_and_are_not_fitted() -> None:
    model = _shared(32)
    rows = [{"x": normal(1, 5, 6, seed=at)} for at in range(9)]
    found = pruned(model, rows, sparsity=0.5, scope="row")
    ((before, after),) = [
        (numpy_helper.to_array(one), numpy_helper.to_array(other))
        for one, other in zip(model.graph.initializer, found.graph.initializer, strict=True)
        if one.dims == [32, 32]
    ]
    kept = after != 0
    assert kept.mean() == pytest.approx(0.5)
    assert (after[kept] == before[kept]).all()


def test_a_model_of_small_kernels_has_nothing_to_prune() -> None:
    with pytest.raises(BadModel, match="no float weights"):
        pruned(_shared(6), [{"x": normal(1, 5, 6, seed=at)} for at in range(9)], sparsity=0.5)


def _shared(size: int) -> onnx.ModelProto:
    b = small.builder()
    shared = b.weights(size, size)
    x = b.node("MatMul", "x", b.weights(6, size))
    y = b.node("MatMul", b.node("Relu", b.node("MatMul", x, shared)), shared)
    return small.finished(b, y, shape=small.TOKENS)


def test_layers_that_do_not_fit_into_memory_are_masked_all_the_same(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(12)
    evidence = Evidence(lambda: iter(rows), work_memory_mib=0.01)
    settings = Settings(sparsity=0.5, **ALL)
    found = unstructured_pruning.apply(model, settings, evidence=evidence)
    assert unstructured_pruning.sparsity(found, settings) == pytest.approx(0.5, abs=0.02)


def test_a_layer_that_nothing_reaches_is_masked_all_the_same() -> None:
    b = small.builder()
    dead = b.node("Relu", b.node("Add", b.node("MatMul", "x", b.weights(6, 24)),
                                 b.constant(np.float32(-1e6))))  # fmt: skip
    y = b.node("Add", b.node("MatMul", dead, b.weights(24, 24)), b.weights(24))
    model = small.finished(b, y, shape=small.TOKENS)
    rows = [{"x": normal(1, 5, 6, seed=at)} for at in range(9)]
    found = pruned(model, rows, sparsity=0.5, scope="row")
    for row in rows:
        both = [runtime.run(runtime.session(one), row)["y"] for one in (model, found)]
        assert np.allclose(*both)


def test_too_few_inputs_are_told_with_how_many_are_needed(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="3 calibration inputs of 3 sources: at least 8"):
        pruned(convs(tmp_path), images(3), sparsity=0.5)


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({}, "either sparsity or pattern"),
        ({"sparsity": 0.5, "pattern": [2, 4]}, "either sparsity or pattern"),
        ({"pattern": [4, 4]}, "4 of each 4 would be all"),
        ({"pattern": "2:4"}, "pattern"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"sparsity": 0.5, "keep": 0.5}, "unknown field 'keep'"),
    ],
)
def test_parameters_that_make_no_sense_are_told(
    tmp_path: Path, parameters: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadModel, match=why):
        made(convs(tmp_path), images(8), a_pass("unstructured_pruning", **parameters))


@pytest.mark.parametrize("first", ["quantization", "stored"])
def test_pruning_behind_what_rounds_is_refused(tmp_path: Path, first: str) -> None:
    prune = a_pass("unstructured_pruning", sparsity=0.5, **ALL)
    with pytest.raises(BadModel, match="prune first"):
        made(convs(tmp_path), images(8), a_pass(first), prune)


def test_nothing_may_follow_what_packs(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="cannot run a pass behind 'packed'"):
        made(convs(tmp_path), images(8), a_pass("packed"), a_pass("stored"))
    with pytest.raises(BadModel, match="unknown field 'level'"):
        made(convs(tmp_path), images(8), a_pass("packed", level=3))


def test_without_inputs_magnitude_alone_is_left(tmp_path: Path) -> None:
    model = convs(tmp_path)
    plain = a_pass("unstructured_pruning", sparsity=0.5, order="magnitude", refit=False, **ALL)
    recipe = Recipe(label="blind", passes=(plain,))

    def calibrate(one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> Any:
        return statistics.ranges(one, images(2), count=2)

    found = pipeline.run(recipe, model, calibrate=calibrate)
    assert unstructured_pruning.sparsity(found, Settings(sparsity=0.5, **ALL)) == 0.5
    fitted = Recipe(label="fitted", passes=(a_pass("unstructured_pruning", sparsity=0.5),))
    with pytest.raises(BadModel, match="there are no calibration inputs"):
        pipeline.run(fitted, model, calibrate=calibrate)


def test_the_report_says_that_zeros_save_no_time() -> None:
    sparse = rung("sparse", expanded_mib=3.0)
    passes = (a_pass("unstructured_pruning", sparsity=0.7), a_pass("packed"))
    sparse = sparse.model_copy(update={"recipe": Recipe(label="sparse", passes=passes)})
    assert report.UNSTRUCTURED in report.table(ladder_of(sparse)).splitlines()
    assert "1.00, 3.00 expanded" in report.table(ladder_of(sparse))
    assert report.UNSTRUCTURED not in report.table(ladder_of(rung("dense")))
    found: Measurement = sparse.measurement
    assert "expanded MiB" in report.measurement(found)
