"""Fetches one file as chunks; resumes with what is there, and checks everything.

The transport is a callable: asked for chunks by name, it yields (name, payload) as they come.
What it yields is believed only once its hash fits its name, and the file once its own does.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agent.errors import Corrupt, Unavailable
from agent.protocol.manifest import FileRef
from agent.store import index, sources
from agent.store.index import ATTEMPTS, Get
from agent.store.partial import Damaged, Partial, is_whole
from agent.store.sources import Source

OnProgress = Callable[[int, int], None]
"""Called with (chunks here, chunks in all) whenever some were made durable."""
_T = TypeVar("_T")


@dataclass
class Fetched:
    """What a fetch cost: `pulled` chunks of `sent_bytes` came over the link, `reused` ones were on
    this device, `damaged` ones were asked for again."""

    pulled: int = 0
    sent_bytes: int = 0
    reused: int = 0
    damaged: Counter[str] = field(default_factory=Counter)


async def fetch_file(
    ref: FileRef,
    *,
    get: Get,
    target: Path,
    has: Sequence[Source] = (),
    window: int = 16,
    on_progress: OnProgress | None = None,
) -> Fetched:
    """Bring the file to `target`, whole and verified, or leave `target` as it was.

    `has` are files of this device whose chunks need not travel. Each `window` of chunks is
    flushed to the disk while the next one comes. Ended at any moment, also by cancelling or by a
    power cut, it goes on with what was flushed when it is called again.

    Raises:
        Unavailable: the transport or the disk.
        Corrupt: a chunk came damaged three times, or an index or the file is not what the
            manifest says.
    """
    fetched = Fetched()
    if await thread(is_whole, ref, target) or await thread(sources.link_twin, ref, target, has):
        return fetched
    names = await index.bring(ref, target, get=get)
    partial = await thread(Partial, ref, names, target)
    try:
        copied = await thread(sources.copy_chunks, partial, has)
        fetched.reused = len(copied)
        for _ in range(ATTEMPTS):
            await _bring(partial, fetched, get=get, window=window, on_progress=on_progress)
            found = await thread(partial.finish)
            if found is None:
                return fetched
            if await thread(partial.doubtful):
                continue
            if not copied:
                partial.discard()
                raise Corrupt(
                    f"cannot use {target.name}: it hashes to {found[:12]}, and the manifest says "
                    f"{ref.sha256[:12]}"
                )
            partial.forget(copied)  # the other file was not what its index says
            copied = []
        raise Corrupt(f"cannot keep {target.name}: the disk damages what is written beside it")
    finally:
        partial.close()


async def _bring(
    partial: Partial,
    fetched: Fetched,
    *,
    get: Get,
    window: int,
    on_progress: OnProgress | None,
) -> None:
    """Bring what is missing; settle after each window, while the next one comes."""
    settling: asyncio.Task[None] | None = None

    async def settle() -> None:
        await thread(partial.settle)
        if on_progress is not None:
            on_progress(partial.here, len(partial.names))

    try:
        while missing := partial.missing():
            arrived = 0
            async with contextlib.aclosing(get(missing)) as chunks:
                async for name, payload in chunks:
                    arrived += 1
                    _take(name, payload, partial, fetched)
                    if arrived % window == 0:
                        if settling is not None:
                            await settling
                        settling = asyncio.create_task(settle(), name="settle chunks")
            if settling is not None:
                await settling
                settling = None
            await settle()
            if not arrived:
                raise Unavailable(f"cannot fetch {len(missing)} chunks: none came")
    except BaseException:
        if settling is not None:
            await asyncio.gather(settling, return_exceptions=True)
        with contextlib.suppress(Unavailable):  # what came is kept, where the disk takes it
            await thread(partial.settle)
        raise


def _take(name: str, payload: bytes, partial: Partial, fetched: Fetched) -> None:
    fetched.pulled += 1
    fetched.sent_bytes += len(payload)
    try:
        partial.put_sent(name, payload)
    except Damaged as error:
        fetched.damaged[name] += 1
        if fetched.damaged[name] >= ATTEMPTS:
            raise Corrupt(f"{error} ({ATTEMPTS} times)") from error


async def thread(work: Callable[..., _T], *arguments: object) -> _T:
    """Run `work` in a thread, and see it end: cancelled, it would go on with closed files."""
    task = asyncio.create_task(asyncio.to_thread(work, *arguments), name="work on the disk")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
