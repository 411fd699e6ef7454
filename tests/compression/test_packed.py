"""A packed model is the same model to the last bit, and what is not one is told in a line."""

import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import graph, runtime
from compression.errors import BadModel
from compression.packed import layout, reading, spans, writing
from tests.simulators import models

DTYPES = ("f4", "f8", "i1", "u1", "i2", "i4", "i8", "f2", "?")


def holding(*arrays: np.ndarray) -> bytes:
    """A model that holds these constants, one of them in the body of an If."""
    tensors = [numpy_helper.from_array(array, f"w{at}") for at, array in enumerate(arrays)]
    value = helper.make_tensor_value_info("y", tensors[0].data_type, None)
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=tensors[-1])], "body", [], [value]
    )
    node = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
    given = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    whole = helper.make_graph([node], "g", [given], [value], tensors[:-1])
    return helper.make_model(whole).SerializeToString()


def written(folder: Path, content: bytes, name: str = "model.onnx.packed") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@st.composite
def constants(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(0, 3000))
    raw = rng.integers(0, 256, count * 8, np.uint8).view(draw(st.sampled_from(DTYPES)))[:count]
    share = draw(st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]))
    filled = raw.copy()
    if count:
        filled[rng.random(count) < share] = draw(st.sampled_from([raw[0], raw[0] * 0]))
    return filled


@settings(deadline=None)
@given(st.lists(constants(), min_size=1, max_size=4))
def test_what_was_packed_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[np.ndarray]
) -> None:
    plain = holding(*arrays)
    path = written(tmp_path_factory.getbasetemp(), writing.pack(plain))
    assert reading.expand(path) == plain
    assert reading.expanded_bytes(path) == len(plain)


@pytest.mark.parametrize("count", [1, 60])
def test_many_small_constants_take_no_more_than_the_whole_in_one_frame(count: int) -> None:
    rng = np.random.default_rng(count)
    arrays = [rng.normal(0, 9, 700).round().astype("i1") for _ in range(count)]
    plain = holding(*arrays)
    frame = zstandard.ZstdCompressor(level=writing.SMALL_LEVEL).compress(plain)
    assert len(writing.pack(plain)) <= len(frame) + 64  # its head


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, plain: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), writing.pack(plain or b"\0"))
    assert reading.expand(path) == (plain or b"\0")


def test_zeros_nans_and_negative_zeros_keep_their_bits(tmp_path: Path) -> None:
    odd = np.zeros(5000, np.float32)
    odd[::7], odd[::11], odd[::13] = -0.0, np.nan, np.inf
    odd.view(np.uint32)[3] = 0x7FC12345  # a NaN with a message
    assert reading.expand(written(tmp_path, writing.pack(holding(odd)))) == holding(odd)


def test_constants_across_many_blocks_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "BLOCK", 64)
    weights = np.random.default_rng(0).normal(size=4001).astype(np.float32)
    weights[weights < 0.9] = 0
    packed = writing.pack(holding(weights))
    assert reading.expand(written(tmp_path, packed)) == holding(weights)
    assert len(packed) < 0.4 * weights.nbytes


@pytest.mark.parametrize(("dtype", "fill"), [(np.float32, 0), (np.int8, 0), (np.uint8, 128)])
def test_sparse_constants_cost_about_what_they_say(dtype: type, fill: int) -> None:
    rng = np.random.default_rng(0)
    weights = np.rint(30 * rng.normal(size=200_000)).clip(-127, 127) + fill
    if dtype is np.float32:
        weights = rng.normal(size=200_000)
    weights[rng.random(weights.size) < 0.9] = fill
    plain = holding(weights.astype(dtype), np.zeros(1))
    # Each element's place costs H(.1) bits, each value about 6.9 of 8 bits or 27 of 32.
    entropy = 0.469 + 0.1 * (27 if dtype is np.float32 else 6.9)
    assert len(writing.pack(plain)) < 1.06 * entropy / 8 * weights.size
    assert len(writing.pack(plain)) < 0.9 * len(zstandard.ZstdCompressor(level=19).compress(plain))


