"""Fetching a file as chunks: whole or not at all, whatever the transport and the disk do."""

import asyncio
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
from agent.store.download import Fetched, fetch_file
from agent.store.sources import Source
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
    fetched = await fetch_file(
        published.ref,
        get=shelf.get,
        target=folder / "model.onnx",
        window=window,
    )
    assert (folder / "model.onnx").read_bytes() == data
    assert not fetched.damaged
    assert len(shelf.asked) == len(set(shelf.asked)) == len(published.blobs)


async def test_a_nested_index_is_followed(tmp_path: Path) -> None:
    data = a_file(3_940_000)  # 3,848 chunks of 1 KiB: more than one index blob holds
    published = publish(data)
    assert published.ref.index_depth == 2
    progress: list[tuple[int, int]] = []
    await fetch_file(
        published.ref,
        get=Shelf(published.blobs).get,
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
            published.ref, get=dies_after_30, target=tmp_path / "out",
            window=10,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    again = Shelf(published.blobs)
    await fetch_file(published.ref, get=again.get, target=tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == a_file(50_000)
    assert 0 < len(again.asked) <= len(published.blobs) - 20


async def test_a_file_that_is_already_whole_costs_nothing(tmp_path: Path) -> None:
    published = publish(a_file(5000))
    (tmp_path / "out").write_bytes(a_file(5000))
    shelf = Shelf({})
    await fetch_file(published.ref, get=shelf.get,
                     target=tmp_path / "out")  # fmt: skip
    assert shelf.asked == []


async def fetch(published: Published, shelf: Shelf, folder: Path, **options: Any) -> Fetched:
    return await fetch_file(
        published.ref,
        get=shelf.get,
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

    fetched = await fetch(published, HealsAfterwards({}), tmp_path)
    assert fetched.damaged == {victim: 1}
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


async def test_a_transport_that_brings_nothing_ends_the_fetch(tmp_path: Path) -> None:
    published = publish(a_file(20_000))
    with pytest.raises(Unavailable, match="none of 1 blobs came"):
        await fetch(published, Shelf({}), tmp_path)


def rot(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"rot")


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
async def test_a_chunk_that_the_disk_damages_is_fetched_again(
    tmp_path: Path, encoding: Encoding
) -> None:
    data = a_file(10_000) + bytes(5000)
    published = publish(data, encoding=encoding)

    class Rots(Shelf):
        async def get(self, names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
            async for item in super().get(names):
                yield item
                if len(self.asked) == 8:
                    rot(tmp_path / "out.partial", 3000)

    shelf = Rots(published.blobs)
    await fetch(published, shelf, tmp_path)
    assert (tmp_path / "out").read_bytes() == data
    assert len(shelf.asked) == len(set(shelf.asked)) + 1


async def test_what_the_disk_damaged_between_two_pulls_is_fetched_again(tmp_path: Path) -> None:
    published = publish(a_file(50_000))
    shelf = Shelf(published.blobs)

    async def dies_after_40(names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        async for item in shelf.get(names):
            if len(shelf.asked) > 40:
                raise Unavailable("cannot pull: gone")
            yield item

    with pytest.raises(Unavailable):
        await fetch_file(published.ref, get=dies_after_40, target=tmp_path / "out", window=10)
    rot(tmp_path / "out.partial", 3000)
    with (tmp_path / "out.journal").open("ab") as file:
        file.write(b"\xff" * 33)  # whole records of nonsense, and a torn one
    again = Shelf(published.blobs)
    await fetch(published, again, tmp_path)
    assert (tmp_path / "out").read_bytes() == a_file(50_000)
    assert len(again.asked) == len(published.blobs) - 40 + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.index"]


async def test_a_pull_of_another_file_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    first, second = publish(a_file(50_000)), publish(a_file(50_000, seed=2))
    with pytest.raises(Unavailable, match="none came"):
        await fetch(first, Shelf({first.ref.index: first.blobs[first.ref.index]}), tmp_path)
    await fetch(second, Shelf(second.blobs), tmp_path)
    assert (tmp_path / "out").read_bytes() == a_file(50_000, seed=2)


async def test_chunks_that_an_older_version_has_do_not_travel(tmp_path: Path) -> None:
    old = a_file(100_000)
    new = old[:50_176] + a_file(2_000, seed=2) + old[52_176:]  # the middle has changed
    for encoding in ("raw", "zstd"):
        before, after = publish(old, encoding=encoding), publish(new, encoding=encoding)
        folder = tmp_path / encoding
        await fetch_file(before.ref, get=Shelf(before.blobs).get, target=folder / "1")
        shelf = Shelf(after.blobs)
        fetched = await fetch_file(
            after.ref, get=shelf.get, target=folder / "2", has=[Source(before.ref, folder / "1")]
        )
        assert (folder / "2").read_bytes() == new
        assert len(shelf.asked) == fetched.pulled + 1 <= 4  # with the index
        assert fetched.reused == len(set(before.blobs) & set(after.blobs))


async def test_the_same_file_in_another_version_costs_neither_link_nor_disk(
    tmp_path: Path,
) -> None:
    published = publish(a_file(5000))
    await fetch(published, Shelf(published.blobs), tmp_path)
    has = [Source(published.ref, tmp_path / "out")]
    await fetch_file(published.ref, get=Shelf({}).get, target=tmp_path / "twin", has=has)
    assert (tmp_path / "twin").samefile(tmp_path / "out")


async def test_an_older_version_that_lies_about_its_chunks_is_not_believed(
    tmp_path: Path,
) -> None:
    """With zstd the names say nothing of the plain bytes: the sum of the whole file does."""
    old, new = a_file(20_000) + bytes(4000), a_file(20_000) + bytes(4000) + b"new"
    before, after = (publish(data, encoding="zstd") for data in (old, new))
    await fetch_file(before.ref, get=Shelf(before.blobs).get, target=tmp_path / "1")
    rot(tmp_path / "1", 3000)
    shelf = Shelf(after.blobs)
    has = [Source(before.ref, tmp_path / "1")]
    await fetch_file(after.ref, get=shelf.get, target=tmp_path / "2", has=has)
    assert (tmp_path / "2").read_bytes() == new
    assert len(shelf.asked) == len(after.blobs)


async def test_a_pull_is_cancelled_at_any_moment_and_goes_on_with_what_it_has(
    tmp_path: Path,
) -> None:
    published = publish(a_file(60_000))
    asked = 0
    for moment in range(0, 60, 7):
        shelf = Shelf(published.blobs)

        async def slow(names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
            async for item in shelf.get(names):  # noqa: B023 - called before the next turn
                await asyncio.sleep(0)
                yield item

        pull = asyncio.create_task(
            fetch_file(published.ref, get=slow, target=tmp_path / "out", window=4)
        )
        while not pull.done() and len(shelf.asked) < moment:
            await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait({pull})
        asked += len(shelf.asked)
    shelf = Shelf(published.blobs)
    await fetch(published, shelf, tmp_path)
    assert (tmp_path / "out").read_bytes() == a_file(60_000)
    # Each cancelled pull loses at most the chunk that it was handing over.
    assert asked + len(shelf.asked) <= len(published.blobs) + 9
