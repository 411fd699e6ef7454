"""Pulls manifests and files: the link's windows, the store's checks, the trusted keys."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from securesystemslib.signer import Key

from agent.config import Settings
from agent.control.announcer import Announcer
from agent.link.mqtt import Link
from agent.link.pull import blob_window
from agent.link.retained import retained
from agent.protocol import trust
from agent.protocol.manifest import FileRef
from agent.protocol.topics import Topics
from agent.store.chunks import Chunks
from agent.store.download import OnProgress, fetch_file


class Puller:
    """Brings what the fleet has published."""

    def __init__(
        self,
        link: Link,
        *,
        topics: Topics,
        keys: Sequence[Key],
        chunks: Chunks,
        settings: Settings,
        announcer: Announcer,
    ) -> None:
        """Pull over `link` into `chunks`; believe only what one of `keys` signed."""
        self._link, self._topics, self._keys = link, topics, keys
        self._chunks, self._settings, self._announcer = chunks, settings, announcer
        self._under_way = 0

    async def manifest(self, name: str, version: int) -> bytes:
        """The payload of a manifest whose signature holds.

        Raises:
            Unavailable: not published, or no link.
            Corrupt, Refused: its envelope cannot be trusted.
        """
        sealed = await retained(
            self._link, self._topics.model(name, version), timeout_s=self._settings.pull_timeout_s
        )
        return trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=self._keys)

    async def file(self, ref: FileRef, target: Path, on_progress: OnProgress) -> None:
        """Bring one file to `target`, whole and verified; tell where chunks came damaged.

        Raises:
            Unavailable, Corrupt: as agent.store.download.fetch_file says.
        """
        window = partial(
            blob_window,
            self._link,
            topics=self._topics,
            timeout_s=self._settings.pull_timeout_s,
        )
        self._under_way += 1
        try:
            damaged = await fetch_file(
                ref,
                get=lambda names: window(names=names),
                into=self._chunks,
                target=target,
                window=self._settings.window_topics,
                disk_reserve_bytes=int(self._settings.disk_reserve_mib * 2**20),
                on_progress=on_progress,
            )
        finally:
            self._under_way -= 1
        if damaged:
            self._announcer.trouble(
                "corrupt", f"{damaged} chunks of {target.name} came damaged and were pulled again"
            )

    def drop_chunks(self) -> None:
        """Free the disk of chunks, unless another model's pull still needs its own."""
        if not self._under_way:
            self._chunks.collect()
