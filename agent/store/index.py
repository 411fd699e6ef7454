"""The chunk names of a file: brought level by level, and kept beside the file (NAME.index).

What is kept serves twice: a pull that was cut does not ask for it again, and a later version
finds in it which of its chunks are on this device already.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from agent.errors import Corrupt, Unavailable
from agent.protocol import chunking
from agent.protocol.manifest import FileRef
from agent.store import disk
from compression import durable

Get = Callable[[Sequence[str]], AsyncGenerator[tuple[str, bytes], None]]
"""Asked for blobs by name, it yields (name, payload) as they come; nothing of it is believed."""
ATTEMPTS = 3


async def bring(ref: FileRef, target: Path, *, get: Get) -> list[str]:
    """The names of the chunks of `target`, in order: kept here, or by way of `get`.

    Raises:
        Unavailable: the transport or the disk.
        Corrupt: a blob came damaged three times, or the index is not what the manifest says.
    """
    kept = load(ref, target)
    if kept is not None:
        return kept
    levels = chunking.index_lengths(chunking.chunk_count(ref.size_bytes, ref.chunk_bytes))
    if len(levels) != ref.index_depth:
        raise Corrupt(
            f"cannot use the index {ref.index[:12]}: depth {ref.index_depth} in the manifest, "
            f"{len(levels)} by its size of {ref.size_bytes} bytes"
        )
    names = [ref.index]
    for length in reversed(levels):
        blobs = await _blobs(names, get)
        names = [name for blob in names for name in chunking.split_index(blobs[blob])]
        if len(names) != length:
            raise Corrupt(
                f"cannot use the index {ref.index[:12]}: {len(names)} hashes where {length} belong"
            )
    with disk.trouble(f"keep the index of {target.name}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(disk.beside(target, "index"), b"".join(map(bytes.fromhex, names)))
    return names


def load(ref: FileRef, target: Path) -> list[str] | None:
    """The names kept beside `target`, where they are those that `ref` means."""
    try:
        kept = disk.beside(target, "index").read_bytes()
    except OSError:
        return None
    size = chunking.HASH_BYTES
    if len(kept) != chunking.chunk_count(ref.size_bytes, ref.chunk_bytes) * size:
        return None
    names = [kept[at : at + size].hex() for at in range(0, len(kept), size)]
    blobs, depth = chunking.index_blobs(names)
    right = depth == ref.index_depth and chunking.sha256(blobs[-1]) == ref.index
    return names if right else None


async def _blobs(names: Sequence[str], get: Get) -> dict[str, bytes]:
    """All of `names`; what comes damaged is asked for again."""
    found: dict[str, bytes] = {}
    for _ in range(ATTEMPTS):
        wanted = [name for name in dict.fromkeys(names) if name not in found]
        arrived = 0
        async with contextlib.aclosing(get(wanted)) as blobs:
            async for name, payload in blobs:
                arrived += 1
                if chunking.sha256(payload) == name:
                    found[name] = payload
        if len(found) == len(set(names)):
            return found
        if not arrived:
            raise Unavailable(f"cannot fetch an index: none of {len(wanted)} blobs came")
    bad = next(name for name in names if name not in found)
    raise Corrupt(f"cannot accept index blob {bad[:12]}: damaged {ATTEMPTS} times")
