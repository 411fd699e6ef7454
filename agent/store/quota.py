"""Room for a version that is to be pulled: what it needs, and which versions give way for it.

Two bounds: the free disk beside a reserve, and a quota over all models where one is set. Versions
that are pinned (live, the way back, at work) never give way; of the others the oldest goes first.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.errors import Refused, Unavailable
from agent.store import disk
from agent.store.catalog import Catalog, Entry
from agent.store.sources import Source

Version = tuple[str, int]


@dataclass(frozen=True)
class Bounds:
    """How much disk models may take."""

    reserve_bytes: int = 0
    """Free disk that no pull may touch."""
    quota_bytes: int | None = None
    """Of all models with their variants; None: whatever the disk has."""


@dataclass(frozen=True)
class Room:
    """The disk as a pull finds it."""

    free_bytes: int
    disk_bytes: int
    used_bytes: int
    """By all models here."""


def short_by(need_bytes: int, room: Room, bounds: Bounds) -> int:
    """How many bytes must go before `need_bytes` more fit; 0 where they do."""
    over_disk = need_bytes + bounds.reserve_bytes - room.free_bytes
    over_quota = 0
    if bounds.quota_bytes is not None:
        over_quota = room.used_bytes + need_bytes - bounds.quota_bytes
    return max(0, over_disk, over_quota)


def victims(
    entries: Collection[Entry], *, pinned: Collection[Version], short_bytes: int
) -> list[Entry]:
    """Which versions give way for `short_bytes`: the oldest first, none that is pinned, and none
    at all where even all of them would not do."""
    chosen: list[Entry] = []
    freed = 0
    loose = [entry for entry in entries if (entry.name, entry.version) not in pinned]
    for entry in sorted(loose, key=lambda entry: (entry.changed_at_s, entry.name, entry.version)):
        if freed >= short_bytes:
            break
        chosen.append(entry)
        freed += entry.size_bytes
    return chosen if freed >= short_bytes else []


def make_room(
    catalog: Catalog,
    version: Version,
    *,
    bounds: Bounds,
    pinned: Collection[Version],
    has: Collection[Source] = (),
    on_evicted: Callable[[Entry], None] = lambda _: None,
) -> None:
    """Free the disk for what one version still lacks, or say why there is no room.

    A file that `has` is the same needs none: it is linked.

    Raises:
        Refused: this version alone is more than the quota, or than the disk, ever holds.
        Unavailable: what is pinned leaves no room; with the figures.
    """
    twins = {source.ref.sha256 for source in has}
    missing = {
        path: ref for path, ref in catalog.missing(*version).items() if ref.sha256 not in twins
    }
    lacks = sum(ref.size_bytes for ref in missing.values())
    # A pull that was cut has taken some of it already.
    need = sum(
        ref.size_bytes - min(ref.size_bytes, disk.allocated_bytes(disk.beside(path, "partial")))
        for path, ref in missing.items()
    )
    name, room = f"{version[0]}@{version[1]}", _look(catalog)
    _refuse_what_never_fits(name, lacks, room, bounds)
    short = short_by(need, room, bounds)
    if lacks and short:
        pins = {*pinned, version}
        for entry in victims(catalog.entries(), pinned=pins, short_bytes=short):
            catalog.remove(entry.name, entry.version)
            on_evicted(entry)
        room = _look(catalog)
        short = short_by(need, room, bounds)
    if lacks and short:
        quota = f" of a quota of {disk.mib(bounds.quota_bytes)}" if bounds.quota_bytes else ""
        raise Unavailable(
            f"cannot fetch {name}: it needs {disk.mib(need)} beside a reserve of "
            f"{disk.mib(bounds.reserve_bytes)}; {disk.mib(room.free_bytes)} are free on "
            f"{catalog.root}, and models that are in use take {disk.mib(room.used_bytes)}{quota}"
        )


def _refuse_what_never_fits(name: str, lacks: int, room: Room, bounds: Bounds) -> None:
    most = room.disk_bytes - bounds.reserve_bytes
    if bounds.quota_bytes is not None:
        most = min(most, bounds.quota_bytes)
    if lacks > most:
        raise Refused(
            f"cannot fetch {name}: it needs {disk.mib(lacks)}, and models may take at most "
            f"{disk.mib(max(0, most))} here"
        )


def _look(catalog: Catalog) -> Room:
    return Room(
        free_bytes=disk.free_bytes(catalog.root),
        disk_bytes=disk.total_bytes(catalog.root),
        used_bytes=sum(entry.size_bytes for entry in catalog.entries()),
    )
