"""Make the key pair that signs manifests and commands for the fleet.

Writes fleet.key (private, readable by you alone) and fleet.pub. Copy fleet.pub into the keys
folder of each device; keep fleet.key off the devices.
"""

import argparse
import os
from pathlib import Path

from agent.errors import BadInput, Unavailable
from agent.protocol import trust

EXAMPLES = """examples:
  trimtab-fleet keygen ~/.trimtab
  sudo install -m 0644 ~/.trimtab/fleet.pub /etc/trimtab/keys/
"""
PRIVATE, PUBLIC = "fleet.key", "fleet.pub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where both files go")


def run(arguments: argparse.Namespace) -> int:
    """Write both files; never over others."""
    folder: Path = arguments.folder
    private, public = trust.generate()
    for name in (PRIVATE, PUBLIC):
        if (folder / name).exists() or (folder / name).is_symlink():
            raise BadInput(f"cannot write {folder / name}: it exists, and is never overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / PRIVATE, private, mode=0o600)
        _write(folder / PUBLIC, public, mode=0o644)
    except OSError as error:
        raise Unavailable(f"cannot write the keys to {folder}: {error}") from error
    print(f"private key {folder / PRIVATE} (keep it secret)\npublic key  {folder / PUBLIC}")
    return 0


def _write(path: Path, data: bytes, *, mode: int) -> None:
    # Exclusive, with the mode from the start: never readable by others, not even for a moment.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
