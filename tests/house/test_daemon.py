"""What the daemon's process has loaded, looked at in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "onnxruntime", "onnx", "numpy"]


@pytest.mark.parametrize("module", ["agent.app", "agent.commandline.agent"])
def test_the_daemon_loads_no_heavy_library(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = json.loads(found.stdout)
    assert [name for name in HEAVY if name in loaded] == []
