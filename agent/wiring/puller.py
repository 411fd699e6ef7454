"""Pulls manifests and files: the link's chunks, the store's checks, the trusted keys."""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path

from securesystemslib.signer import Key

from agent.config import Settings
from agent.control.announcer import Announcer
from agent.control.record import Record
from agent.control.states import REST
from agent.link.mqtt import Link
from agent.link.pace import Pace
from agent.link.pull import blobs
from agent.link.retained import retained
from agent.protocol import trust
from agent.protocol.manifest import FileRef
from agent.protocol.topics import Topics
from agent.store import quota
from agent.store.catalog import Catalog, Entry
from agent.store.download import OnProgress, fetch_file
from agent.store.imports import Imports

_MIB = 2**20


class Puller:
    """Brings what the fleet has published."""

    def __init__(
        self,
        link: Link,
        *,
        topics: Topics,
        keys: Sequence[Key],
        catalog: Catalog,
        settings: Settings,
        announcer: Announcer,
        records: Callable[[], Iterable[Record]],
        imports: Imports,
    ) -> None:
        """Pull over `link` into `catalog`, or take what `imports` has; believe only what one of
        `keys` signed.

        What `records` name (live, the way back, at work) never gives way to a new version.
        """
        self._link, self._topics, self._keys = link, topics, keys
        self._catalog, self._settings, self._announcer = catalog, settings, announcer
        self._records, self._imports = records, imports
        self._pace = None
        if settings.pull_kib_per_s is not None:
            self._pace = Pace(settings.pull_kib_per_s * 1024)
        self._bounds = quota.Bounds(
            reserve_bytes=int(settings.disk_reserve_mib * _MIB),
            quota_bytes=None if settings.models_mib is None else int(settings.models_mib * _MIB),
        )

    async def manifest(self, name: str, version: int) -> bytes:
        """The payload of a manifest whose signature holds.

        Raises:
            Unavailable: not published, or no link.
            Corrupt, Refused: its envelope cannot be trusted.
        """
        sealed = self._imports.sealed(name, version)
        if sealed is None:
            topic, timeout_s = self._topics.model(name, version), self._settings.pull_timeout_s
            sealed = await retained(self._link, topic, timeout_s=timeout_s)
        return trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=self._keys)

    async def file(self, ref: FileRef, target: Path, on_progress: OnProgress) -> None:
        """Bring one file of the catalogue to `target`, whole and verified; tell where chunks came
        damaged. Before the first byte there is room for everything that the version lacks.

        Raises:
            Refused: it can never fit, as agent.store.quota.make_room says.
            Unavailable, Corrupt: as agent.store.download.fetch_file says, or no room.
        """
        has = self._imports.catalog.sources() + self._catalog.sources()
        quota.make_room(
            self._catalog,
            (target.parent.parent.name, int(target.parent.name)),
            bounds=self._bounds,
            pinned=pinned(self._records()),
            has=has,
            on_evicted=self._tell_evicted,
        )
        fetched = await fetch_file(
            ref,
            get=self._get,
            target=target,
            has=has,
            window=self._settings.window_topics,
            on_progress=on_progress,
        )
        damaged = fetched.damaged.total()
        if damaged:
            self._announcer.trouble(
                "corrupt", f"{damaged} chunks of {target.name} came damaged and were pulled again"
            )

    def _get(self, names: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        return blobs(
            self._link,
            topics=self._topics,
            names=names,
            timeout_s=self._settings.pull_timeout_s,
            window=self._settings.window_topics,
            pace=self._pace,
        )

    def _tell_evicted(self, entry: Entry) -> None:
        self._announcer.trouble(
            "evicted",
            f"{entry.name}@{entry.version} gave way: {entry.size_bytes / _MIB:.1f} MiB freed",
        )


def pinned(records: Iterable[Record]) -> set[quota.Version]:
    """The versions that must stay: live, the way back, and what is being worked on."""
    kept: set[quota.Version] = set()
    for record in records:
        kept |= {(record.model, v.version) for v in (record.live, record.previous) if v}
        if record.deployment is not None and record.deployment.state not in REST:
            kept.add((record.model, record.deployment.version))
    return kept
