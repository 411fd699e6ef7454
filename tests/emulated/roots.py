"""File trees for emulated processors: an arm64 Python with the project's packages, /proc and /sys.

The tree is made of the system's own packages for arm64 and of wheels, without root: apt resolves
and downloads with a state folder of its own, dpkg unpacks, pip installs into a folder. Kept in
the cache, and made again when constraints.txt or pyproject.toml change.
"""

import hashlib
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unavailable
from tests.fixtures import wheels

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
PLATFORMS = (
    *(f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)),
    "manylinux2014_aarch64",
)
_NEEDED = ("apt-get", "dpkg-deb")


@dataclass(frozen=True)
class Arm:
    """An unpacked arm64 system: where it lies, its Python, and its site-packages."""

    folder: Path
    python: Path
    site: Path


def folder() -> Path:
    """Return the folder of all trees, in the project's cache."""
    found = wheels.cache().parent / "emulated"
    found.mkdir(exist_ok=True)
    return found


def arm() -> Arm:
    """Return the arm64 system, made where it is not there yet: 340 MB, half a minute.

    Raises:
        Unavailable: a tool is missing, or a package cannot be fetched.
    """
    wish = hashlib.sha256()
    for name in ("constraints.txt", "pyproject.toml"):
        wish.update((wheels.ROOT / name).read_bytes())
    place = folder() / "aarch64"
    with wheels.locked("emulated-aarch64"):
        stamp = place / "made"
        if not stamp.exists() or stamp.read_text() != wish.hexdigest():
            shutil.rmtree(place, ignore_errors=True)
            system = _unpack(place)
            _install(place / "site", version=_python(system).name.removeprefix("python"))
            stamp.write_text(wish.hexdigest())
    return Arm(place / "system", _python(place / "system"), place / "site")


def overlay(name: str, files: dict[str, str], *, over: Path | None) -> Path:
    """Return a tree of `files` (by path from the root) that shows `over`'s folders beside them.

    One that is there is never touched: a program may be running in it.
    """
    digest = hashlib.sha256(f"{sorted(files.items())} {over}".encode()).hexdigest()
    place = folder() / f"{name}-{digest[:12]}"
    with wheels.locked(place.name):
        if not place.exists():
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            for path, text in files.items():
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                (part / path).write_text(text)
            for found in over.iterdir() if over else ():
                if not (part / found.name).exists():
                    (part / found.name).symlink_to(found)
            part.rename(place)
    return place


def _unpack(place: Path) -> Path:
    """Fetch and unpack the packages with all that they depend on; return the root."""
    if missing := [tool for tool in _NEEDED if shutil.which(tool) is None]:
        raise Unavailable(f"cannot make an arm64 system: no {', '.join(missing)} here")
    state, system = place / "apt", place / "system"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    options = {
        "Dir::State": f"{state}/state", "Dir::State::status": f"{state}/status",
        "Dir::Cache": f"{state}/cache", "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64", "APT::Sandbox::User": "root", "Debug::NoLocking": "1",
        "APT::Install-Recommends": "0",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    _done([*apt, "update"])
    _done([*apt, "install", "--download-only", "--yes", *PACKAGES])
    for package in sorted((state / "cache/archives").glob("*.deb")):
        _done(["dpkg-deb", "--extract", str(package), str(system)])
    shutil.rmtree(state)
    return system


def _install(site: Path, *, version: str) -> None:
    """Install the project's own dependencies for arm64, in the versions it is tested with."""
    project = tomllib.loads((wheels.ROOT / "pyproject.toml").read_text())["project"]
    platforms = [word for one in PLATFORMS for word in ("--platform", one)]
    _done(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-compile", "--only-binary=:all:", "--python-version", version, *platforms,
         "--target", str(site), "--constraint", str(wheels.ROOT / "constraints.txt"),
         *project["dependencies"]]
    )  # fmt: skip


def _python(system: Path) -> Path:
    found = sorted((system / "usr/bin").glob("python3.[0-9]*[0-9]"))
    if not found:
        raise Unavailable(f"cannot find Python in {system}")
    return found[0]


def _done(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unavailable(f"cannot run {command[0]} {command[-1]}: {last}")
