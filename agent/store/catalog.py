"""Where the models of this device lie, and which of them are complete.

models/NAME/VERSION/manifest.json   the verified payload, written first
                    model.onnx      present only when whole and verified
                    calibration.npz evaluation.npz
                    NAME.index      the chunk names of a file, and while it comes
                    NAME.partial NAME.journal
                    ladder/         variants and ladder.json
"""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadInput, Corrupt, Unavailable
from agent.protocol import manifest as manifests
from agent.protocol import topics
from agent.protocol.manifest import FileRef, Manifest
from agent.store.sources import Source
from compression import durable

FILES = {"model": "model.onnx", "calibration": "calibration.npz", "evaluation": "evaluation.npz"}


@dataclass(frozen=True)
class Entry:
    """One version of one model on this device."""

    name: str
    version: int
    complete: bool
    size_bytes: int
    """On disk, with its variants and with what a pull has allocated."""
    changed_at_s: float = 0.0
    """When its manifest came, in seconds since 1970 by this device's clock."""


class Catalog:
    """The folder of models. Names become paths only after `topics.check_name`."""

    def __init__(self, folder: Path) -> None:
        self.root = self._folder = folder

    def folder(self, name: str, version: int) -> Path:
        """Where one version lies.

        Raises:
            BadInput: the name or version cannot stand in a path.
        """
        topics.check_name(name, what="model name")
        if version < 1:
            raise BadInput(f"cannot use version {version} of {name}: versions begin at 1")
        return self._folder / name / str(version)

    def path(self, name: str, version: int, file: str) -> Path:
        """Where `file` (model, calibration, evaluation) of one version lies."""
        return self.folder(name, version) / FILES[file]

    def ladder(self, name: str, version: int) -> Path:
        """The folder of variants and ladder.json."""
        return self.folder(name, version) / "ladder"

    def begin(self, payload: bytes) -> Manifest:
        """Keep the payload of a verified manifest envelope, and make room for its files.

        Raises:
            BadInput: it is no manifest.
            Unavailable: the disk is full or failing.
        """
        manifest = manifests.parse(payload)
        path = self.folder(manifest.name, manifest.version) / "manifest.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._drop_what_changed(manifest)
            durable.replace(path, payload)
        except OSError as error:
            raise Unavailable(f"cannot keep the manifest {path}: {error}") from error
        return manifest

    def _drop_what_changed(self, new: Manifest) -> None:
        """Remove files that were pulled for an earlier manifest of this version.

        Their size may be the same, and by its size a file counts as whole.
        """
        try:
            old = self.manifest(new.name, new.version)
        except (Unavailable, Corrupt):
            return
        for file in FILES:
            was, now = getattr(old.files, file), getattr(new.files, file)
            if was is not None and (now is None or now.sha256 != was.sha256):
                self.path(new.name, new.version, file).unlink(missing_ok=True)

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of one version.

        Raises:
            Unavailable: there is none.
            Corrupt: it cannot be read any more.
        """
        path = self.folder(name, version) / "manifest.json"
        try:
            return manifests.parse(path.read_bytes())
        except OSError as error:
            raise Unavailable(f"cannot find {name}@{version} on this device: {error}") from error
        except BadInput as error:
            raise Corrupt(f"{error} ({path})") from error

    def missing(self, name: str, version: int) -> dict[Path, FileRef]:
        """Which files of one version are not here yet, and what to fetch for each."""
        files = self.manifest(name, version).files
        wanted = {
            self.path(name, version, file): ref
            for file in FILES
            if (ref := getattr(files, file)) is not None
        }
        # The download renames a file here only when it is whole, so its size is proof enough.
        return {path: ref for path, ref in wanted.items() if _size(path) != ref.size_bytes}

    def complete(self, name: str, version: int) -> bool:
        """Whether everything that the manifest names is here."""
        try:
            return not self.missing(name, version)
        except (Unavailable, Corrupt):
            return False

    def entries(self) -> list[Entry]:
        """Every version here, by name and version; what does not belong is passed over."""
        found = []
        for path in self._folder.glob("*/*"):
            name, version = path.parent.name, path.name
            if path.is_dir() and topics.NAME.match(name) and version.isdecimal() and int(version):
                found.append((name, int(version)))
        return [
            Entry(
                name,
                version,
                complete=self.complete(name, version),
                size_bytes=self.size_bytes(name, version),
                changed_at_s=_changed_at_s(self.folder(name, version) / "manifest.json"),
            )
            for name, version in sorted(found)
        ]

    def sources(self) -> list[Source]:
        """Every whole file here, with what it is: its chunks need not be pulled again."""
        found = []
        for entry in self.entries():
            try:
                files = self.manifest(entry.name, entry.version).files
            except (Unavailable, Corrupt):
                continue
            for file in FILES:
                path, ref = self.path(entry.name, entry.version, file), getattr(files, file)
                if ref is not None and _size(path) == ref.size_bytes:
                    found.append(Source(ref, path))
        return found

    def size_bytes(self, name: str, version: int) -> int:
        """Bytes on disk of one version with its variants."""
        files = self.folder(name, version).rglob("*")
        return sum(_size(path) or 0 for path in files if path.is_file() and not path.is_symlink())

    def remove(self, name: str, version: int | None = None) -> int:
        """Remove one version, or all of them; return the bytes freed. Fine when absent.

        The manifest goes first: a version half-removed by a kill is not complete.
        """
        versions = [version] if version else [e.version for e in self.entries() if e.name == name]
        freed = 0
        for each in versions:
            folder = self.folder(name, each)
            freed += self.size_bytes(name, each)
            (folder / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        return freed


def _changed_at_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
