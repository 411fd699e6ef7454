"""Virtual environments for tools that must not be in ours: made on first use, kept in the cache."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fixtures import wheels


def python(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that holds these packages."""
    key = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    made = wheels.cache().parent / "peers" / f"{name}-venv-{key}"
    found = made / "bin" / "python"
    with wheels.locked(f"{name}-venv-{key}"):
        if not (made / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(made)], check=True)
            subprocess.run(
                [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                 *requirements],
                check=True,
            )  # fmt: skip
            (made / "complete").touch()
    return found
