"""Outputs of a reader count by what reads them: energies move among them, none is made or lost."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from compression import channels, graph
from compression.calibration.evidence import Evidence
from compression.pruning import layers, parts, planning, readers, weighing
from compression.pruning.groups import Slot
from compression.pruning.ordering import Reader
from compression.pruning.readers import Seen
from tests.compression import channel_graphs as small
from tests.fixtures.trained import collection

Floats = NDArray[np.float64]


def slot(axis: int, units: Any, *, reads: bool) -> Slot:
    role = "reads" if reads else "makes"
    return Slot("weight", axis, role, "layer", "tensor", np.asarray(units, np.int64))  # type: ignore[arg-type]  # one of the two


def seen(axis: int, value: Floats, gram: Floats, *, places: int = 1, groups: int = 1) -> Seen:
    """A layer of constant `value` that sums along `axis`."""
    moved = np.moveaxis(value, axis, 0)
    length = len(moved) // places
    reads = slot(axis, np.repeat(np.arange(length), places), reads=True)
    return Seen(
        reads, axis, moved.shape, groups, moved.reshape(length, -1), np.zeros(length), gram, 99,
        places,
    )  # fmt: skip


def energies(reader: Reader) -> Floats:
    found: Floats = ((reader.gram @ reader.weights) * reader.weights).sum(0)
    return found


def columns(shape: tuple[int, ...], reads: int, makes: int) -> NDArray[np.int64]:
    """Of each column of a layer which output it makes: those that are not zero if it alone is."""
    found = []
    for unit in range(shape[makes]):
        value = np.zeros(shape)
        np.moveaxis(value, makes, 0)[unit] = 1
        alone = seen(reads, value, np.eye(4), places=shape[reads] // 4)
        found.append(energies(alone.reader(shifts=True)) > 0)
    which: NDArray[np.int64] = np.argmax(found, axis=0)
    return which


LAYOUTS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "Conv": ((6, 4, 3, 2), 1, 0),
    "ConvTranspose": ((4, 6, 3, 2), 0, 1),
    "MatMul": ((4, 6), 0, 1),
    "Gemm, turned": ((6, 4), 1, 0),
    "Gemm behind a Flatten": ((8, 6), 0, 1),
    "LSTM of two directions": ((2, 6, 4), 2, 1),
}
"""Shape of the constant, the axis that is summed over, the axis that makes."""


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-6, 6))
def test_each_unit_counts_by_its_share_and_what_is_not_heard_of_stays(
    name: str, seed: int, size: float
) -> None:
    shape, reads, makes = LAYOUTS[name]
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) * 10**size
    one = seen(reads, rng.normal(size=shape), rows.T @ rows, places=shape[reads] // 4)
    units = np.array([0, 1, 2, 0, 1, -1])  # the last belongs to nobody
    shares = rng.dirichlet(np.ones(3))
    heard = weighing.Heard(slot(makes, units, reads=False), shares)
    before = one.reader(shifts=True)
    after = weighing.weighed(one, before, {("layer", "weight"): [heard]})
    which = columns(shape, reads, makes)
    kept, found = (np.bincount(which, energies(reader)) for reader in (before, after))
    assert found[5] == pytest.approx(kept[5])
    assert found.sum() == pytest.approx(kept.sum())
    mine = np.bincount(units[:5], found[:5]) / found[:5].sum()
    assert mine == pytest.approx(shares, rel=1e-6)
    assert after.gram is before.gram


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_where_nothing_can_be_said_outputs_count_by_their_own_energy(bad: float) -> None:
    rng = np.random.default_rng(0)
    makes = weighing.Heard(slot(0, [0, 1, 2], reads=False), np.array([0.0, 0.2, 0.8]))
    known = {("layer", "weight"): [makes]}
    weights = rng.normal(size=(3, 4))
    dumb = seen(1, weights, np.full((4, 4), bad))
    reader = dumb.reader(shifts=True)
    assert weighing.weighed(dumb, reader, known).weights == pytest.approx(dumb.weights)
    assert weighing.weighed(dumb, reader, {}) is reader
    apart = seen(1, weights, np.eye(4), groups=2)
    assert weighing.weighed(apart, reader, known) is reader
    silent = weighing.Heard(makes.slot, np.array([1.0, 0.0, 0.0]))  # heard of a dead output alone
    weights[0] = 0
    one = seen(1, weights, np.eye(4))
    kept = weighing.weighed(one, one.reader(shifts=True), {("layer", "weight"): [silent]})
    assert kept.weights == pytest.approx(one.weights)


def unheard() -> onnx.ModelProto:
    """Eight channels; the first four make two large ones of six that hardly anybody reads."""
    b = small.builder()
    x = b.node("Relu", small.conv(b, "x", 3, 8))
    x = b.node("Relu", small.conv(b, x, 8, 6))
    model = small.finished(b, small.head(b, x, 6))
    first, second, last = (t for t in model.graph.initializer if len(t.dims) == 4)
    values = [numpy_helper.to_array(one).copy() for one in (first, second, last)]
    values[1][:2, 4:], values[1][2:, :4] = 0, 0
    values[1][:2] *= 30
    values[2][:, :2] *= 1e-4
    for tensor, value in zip((first, second, last), values, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def test_in_a_detector_every_channel_counts_by_what_reads_it() -> None:
    trained = collection.load("detector")
    model = graph.regular(trained.onnx)
    ((name, images),) = trained.make_inputs(12, collection.CALIBRATION_SEED).items()
    rows = [{name: images[at : at + 1]} for at in range(len(images))]
    known = parts.divide(Evidence(lambda: iter(rows)), most=9999)
    found = channels.find(model, sample=rows[0])
    table = readers.find(model, found, known)
    shifting = {name for name, one in layers.find(model).items() if one.can_shift}
    heard = weighing.makers(found, table, shifting=shifting)
    moved = 0
    for one in (each for group in found.groups for each in table[group.id]):
        before = one.reader(shifts=True)
        after = weighing.weighed(one, before, heard)
        assert energies(after).sum() == pytest.approx(energies(before).sum())
        for makes in heard.get((one.slot.node, one.slot.initializer), ()):
            by_channel = energies(after).reshape(len(makes.slot.units), -1).sum(1)
            mine = makes.slot.units >= 0
            counts = np.bincount(makes.slot.units[mine], by_channel[mine])
            assert counts / counts.sum() == pytest.approx(makes.shares, abs=1e-9)
            moved += 1
    assert moved > 30


def studied(model: onnx.ModelProto, rows: list[dict[str, Any]]) -> planning.Study:
    known = parts.divide(Evidence(lambda: iter(rows)), most=9999)
    found = channels.find(model, sample=rows[0])
    return planning.study(model, found, by="activations", parts=known, sensitive=False)


def test_units_that_only_make_what_nobody_reads_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    rows = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(24)]
    model = unheard()
    group = next(one for one in channels.find(model).groups if one.width == 8)
    assert studied(model, rows).orders[group.id].kept(4) == (4, 5, 6, 7)
    monkeypatch.setattr(weighing, "makers", lambda *_, **__: {})
    assert studied(model, rows).orders[group.id].kept(4) == (0, 1, 2, 3)
