"""Picks real files of this machine, the same ones each time: by a hash of path and seed.

Only system folders are looked into, only regular files that everybody of this user may read,
and of each at most two blocks of 4 KiB.
"""

import hashlib
import heapq
import os
import stat
import sys
import sysconfig
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_SEEN = 40_000
"""Entries looked at under one root."""


@dataclass(frozen=True)
class Picked:
    """One file and its extension: lower case, without the dot."""

    path: Path
    extension: str


def roots() -> tuple[Path, ...]:
    """Where files of many kinds lie: this environment, the standard library, the system."""
    wanted = (sys.prefix, sysconfig.get_path("stdlib"), "/usr/share", "/usr/lib")
    found: list[Path] = []
    for folder in (Path(name).resolve() for name in wanted):
        if folder.is_dir() and not any(folder.is_relative_to(known) for known in found):
            found.append(folder)
    return tuple(found)


def pick(
    folders: Sequence[Path],
    *,
    extensions: Container[str],
    per_extension: int,
    seed: int,
    max_seen: int = MAX_SEEN,
) -> list[Picked]:
    """Pick up to `per_extension` files of each of `extensions`, in an order drawn by `seed`.

    The choice depends on what lies in the folders and on the seed, on nothing else.
    """
    heaps: dict[str, list[tuple[int, str]]] = {}
    for folder in folders:
        for path in _walk(folder, extensions, max_seen):
            extension = _extension(path)
            heap = heaps.setdefault(extension, [])
            # A heap of negated ranks drops the largest: the smallest ranks stay.
            item = (-_rank(path, seed), path)
            if len(heap) < per_extension:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    # Drawn again: of a common extension only the smallest ranks are left, and sorted by
    # them it would come first as a block.
    chosen = sorted((_rank(path, ~seed), path) for heap in heaps.values() for _, path in heap)
    return [Picked(Path(path), _extension(path)) for _, path in chosen]


def _walk(root: Path, extensions: Container[str], max_seen: int) -> Iterator[str]:
    """Paths of fitting files under `root`; folders in order of name, links not followed."""
    seen = 0
    for folder, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            seen += 1
            if seen > max_seen:
                return
            path = f"{folder}/{name}"
            if _extension(name) in extensions and _readable(path):
                yield path


def _readable(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and os.access(path, os.R_OK)


def _extension(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()  # noqa: PTH122  too many names: no Path for each


def _rank(path: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{path}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest())
