"""Writes a model version into one file: what would lie on the broker, for a device without one."""

import os
from collections.abc import Callable
from pathlib import Path

from securesystemslib.signer import Signer

from agent.errors import Unavailable
from agent.protocol import bundling, trust
from agent.protocol.manifest import FileRef, Files, Manifest
from deploy import publish
from deploy.packing import Packing, choose_encoding
from deploy.publish import Offer

OnProgress = Callable[[str, int, int], None]
"""Called with (file name, blobs written, chunks in all)."""


def write(
    offer: Offer, out: Path, *, by: Signer, created_at_s: float, on_progress: OnProgress | None
) -> Manifest:
    """Write the bundle `out`, whole or not at all.

    The same files, options, key and `created_at_s` (seconds since 1970) make the same bytes.

    Raises:
        BadInput: what is offered cannot be published.
        Unavailable: the disk is full or failing.
    """
    facts = publish.check(offer)
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as file:
            writing = _Writing(file.write, on_progress)
            model = writing.add(offer.model, offer.chunk_bytes)
            assert model is not None
            files = Files(
                model=model,
                calibration=writing.add(offer.calibration, offer.chunk_bytes),
                evaluation=writing.add(offer.evaluation, offer.chunk_bytes),
            )
            manifest = publish.manifest_of(offer, facts, files, created_at_s=created_at_s)
            sealed = trust.seal(manifest.to_json(), payload_type=trust.MANIFEST, by=by)
            writing.entry(bundling.MANIFEST, sealed)
            file.write(bundling.END)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as error:
        raise Unavailable(f"cannot write {out}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return manifest


class _Writing:
    """Entries one after the other; a blob that two files share comes once."""

    def __init__(self, write: Callable[[bytes], int], on_progress: OnProgress | None) -> None:
        self._write, self._on_progress = write, on_progress
        self._seen: set[str] = set()

    def add(self, path: Path | None, chunk_bytes: int | None) -> FileRef | None:
        """Write the blobs of a file."""
        if path is None:
            return None
        packing = Packing(path, encoding=choose_encoding(path), chunk_bytes=chunk_bytes)
        for number, (name, sent) in enumerate(packing, start=1):
            if name not in self._seen:
                self._seen.add(name)
                self.entry(bundling.blob(name), sent)
            if self._on_progress is not None:
                self._on_progress(path.name, number, packing.chunk_count)
        return packing.ref

    def entry(self, name: str, content: bytes) -> None:
        """Write one entry."""
        self._write(bundling.header(name, len(content)))
        self._write(content)
        self._write(bundling.padding(len(content)))