def test_constants_are_found_where_they_lie(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    plain = path.read_bytes()
    found = spans.find(plain, least_bytes=1000)
    weights = [numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    large = [one.tobytes() for one in weights if one.nbytes >= 1000]
    assert sorted(plain[one.start : one.end] for one in found) == sorted(large)
    assert {one.width for one in found} == {4}


def test_a_packed_model_answers_as_the_plain_one(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    packed = written(tmp_path, writing.pack(path.read_bytes()))
    both = [runtime.session(one) for one in (path, packed)]
    feeds = runtime.synthetic(both[0], seed=1)
    plain, expanded = (runtime.run(one, feeds)["logits"] for one in both)
    assert np.array_equal(plain, expanded)
    assert graph.load(packed) == onnx.load(path)


def test_nothing_of_an_opened_model_stays_behind(tmp_path: Path) -> None:
    packed = written(tmp_path, writing.pack(models.cnn(tmp_path / "m.onnx").read_bytes()))
    before = sorted(Path("/proc/self/fd").iterdir())
    with reading.opened(packed) as plain:
        assert plain.stat().st_size == reading.expanded_bytes(packed)
    with pytest.raises(ZeroDivisionError), reading.opened(packed):
        raise ZeroDivisionError
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "model.onnx.packed"]


def test_a_plain_file_is_opened_as_it_lies(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    with reading.opened(path) as plain:
        assert plain == path
    assert reading.expanded_bytes(path) == path.stat().st_size
    with pytest.raises(BadModel, match=r"cannot load missing\.onnx"):
        runtime.session(tmp_path / "missing.onnx")


def test_a_packed_original_is_written_whole_for_a_job(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    packed = written(tmp_path, writing.pack(path.read_bytes()))
    whole = graph.single_file(packed, tmp_path / "whole.onnx")
    assert onnx.load(whole) == onnx.load(path)


PACKED = writing.pack(holding(np.eye(64, dtype=np.float32), np.ones(400, np.int8)))


@pytest.mark.parametrize("length", [*range(9, 60), len(PACKED) // 2, len(PACKED) - 1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(BadModel, match=r"^cannot expand model\.onnx\.packed: "):
        reading.expand(written(tmp_path, PACKED[:length]))


@settings(deadline=None)
@given(at=st.integers(8, len(PACKED) - 1), flip=st.integers(1, 255))
def test_a_corrupt_byte_is_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    broken = bytearray(PACKED)
    broken[at] ^= flip
    path = written(tmp_path_factory.getbasetemp(), bytes(broken))
    try:
        found = reading.expand(path)
    except BadModel as error:
        found = str(error).encode()
    # Where a changed bit is one that nobody reads, what was packed still comes out.
    whole = reading.expand(written(path.parent, PACKED))
    assert found == whole or found.startswith(b"cannot expand model.onnx.packed: ")


def file(size: int, *parts: bytes) -> bytes:
    return b"".join([layout.MAGIC, layout.HEAD.pack(size, 0), *parts])


def part(kind: int, width: int, length: int, *streams: bytes) -> bytes:
    coded = [layout.STREAM.pack(len(one)) + one for one in streams]
    return b"".join([layout.PART.pack(kind, width, bytes(8), length), *coded])


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(2**26))
HOSTILE = {
    "more than memory holds": (file(2**40), "are the most"),
    "a thousandfold": (file(2**31 - 1, bytes(1000)), "are the most"),
    "a bomb of a stream": (file(4000, part(layout.PLAIN, 1, 4000, BOMB[:3999])), "cannot expand"),
    "a frame that gives more": (
        file(9000, part(layout.PLAIN, 1, 9000, zstandard.ZstdCompressor().compress(bytes(9001)))),
        "does not expand to 9000",
    ),
    "a frame that gives less": (
        file(9000, part(layout.PLAIN, 1, 9000, zstandard.ZstdCompressor().compress(bytes(8999)))),
        "does not expand to 9000",
    ),
    "a part beyond the end": (file(10, part(layout.PLAIN, 1, 11, bytes(11))), "a part of kind 0"),
    "an endless row of empty parts": (file(10, part(layout.PLAIN, 1, 0)), "and 0 bytes"),
    "an unknown kind": (file(8, part(9, 1, 8, bytes(8))), "a part of kind 9"),
    "an odd width": (file(9, part(layout.PLANES, 3, 9, bytes(3))), "width 3"),
    "a stream longer than itself": (
        file(8, part(layout.PLAIN, 1, 8, bytes(9))), "where at most 8 are in place",
    ),
    "more values than places": (
        file(8, part(layout.SPARSE, 1, 8, b"\x01", bytes(2))), "at most 1 are in place",
    ),
    "another checksum": (file(8, part(layout.PLAIN, 1, 8, bytes(8))), "another checksum"),
    "nothing": (file(0), "it is empty"),
    "a window of gigabytes": (
        file(
            2**20,
            part(layout.PLAIN, 1, 2**20, struct.pack("<IBB", 0xFD2FB528, 0, 0xF8) + bytes(60)),
        ),
        "cannot expand",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, what: str) -> None:
    content, why = HOSTILE[what]
    with pytest.raises(BadModel, match=why):
        reading.expand(written(tmp_path, content))


def test_what_follows_the_last_part_is_refused(tmp_path: Path) -> None:
    whole = bytes(8)
    content = layout.MAGIC + layout.HEAD.pack(8, zlib.crc32(whole))
    content += part(layout.PLAIN, 1, 8, whole)
    assert reading.expand(written(tmp_path, content)) == whole
    with pytest.raises(BadModel, match="something follows"):
        reading.expand(written(tmp_path, content + b"?"))


def test_zeros_without_end_are_not_packed() -> None:
    with pytest.raises(BadModel, match="are the most"):
        writing.pack(bytes(2**25))
