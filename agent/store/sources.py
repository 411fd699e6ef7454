"""Chunks that a file of this device already has: taken from there, not from the broker.

A file with the same bytes is linked; of another version, the chunks with the same names are
copied. What is copied is judged with the whole file, by its sha256.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Corrupt
from agent.protocol import chunking
from agent.protocol.manifest import FileRef
from agent.store import disk, index
from agent.store.partial import Partial, is_whole
from compression import durable


@dataclass(frozen=True)
class Source:
    """A whole file on this device, and what it is."""

    ref: FileRef
    path: Path


def link_twin(ref: FileRef, target: Path, sources: Sequence[Source]) -> bool:
    """Give `target` the bytes of a source that is the same file; whether there was one.

    Files in the catalogue are replaced and never written to, so two names may share one.

    Raises:
        Unavailable: the disk is full or failing.
    """
    for source in sources:
        same = (source.ref.sha256, source.ref.size_bytes) == (ref.sha256, ref.size_bytes)
        if not same or source.path == target or not is_whole(ref, source.path):
            continue
        twin = disk.beside(target, "twin")
        with disk.trouble(f"take {target.name} from {source.path}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            twin.unlink(missing_ok=True)
            _link_or_copy(source.path, twin)
            twin.replace(target)
            durable.sync_folder(target.parent)
        return True
    return False


def _link_or_copy(path: Path, twin: Path) -> None:
    try:
        os.link(path, twin)
    except OSError:  # a file system without links
        shutil.copyfile(path, twin)
        with twin.open("rb") as file:
            os.fsync(file.fileno())


def copy_chunks(partial: Partial, sources: Sequence[Source]) -> list[str]:
    """Copy into `partial` what the sources have of it; return the names of these chunks.

    Raises:
        Unavailable: the disk is full or failing.
    """
    copied: list[str] = []
    for source in sources:
        wanted = set(partial.missing())
        if not wanted or source.ref.encoding != partial.ref.encoding:
            continue
        names = index.load(source.ref, source.path)
        if names is None or wanted.isdisjoint(names):
            continue
        with contextlib.suppress(OSError):  # it may vanish: then the rest is pulled
            copied += _copy(partial, names, source, wanted)
    if copied:
        partial.settle()
    return copied


def _copy(partial: Partial, names: list[str], source: Source, wanted: set[str]) -> list[str]:
    copied, ref = [], source.ref
    with source.path.open("rb") as file:
        for position, name in enumerate(names):
            if name not in wanted:
                continue
            length = chunking.chunk_length(
                position, size_bytes=ref.size_bytes, chunk_bytes=ref.chunk_bytes
            )
            plain = os.pread(file.fileno(), length, position * ref.chunk_bytes)
            if ref.encoding == "raw" and chunking.sha256(plain) != name:
                continue
            with contextlib.suppress(Corrupt):  # of another length: not what belongs there
                partial.put_plain(name, plain)
                wanted.discard(name)
                copied.append(name)
    return copied
