"""Inputs on disk: read one at a time, and every bad file has its one clear error."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import samples
from compression.errors import BadInputs
from compression.job import InputSpec

X = InputSpec(name="x", dtype="float32", shape=(-1, 3))


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_samples_with_a_batch_axis(tmp_path: Path, save) -> None:
    data = np.arange(12, dtype=np.float32).reshape(4, 3)
    save(tmp_path / "i.npz", x=data, **{"::labels": np.arange(4)})
    with samples.open_samples(tmp_path / "i.npz", [X]) as opened:
        assert len(opened) == 4
        assert np.array_equal(opened.sample(2)["x"], data[2:3])
        assert opened.labels().tolist() == [0, 1, 2, 3]
        assert opened.shapes(0) == {"x": (1, 3)}


def test_reads_ragged_samples_of_either_rank(tmp_path: Path) -> None:
    spec = InputSpec(name="x", dtype="float32", shape=(-1, 1, -1))
    parts = {
        "x::0000": np.ones((1, 5), np.float32),
        "x::0001": np.ones((1, 1, 7), np.float32),
    }
    with samples.open_samples(saved(tmp_path / "i.npz", **parts), [spec]) as opened:
        assert [opened.sample(i)["x"].shape for i in range(2)] == [(1, 1, 5), (1, 1, 7)]
        assert opened.largest() == 1


def test_a_fixed_leading_dim_takes_that_many_rows(tmp_path: Path) -> None:
    spec = InputSpec(name="x", dtype="float32", shape=(2, 3))
    data = np.arange(12, dtype=np.float32).reshape(4, 3)
    with samples.open_samples(saved(tmp_path / "i.npz", x=data), [spec]) as opened:
        assert len(opened) == 2
        assert np.array_equal(opened.sample(1)["x"], data[2:])


def test_fortran_order_reads_as_what_was_meant(tmp_path: Path) -> None:
    data = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    with samples.open_samples(saved(tmp_path / "i.npz", x=data), [X]) as opened:
        assert np.array_equal(opened.sample(3)["x"], data[3:4])


def test_a_probe_carries_inputs_and_expected_outputs(tmp_path: Path) -> None:
    rows = [{"x": np.full((1, 3), i, np.float32)} for i in range(3)]
    outputs = [{"y": np.full((1, 2), -i, np.float32)} for i in range(3)]
    samples.write(tmp_path / "p.npz", rows, expected=outputs)
    with samples.open_samples(tmp_path / "p.npz", [X]) as opened:
        assert np.array_equal(opened.sample(2)["x"], rows[2]["x"])
        assert np.array_equal(opened.expected(2)["y"], outputs[2]["y"])


good = np.ones((2, 3), np.float32)
BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "missing": ({"::labels": np.ones(2)}, "cannot find array 'x'"),
    "unknown": ({"x": good, "z": good}, "array 'z' is no input of the model"),
    "dtype": ({"x": good.astype("f8")}, "input 'x' is float64, the model wants float32"),
    "shape": ({"x": np.ones((2, 4), np.float32)}, r"samples of shape \[1, 4\]"),
    "rank": ({"x": np.ones((2, 3, 1, 1), np.float32)}, "samples of shape"),
    "objects": ({"x": np.array([{}, {}], object)}, "object"),
    "none": ({"x": np.ones((0, 3), np.float32)}, "holds no samples"),
    "scalar": ({"x": np.float32(1)}, "a single number"),
    "labels": ({"x": good, "::labels": np.ones(5)}, "labels of shape"),
    "gap": ({"x::0000": good[:1], "x::0002": good[:1]}, "cannot find array 'x::0001'"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_has_its_one_error(tmp_path: Path, name: str) -> None:
    arrays, message = BAD[name]
    with pytest.raises(BadInputs, match=message):
        samples.open_samples(saved(tmp_path / "i.npz", **arrays), [X])


def test_counts_must_agree(tmp_path: Path) -> None:
    specs = [X, InputSpec(name="y", dtype="float32", shape=(-1, 3))]
    path = saved(tmp_path / "i.npz", x=good, y=good[:1])
    with pytest.raises(BadInputs, match="different numbers of samples"):
        samples.open_samples(path, specs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_a_sample_that_is_not_finite(tmp_path: Path, value: float) -> None:
    data = good.copy()
    data[1, 2] = value
    with samples.open_samples(saved(tmp_path / "i.npz", x=data), [X]) as opened:
        opened.sample(0)
        with pytest.raises(BadInputs, match="input 'x' of sample 1 holds NaN"):
            opened.sample(1)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInputs, match="No such file"):
        samples.open_samples(tmp_path / "no.npz", [X])


@given(cut=st.integers(1, 400))
def test_refuses_a_truncated_file(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = saved(tmp_path_factory.mktemp("cut") / "i.npz", x=np.ones((20, 3), np.float32))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BadInputs):
        samples.open_samples(path, [X])


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    data = np.arange(60, dtype=np.float32).reshape(20, 3)
    path = saved(tmp_path_factory.mktemp("flip") / "i.npz", x=data)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        with samples.open_samples(path, [X]) as opened:
            assert np.array_equal(opened.sample(7)["x"], data[7:8])
    except BadInputs:
        pass


def test_refuses_a_bomb_before_unpacking_it(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(np.zeros((1000, 3000), np.float32)))
    assert path.stat().st_size < 50_000
    with pytest.raises(BadInputs, match=r"over the bound of 1\.0 MiB"):
        samples.open_samples(path, [X], most_bytes=2**20)


def test_a_header_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive:
        header = npy(np.zeros((10, 3), np.float32))[:-120].replace(b"(10, 3)", b"(99, 3)")
        archive.writestr("x.npy", header + bytes(120))
    with pytest.raises(BadInputs, match="holds 120 bytes instead of 1188"):
        samples.open_samples(path, [X])


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    spec = InputSpec(name="x", dtype="float32", shape=(-1, 1000))

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.npz"
        np.savez_compressed(path, x=np.ones((count, 1000), np.float32))
        tracemalloc.start()
        with samples.open_samples(path, [spec]) as opened:
            for index in range(count):
                opened.sample(index)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)
    assert peak(4000) < peak(500) + 200_000  # the data grow by 14 MB
