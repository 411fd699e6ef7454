"""The import contracts hold, and each of them goes red when somebody breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# contract -> (a file to break it in, the import that breaks it)
VIOLATIONS = {
    "floors": ("agent/protocol/topics.py", "import agent.control.states"),
    "serving": ("agent/serving/meter.py", "import agent.host.children"),
    "daemon": ("agent/host/children.py", "import agent.serving.meter"),
    "words": ("agent/control/admission.py", "import compression.graph"),
    "compression": ("compression/ladder.py", "import agent.errors"),
    "page": ("compression/page/bars.py", "import compression.samples"),
    "deploy": ("deploy/publish.py", "import agent.store.disk"),
    "no-runtime-in-the-daemon": ("agent/host/children.py", "import onnxruntime"),
    "door-onnxruntime": ("agent/serving/api.py", "import onnxruntime"),
    "door-paho": ("agent/link/spool.py", "import paho.mqtt.client"),
    "door-torch": ("compression/ladder.py", "import torch"),
    "door-torch-itself": ("compression/choosing/climb.py", "import torch"),
}


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()",
         "--no-cache", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_all_contracts_hold() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr


def test_every_contract_has_a_violation_to_show() -> None:
    declared = set((ROOT / "pyproject.toml").read_text().split('\nid = "')[1:])
    assert {text.partition('"')[0] for text in declared} == set(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_violation_is_shown_red(contract: str, tmp_path: Path) -> None:
    for package in ("agent", "compression", "deploy"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, line = VIOLATIONS[contract]
    broken = tmp_path / name
    broken.write_text(broken.read_text() + f"\n{line}\n")
    found = lint(tmp_path, "--contract", contract)
    assert found.returncode != 0
    assert "BROKEN" in found.stdout
