"""Cutting and joining gives the same bytes, and nothing expands without end."""

import contextlib
import hashlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Corrupt
from agent.protocol import chunking


@given(st.binary(min_size=1, max_size=5000), st.sampled_from(["raw", "zstd"]))
def test_a_chunk_comes_back(plain: bytes, encoding: chunking.Encoding) -> None:
    sent = chunking.encode(plain, encoding)
    assert chunking.decode(sent, encoding, plain_bytes=len(plain)) == plain


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
def test_incompressible_chunks_fit_a_message(encoding: chunking.Encoding) -> None:
    seed, noise = b"x", b""
    while len(noise) < chunking.CHUNK_BYTES:
        seed = hashlib.sha256(seed).digest()
        noise += seed
    plain = noise[: chunking.PLAIN_BYTES[encoding]]
    assert len(chunking.encode(plain, encoding)) <= chunking.CHUNK_BYTES


def test_a_bomb_is_stopped_at_the_bound() -> None:
    bomb = zstandard.compress(bytes(2**20))
    with pytest.raises(Corrupt, match="1001 bytes after decoding, not 1000"):
        chunking.decode(bomb, "zstd", plain_bytes=1000)
    with pytest.raises(Corrupt, match="too much memory"):  # a window of 64 MiB
        chunking.decode(zstandard.compress(bytes(64 * 2**20)), "zstd", plain_bytes=1000)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(sent: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert len(chunking.decode(sent, "zstd", plain_bytes=64)) == 64


@pytest.mark.parametrize(
    ("count", "depth"), [(1, 1), (3840, 1), (3841, 2), (3840 * 2, 2), (20_000, 2)]
)
def test_an_index_nests_where_it_must(count: int, depth: int) -> None:
    hashes = [chunking.sha256(str(i).encode()) for i in range(count)]
    blobs, found = chunking.index_blobs(hashes)
    assert found == depth
    assert all(len(blob) <= chunking.CHUNK_BYTES for blob in blobs)
    by_name = {chunking.sha256(blob): blob for blob in blobs}
    names = [chunking.sha256(blobs[-1])]
    for _ in range(depth):
        names = [name for blob in names for name in chunking.split_index(by_name[blob])]
    assert names == hashes
    assert len(chunking.index_lengths(count)) == depth


@pytest.mark.parametrize("blob", [b"", b"x" * 31, b"x" * 33])
def test_refuses_an_index_of_no_whole_hashes(blob: bytes) -> None:
    with pytest.raises(Corrupt):
        list(chunking.split_index(blob))


@given(st.integers(1, 10**9), st.integers(1024, chunking.CHUNK_BYTES))
def test_the_chunks_add_up_to_the_file(size: int, chunk: int) -> None:
    count = chunking.chunk_count(size, chunk)
    last = chunking.chunk_length(count - 1, size_bytes=size, chunk_bytes=chunk)
    assert (count - 1) * chunk + last == size
    assert 1 <= last <= chunk
