"""What was brought by hand and waits for the agent: imports/NAME/VERSION/, laid out as models are.

    manifest.sealed   the signed envelope; the agent checks it again
    order.json        written last: what is to be done, under an id
    answer.json       what the agent said to it

Whoever brings it writes the files; the agent takes them (as links, so nothing is written twice),
answers, and removes them. A running agent and one that starts tomorrow do the same.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from pydantic import ValidationError

from agent.errors import Corrupt
from agent.protocol import manifest as manifests
from agent.protocol.commands import Deploy
from agent.protocol.events import Reply
from agent.store import disk
from agent.store.catalog import Catalog
from compression import durable
from compression.words import Words, explain


class Order(Words):
    """A deployment asked for on the device itself."""

    id: str
    deploy: Deploy


class Imports:
    """The folder of what was brought by hand."""

    def __init__(self, folder: Path) -> None:
        """Look into `folder`, which need not be there."""
        self.catalog = Catalog(folder)

    def sealed(self, name: str, version: int) -> bytes | None:
        """The envelope of a manifest that was brought."""
        try:
            return (self.catalog.folder(name, version) / "manifest.sealed").read_bytes()
        except OSError:
            return None

    def begin(self, sealed: bytes, payload: bytes) -> None:
        """Make the folder of a version; `payload` is what the envelope was found to hold.

        Raises:
            Unavailable: the disk is full, failing or read-only.
        """
        manifest = manifests.parse(payload)
        folder = self.catalog.folder(manifest.name, manifest.version)
        for left in ("order.json", "answer.json"):
            (folder / left).unlink(missing_ok=True)
        self.catalog.begin(payload)
        with disk.trouble(f"keep the manifest of {manifest.name}@{manifest.version}"):
            durable.replace(folder / "manifest.sealed", sealed)

    def hand_in(self, order: Order) -> None:
        """Everything is here and whole: let the agent have it.

        Raises:
            Unavailable: the disk is full, failing or read-only.
        """
        with disk.trouble(f"hand in {order.deploy.model}@{order.deploy.version}"):
            self._give_to_owner()
            path = self._folder(order) / "order.json"
            durable.replace(path, order.to_json())
            _chown_like(path, self.catalog.root.parent)

    def orders(self) -> list[Order]:
        """What waits for an answer.

        Raises:
            Corrupt: an order cannot be read; it is set aside.
        """
        found = []
        for path in sorted(self.catalog.root.glob("*/*/order.json")):
            try:
                found.append(Order.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                path.rename(path.with_suffix(".damaged"))
                raise Corrupt(f"cannot read {path}: {explain(error)}") from error
            except OSError:
                continue  # its version is being removed
        return found

    def answer(self, order: Order, reply: Reply) -> None:
        """Tell whoever brought it, and never take it up again."""
        folder = self._folder(order)
        with contextlib.suppress(OSError):
            durable.replace(folder / "answer.json", reply.to_json(), mode=0o644)
        (folder / "order.json").unlink(missing_ok=True)

    def answer_to(self, order: Order) -> Reply | None:
        """What the agent said to it, if it has."""
        try:
            return Reply.model_validate_json((self._folder(order) / "answer.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def answered(self) -> list[tuple[str, int, Reply, float]]:
        """Name, version, the answer, and its age in seconds, of all that were answered."""
        found = []
        for entry in self.catalog.entries():
            folder = self.catalog.folder(entry.name, entry.version)
            if (folder / "order.json").exists():
                continue
            with contextlib.suppress(OSError, ValidationError):
                path = folder / "answer.json"
                reply = Reply.model_validate_json(path.read_bytes())
                age_s = time.time() - path.stat().st_mtime
                found.append((entry.name, entry.version, reply, age_s))
        return found

    def remove(self, name: str, version: int) -> None:
        """Forget what was brought; what the agent took stays."""
        shutil.rmtree(self.catalog.folder(name, version), ignore_errors=True)

    def _folder(self, order: Order) -> Path:
        return self.catalog.folder(order.deploy.model, order.deploy.version)

    def _give_to_owner(self) -> None:
        """root brings it, the agent runs as somebody else."""
        root = self.catalog.root
        for path in (root, *root.rglob("*")):
            _chown_like(path, root.parent)


def _chown_like(path: Path, model: Path) -> None:
    if os.geteuid() == 0:
        owner = model.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
