"""Fetching a file as chunks: whole or not at all, whatever the transport and the disk do."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import Corrupt, Unavailable
from agent.protocol import chunking
from agent.protocol.chunking import Encoding
from agent.protocol.manifest import FileRef
from agent.store.chunks import Chunks
from agent.store.download import fetch_file
from tests.store.files import Published, Shelf, a_file, publish


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(1, 40_000),
    chunk_bytes=st.integers(1024, 9000),
    encoding=st.sampled_from(["raw", "zstd"]),
    window=st.integers(1, 32),
    repetitive=st.booleans(),
)
async def test_what_was_published_is_what_arrives(
    *,
    size: int,
    chunk_bytes: int,
    encoding: Encoding,
    window: int,
    repetitive: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = bytes(size) if repetitive else a_file(size)
    published = publish(data, chunk_bytes=chunk_bytes, encoding=encoding)
    folder = tmp_path_factory.mktemp("f")
    shelf = Shelf(published.blobs)
    damaged = await fetch_file(
        published.ref,
        get=shelf.get,
        into=Chunks(folder / "chunks"),
        target=folder / "model.onnx",
        window=window,
    )
    assert (folder / "model.onnx").read_bytes() == data
    assert damaged == 0
    assert len(shelf.asked) == len(set(shelf.asked)) == len(published.blobs)
    assert max(shelf.windows) <= window


async def test_a_nested_index_is_followed(tmp_path: Path) -> None:
    data = a_file(3_940_000)  # 3,848 chunks of 1 KiB: more than one index blob holds
    published = publish(data)
    assert published.ref.index_depth == 2
    progress: list[tuple[int, int]] = []
    await fetch_file(
        published.ref,
        get=Shelf(published.blobs).get,
        into=Chunks(tmp_path / "chunks"),
        target=tmp_path / "out",
        window=32,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert (tmp_path / "out").read_bytes() == data
    assert progress[-1] == (3848, 3848)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


async def test_resumes_by_what_is_there_and_asks_for_nothing_twice(tmp_path: Path) -> None:
    published = publish(a_file(50_000))
    shelf = Shelf(published.blobs)

    async def dies_after_30(names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        async for item in shelf.get(names):
            if len(shelf.asked) > 30:
                raise Unavailable("cannot pull: gone")
            yield item

    with pytest.raises(Unavailable):
        await fetch_file(
            published.ref, get=dies_after_30, into=Chunks(tmp_path / "c"), target=tmp_path / "out",
            window=10,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    again = Shelf(published.blobs)
    await fetch_file(
        published.ref, get=again.get, into=Chunks(tmp_path / "c"), target=tmp_path / "out"
    )
    assert (tmp_path / "out").read_bytes() == a_file(50_000)
    assert 0 < len(again.asked) <= len(published.blobs) - 20


async def test_a_file_that_is_already_whole_costs_nothing(tmp_path: Path) -> None:
    published = publish(a_file(5000))
    (tmp_path / "out").write_bytes(a_file(5000))
    shelf = Shelf({})
    await fetch_file(published.ref, get=shelf.get, into=Chunks(tmp_path / "c"),
                     target=tmp_path / "out")  # fmt: skip
    assert shelf.asked == []


async def fetch(published: Published, shelf: Shelf, folder: Path, **options: Any) -> int:
    return await fetch_file(
        published.ref,
        get=shelf.get,
        into=Chunks(folder / "chunks"),
        target=folder / "out",
        **options,
    )


async def test_a_chunk_that_stays_damaged_is_asked_for_three_times_and_named(
    tmp_path: Path,
) -> None:
    published = publish(a_file(20_000))
    victim = chunking.sha256(a_file(20_000)[1024:2048])
    shelf = Shelf(published.blobs | {victim: b"x" * 1024})
    with pytest.raises(Corrupt, match=rf"cannot accept chunk {victim[:12]}.*\(3 times\)"):
        await fetch(published, shelf, tmp_path)
    assert shelf.asked.count(victim) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda _: b"", lambda b: b"\0" + b[1:]])
async def test_a_chunk_damaged_once_is_counted_and_fetched_again(
    damage: Any, tmp_path: Path
) -> None:
    published = publish(a_file(20_000))
    victim = chunking.sha256(a_file(20_000)[:1024])
    shelf = Shelf(dict(published.blobs))
    shelf.blobs[victim] = damage(shelf.blobs[victim])

    class HealsAfterwards(Shelf):
        async def get(self, names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
            async for item in shelf.get(names):
                yield item
                if item[0] == victim:
                    shelf.blobs[victim] = published.blobs[victim]

    assert await fetch(published, HealsAfterwards({}), tmp_path) == 1
    assert (tmp_path / "out").read_bytes() == a_file(20_000)


def with_index(published: Published, blob: bytes, **changes: object) -> Published:
    """The same file under another index."""
    name = chunking.sha256(blob)
    ref = FileRef.model_validate(published.ref.model_dump() | {"index": name} | changes)
    return Published(ref, published.blobs | {name: blob})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blob: blob[:-1], "not a multiple of 32"),
        (lambda blob: blob[:-32], "19 hashes where 20 belong"),
        (lambda blob: blob + blob[:32], "21 hashes where 20 belong"),
    ],
)
async def test_an_index_of_another_length_is_corrupt(
    change: Any, message: str, tmp_path: Path
) -> None:
    published = publish(a_file(20_000))
    short = with_index(published, change(published.blobs[published.ref.index]))
    with pytest.raises(Corrupt, match=message):
        await fetch(short, Shelf(short.blobs), tmp_path)


async def test_an_index_depth_that_does_not_fit_the_size_is_corrupt(tmp_path: Path) -> None:
    published = publish(a_file(20_000))
    deep = with_index(published, published.blobs[published.ref.index], index_depth=3)
    with pytest.raises(Corrupt, match="depth 3 in the manifest, 1 by its size"):
        await fetch(deep, Shelf(deep.blobs), tmp_path)


async def test_chunks_in_another_order_make_another_file(tmp_path: Path) -> None:
    published = publish(a_file(20_000))
    index = published.blobs[published.ref.index]
    swapped = with_index(published, index[32:64] + index[:32] + index[64:])
    with pytest.raises(Corrupt, match="cannot use out: it hashes to"):
        await fetch(swapped, Shelf(swapped.blobs), tmp_path)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("window_log", "message"),
    [(17, "3001 bytes after decoding, not 3000"), (24, "requires too much memory")],
)
async def test_a_zstd_bomb_is_stopped_at_its_bound(
    window_log: int, message: str, tmp_path: Path
) -> None:
    how = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
    bomb = zstandard.ZstdCompressor(compression_params=how).compress(bytes(200 * 2**20))
    assert len(bomb) < chunking.CHUNK_BYTES
    published = publish(a_file(3000), chunk_bytes=3000, encoding="zstd")
    name = chunking.sha256(bomb)
    hostile = with_index(published, bytes.fromhex(name))
    hostile.blobs[name] = bomb
    with pytest.raises(Corrupt, match=message):
        await fetch(hostile, Shelf(hostile.blobs), tmp_path)


async def test_a_disk_without_room_is_named_with_figures(tmp_path: Path) -> None:
    published = publish(a_file(20_000))
    with pytest.raises(Unavailable, match=r"needs 0\.0 MiB beside a reserve of .*are free"):
        await fetch(published, Shelf(published.blobs), tmp_path, disk_reserve_bytes=2**60)


async def test_a_transport_that_brings_nothing_ends_the_fetch(tmp_path: Path) -> None:
    published = publish(a_file(20_000))
    with pytest.raises(Unavailable, match="none of 1 came"):
        await fetch(published, Shelf({}), tmp_path)


async def test_a_chunk_lost_from_the_disk_before_assembly_is_fetched_again(
    tmp_path: Path,
) -> None:
    published = publish(a_file(20_000))
    shelf = Shelf(published.blobs)
    victim = chunking.sha256(a_file(20_000)[:1024])

    def damage_once(done: int, total: int) -> None:
        if done == total and shelf.asked.count(victim) == 1:
            (path,) = (tmp_path / "chunks").glob(f"??/{victim}")
            path.write_bytes(b"rot")

    await fetch(published, shelf, tmp_path, on_progress=damage_once)
    assert (tmp_path / "out").read_bytes() == a_file(20_000)
    assert shelf.asked.count(victim) == 2


_FETCHER = """
import asyncio, os, sys
from pathlib import Path
from agent.store.chunks import Chunks
from agent.store.download import fetch_file
from tests.store.files import Shelf, a_file, publish
folder, deadly = Path(sys.argv[1]), int(sys.argv[2])
published = publish(a_file(100_000))
calls = 0
def dying(call):
    # Every write, rename and sync is a moment at which the power may go.
    def wrapper(*arguments, **options):
        global calls
        calls += 1
        if calls == deadly:
            os._exit(9)
        return call(*arguments, **options)
    return wrapper
for name in ("write_bytes", "replace", "mkdir"):
    setattr(Path, name, dying(getattr(Path, name)))
for name in ("fdatasync", "fsync"):
    setattr(os, name, dying(getattr(os, name)))
asyncio.run(fetch_file(published.ref, get=Shelf(published.blobs).get,
                       into=Chunks(folder / "chunks"), target=folder / "out"))
print(calls)
"""


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    def run(folder: Path, deadly: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _FETCHER, str(folder), str(deadly)],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
            env={**os.environ},
        )  # fmt: skip

    whole = run(tmp_path / "whole", 10**9)
    moments = int(whole.stdout)
    for deadly in sorted({2, moments // 3, moments // 2, moments - 2, moments - 1, moments}):
        folder = tmp_path / str(deadly)
        assert run(folder, deadly).returncode == 9
        assert run(folder, 10**9).returncode == 0
        assert (folder / "out").read_bytes() == a_file(100_000)
