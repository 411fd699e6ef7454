"""The developer's command itself: what it says when something is missing."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def dev(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "dev", folder / "dev")
    environment = {key: value for key, value in os.environ.items() if key != "TRIMTAB_PYTHON"}
    return subprocess.run(
        [str(folder / "dev"), *arguments],
        env={**environment, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def tools(folder: Path, *names: str) -> str:
    """A PATH that holds just these tools."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def test_says_how_to_get_python_where_there_is_none(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "bash", "env", "dirname", "readlink")
    found = dev(tmp_path, "setup", path=path)
    assert found.returncode == 4
    assert "apt-get install python3 python3-venv" in found.stderr


def test_says_how_to_get_venv_where_it_is_missing(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "bash", "env", "dirname", "readlink")
    fake = tmp_path / "bin" / "python3.12"
    # A Python as Debian ships it without python3-venv: right version, no venv module.
    fake.write_text('#!/bin/bash\ncase "$2" in *venv*) exit 1 ;; esac\nexit 0\n')
    fake.chmod(0o755)
    found = dev(tmp_path, "setup", path=path)
    assert found.returncode == 4
    assert "sudo apt-get install python3-venv" in found.stderr


def test_an_unknown_command_shows_the_list_and_fails(tmp_path: Path) -> None:
    found = dev(tmp_path, "frobnicate", path=os.environ["PATH"])
    assert found.returncode == 2
    assert "./dev demo" in found.stdout
