"""The house rules that tools can check: style, types, floors."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_ruff_finds_nothing() -> None:
    found = run("ruff", "check", ".")
    assert found.returncode == 0, found.stdout + found.stderr


def test_ruff_would_format_nothing() -> None:
    found = run("ruff", "format", "--check", ".")
    assert found.returncode == 0, found.stdout + found.stderr


def test_mypy_strict_finds_nothing() -> None:
    found = run("mypy")
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_ignore_carries_its_reason() -> None:
    bare = []
    for path in ROOT.glob("*/**/*.py"):
        if {".venv", ".cache"} & set(path.parts):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for mark in ("# noqa", "# type: ignore", "pragma: no cover"):
                _, found, after = line.partition(mark)
                if found and mark not in {line.strip()[1:-2], ""} and not _reason(after):
                    bare.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not bare, "\n".join(bare)


def _reason(after: str) -> bool:
    """Whether words follow the rule's name."""
    _, _, rest = (
        after.partition(" ") if not after.startswith(":") else after[1:].strip().partition(" ")
    )
    return len(rest.strip(" -#")) > 10 or '"' in after


def test_packages_have_empty_init_files() -> None:
    full = [
        str(path.relative_to(ROOT))
        for package in ("agent", "compression", "deploy")
        for path in (ROOT / package).rglob("__init__.py")
        if path.read_text().strip()
    ]
    assert not full
