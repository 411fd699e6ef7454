"""Fetches one file as chunks, in windows; resumes with what is there, and checks everything.

The transport is a callable: asked for a window of names, it yields (name, payload) as they
come. What it yields is believed only once its hash fits its name.
"""

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import Corrupt, Unavailable
from agent.protocol import chunking
from agent.protocol.manifest import FileRef
from agent.store.chunks import Chunks
from compression import durable

Get = Callable[[Sequence[str]], AsyncIterator[tuple[str, bytes]]]
OnProgress = Callable[[int, int], None]
"""Called with (chunks here, chunks in all) after each window."""
_ATTEMPTS = 3
_READ_BYTES = 1024 * 1024


@dataclass
class _Pull:
    chunks: Chunks
    get: Get
    window: int
    bad: Counter[str] = field(default_factory=Counter)


async def fetch_file(
    ref: FileRef,
    *,
    get: Get,
    into: Chunks,
    target: Path,
    window: int = 24,
    disk_reserve_bytes: int = 0,
    on_progress: OnProgress | None = None,
) -> int:
    """Bring the file to `target`, whole and verified, or leave `target` as it was.

    Returns how many chunks came damaged and were asked for again. The chunks stay in `into`;
    drop them with `collect` once they are of no more use.

    Raises:
        Unavailable: the transport, the disk, or no room beside `disk_reserve_bytes`.
        Corrupt: a chunk came damaged three times, or an index or the file is not what the
            manifest says.
    """
    if await asyncio.to_thread(_is_whole, ref, target):
        return 0
    pull = _Pull(into, get, window)
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        names = await _read_index(ref, pull)
        missing = into.missing(names)
        _check_room(ref, target, missing_chunks=len(missing), reserve_bytes=disk_reserve_bytes)
        await _bring(names, pull, on_progress=on_progress)
        if await asyncio.to_thread(_assemble, ref, names, into, target):
            return pull.bad.total()
    raise Corrupt(f"cannot keep {target.name}: the disk damages what is written to {target.parent}")


async def _read_index(ref: FileRef, pull: _Pull) -> list[str]:
    """Bring the index level by level, from the top down; return the names of the chunks."""
    levels = chunking.index_lengths(chunking.chunk_count(ref.size_bytes, ref.chunk_bytes))
    if len(levels) != ref.index_depth:
        raise Corrupt(
            f"cannot use the index {ref.index[:12]}: depth {ref.index_depth} in the manifest, "
            f"{len(levels)} by its size of {ref.size_bytes} bytes"
        )
    names = [ref.index]
    for length in reversed(levels):
        await _bring(names, pull)
        below = [name for blob in names for name in _hashes(blob, pull.chunks)]
        if len(below) != length:
            raise Corrupt(
                f"cannot use the index {ref.index[:12]}: {len(below)} hashes where {length} belong"
            )
        names = below
    return names


def _hashes(name: str, chunks: Chunks) -> list[str]:
    blob = chunks.get(name)
    if blob is None:
        raise Unavailable(f"cannot read index blob {name[:12]} back from the disk")
    return list(chunking.split_index(blob))


async def _bring(
    names: Sequence[str], pull: _Pull, *, on_progress: OnProgress | None = None
) -> None:
    """Bring what is missing of `names` into the chunk store, window by window."""
    total = len(set(names))
    queue = pull.chunks.missing(names)
    while queue:
        wanted, arrived = queue[: pull.window], 0
        async for name, payload in pull.get(wanted):
            arrived += 1
            try:
                pull.chunks.put(name, payload)
            except Corrupt as error:
                pull.bad[name] += 1
                if pull.bad[name] >= _ATTEMPTS:
                    raise Corrupt(f"{error} ({_ATTEMPTS} times)") from error
        await asyncio.to_thread(pull.chunks.settle)
        if not arrived:
            raise Unavailable(f"cannot fetch {len(queue)} chunks: none of {len(wanted)} came")
        queue = pull.chunks.missing(wanted) + queue[pull.window :]
        if on_progress is not None:
            on_progress(total - len(queue), total)


def _check_room(ref: FileRef, target: Path, *, missing_chunks: int, reserve_bytes: int) -> None:
    """The file itself and the chunks still to come must fit beside the reserve."""
    needed = ref.size_bytes + missing_chunks * ref.chunk_bytes
    free = shutil.disk_usage(target.parent).free
    if needed + reserve_bytes > free:
        raise Unavailable(
            f"cannot fetch {target.name}: it needs {_mib(needed)} beside a reserve of "
            f"{_mib(reserve_bytes)}, and {_mib(free)} are free on {target.parent}"
        )


def _assemble(ref: FileRef, names: Sequence[str], chunks: Chunks, target: Path) -> bool:
    """Decode into a file beside the target, check it, rename it; False where a chunk was lost."""
    partial = target.with_name(target.name + ".partial")
    whole = hashlib.sha256()
    try:
        with partial.open("wb") as out:
            for position, name in enumerate(names):
                sent = chunks.get(name)
                if sent is None:
                    return False
                length = chunking.chunk_length(
                    position, size_bytes=ref.size_bytes, chunk_bytes=ref.chunk_bytes
                )
                plain = chunking.decode(sent, ref.encoding, plain_bytes=length)
                whole.update(plain)
                out.write(plain)
            out.flush()
            os.fsync(out.fileno())
        if whole.hexdigest() != ref.sha256:
            raise Corrupt(
                f"cannot use {target.name}: it hashes to {whole.hexdigest()[:12]}, and the "
                f"manifest says {ref.sha256[:12]}"
            )
        partial.replace(target)
        durable.sync_folder(target.parent)
    except OSError as error:
        raise Unavailable(f"cannot write {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return True


def _is_whole(ref: FileRef, target: Path) -> bool:
    try:
        if target.stat().st_size != ref.size_bytes:
            return False
        whole = hashlib.sha256()
        with target.open("rb") as file:
            while block := file.read(_READ_BYTES):
                whole.update(block)
    except OSError:
        return False
    return whole.hexdigest() == ref.sha256


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
