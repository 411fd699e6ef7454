"""Which samples calibrate, choose and report: disjoint, whole sources, the same every time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import report, samples
from compression.calibration import splits
from compression.calibration.material import Material
from compression.errors import BadInputs
from compression.job import CompressJob, InputSpec
from tests.compression import parent
from tests.simulators import models

X = InputSpec(name="x", dtype="float32", shape=(-1, 3))


def parts(found: splits.Splits) -> tuple[splits.Indices, ...]:
    return found.calibrating, found.choosing, found.reporting


@given(count=st.integers(3, 300), seed=st.integers(0, 9))
def test_parts_are_disjoint_complete_and_repeatable(count: int, seed: int) -> None:
    found = splits.divide(range(count), seed=seed)
    assert sorted(index for part in parts(found) for index in part) == list(range(count))
    assert all(parts(found))
    assert found == splits.divide(range(count), seed=seed)
    for part, share in zip(parts(found), splits.SHARES, strict=True):
        assert abs(len(part) - share * count) <= 1
        assert list(part) == sorted(part)


@given(
    sources=st.lists(st.integers(0, 12), min_size=1, max_size=200),
    seed=st.integers(0, 3),
    most=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
)
def test_no_source_is_in_two_parts(
    sources: list[int], seed: int, most: tuple[int, int, int]
) -> None:
    found = splits.divide(range(len(sources)), seed=seed, sources=sources, most=most)
    seen = [{sources[index] for index in part} for part in parts(found)]
    assert all(seen)
    assert found.sources == len(set(sources))
    if found.sources >= 3:
        assert not seen[0] & seen[1]
        assert not seen[1] & seen[2]
        assert not seen[0] & seen[2]
    elif found.sources == 2:
        assert seen[0] == seen[1]
        assert not seen[1] & seen[2]
    for part, bound in zip(parts(found), most, strict=True):
        assert len(part) <= bound


def test_a_bounded_part_takes_from_every_source_before_it_takes_two_of_one() -> None:
    sources = [index // 10 for index in range(300)]
    found = splits.divide(range(300), seed=0, sources=sources, most=(10, 300, 300))
    assert len({sources[index] for index in found.calibrating}) == 10


def test_copies_are_used_once_wherever_they_lie() -> None:
    digests = [b"a", b"b", b"a", b"c", b"b", b"d", b"a"]
    found = splits.divide(digests, seed=0, sources=[0, 1, 2, 3, 4, 5, 6])
    assert sorted(index for part in parts(found) for index in part) == [0, 1, 3, 5]
    assert (found.sources, found.copies) == (4, 3)


def test_a_part_without_a_share_stays_empty() -> None:
    found = splits.divide(range(11), seed=0, shares=(0.5, 0.5, 0.0))
    assert found.reporting == ()
    assert {len(found.calibrating), len(found.choosing)} == {5, 6}


@pytest.mark.parametrize(
    ("count", "distinct", "split", "words"),
    [
        (1, 1, "calibration", "the same ones do all"),
        (20, 1, "calibration", "19 equal to another left out; too few to keep apart"),
        (2, 2, "held-out", "the same ones calibrate and choose"),
        (3, 3, "held-out", "inputs: 1 calibrate, 1 choose, 1 report (held-out)"),
    ],
)
def test_too_few_samples_are_used_and_said_to_be_too_few(
    tmp_path: Path, count: int, distinct: int, split: str, words: str
) -> None:
    model = models.mlp(tmp_path / "m.onnx")
    rows = models.sample_inputs(model, distinct)["x"]
    np.savez(tmp_path / "i.npz", x=np.repeat(rows, count // distinct, 0))
    job = CompressJob(
        model_name="m", model_path=str(model), calibration_path=str(tmp_path / "i.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path),
    )  # fmt: skip
    material = Material.open(job, tmp_path)
    material.close()
    assert material.division.split == split
    assert material.division.apart is (count == 3)
    assert len(material.report) == 1
    assert words in report.division(material.division)


def test_sources_are_read_beside_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "i.npz"
    np.savez(path, **{"x": np.zeros((4, 3), np.float32), "::source": np.array([7, 7, 2, -1])})
    with samples.open_samples(path, [X]) as opened:
        assert opened.sources() == (7, 7, 2, -1)
    np.savez(path, x=np.zeros((4, 3), np.float32))
    with samples.open_samples(path, [X]) as opened:
        assert opened.sources() is None


@pytest.mark.parametrize("source", [np.zeros(3, np.int64), np.zeros(4), np.zeros((4, 1), int)])
def test_refuses_sources_that_are_not_one_whole_number_a_sample(
    tmp_path: Path, source: np.ndarray
) -> None:
    path = tmp_path / "i.npz"
    np.savez(path, **{"x": np.zeros((4, 3), np.float32), "::source": source})
    with pytest.raises(BadInputs, match="one whole number for each of the 4 samples"):
        samples.open_samples(path, [X])


def test_what_the_other_parts_leave_of_many_samples_is_for_fitting() -> None:
    found = splits.divide(range(3000), seed=0)
    calibrating, choosing, reporting = parts(found)
    assert [len(part) for part in parts(found)] == list(splits.MOST)
    assert len(found.fitting) == splits.MOST_FITTING
    assert set(calibrating) <= set(found.fitting)
    assert not set(found.fitting) & {*choosing, *reporting}


@given(
    sources=st.lists(st.integers(0, 9), min_size=10, max_size=200),
    most=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
def test_weights_are_fitted_to_no_source_that_chooses_or_reports(
    sources: list[int], most: tuple[int, int, int]
) -> None:
    found = splits.divide(range(len(sources)), seed=1, sources=sources, most=most)
    assert set(found.calibrating) <= set(found.fitting)
    if found.sources >= 3:
        fitted = {sources[at] for at in found.fitting}
        assert not fitted & {sources[at] for at in (*found.choosing, *found.reporting)}


def test_many_inputs_reach_what_fits_weights_and_no_other_pass(tmp_path: Path) -> None:
    model = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", **models.sample_inputs(model, 1200))
    job = CompressJob(
        model_name="m", model_path=str(model), calibration_path=str(tmp_path / "i.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path),
    )  # fmt: skip
    material = Material.open(job, tmp_path)
    try:
        assert sum(1 for _ in material.evidence.feeds()) == splits.MOST[0]
        assert sum(1 for _ in material.evidence.wide.feeds()) == 1200 - sum(splits.MOST[1:])
        assert "weights may be fitted to 500" in report.division(material.division)
        material.pace(once_s=0.01, within_s=300)
        calibrating, fitted = material.calibration, material.fitting
        assert len(calibrating) < len(fitted) < 500
        assert set(calibrating) <= set(fitted)
        assert sum(1 for _ in material.evidence.wide.feeds()) == material.division.fitting
    finally:
        material.close()
