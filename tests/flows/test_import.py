"""A model on a USB stick: a device without a broker is updated by hand."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.protocol import trust
from deploy import bundle
from deploy.publish import Offer
from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import RunningAgent, running_agent, until
from tests.simulators.broker import free_port
from tests.simulators.fleet import make_keys


def a_bundle(folder: Path, private: bytes, *, version: int, seed: int = 0) -> Path:
    model = models.cnn(folder / f"net-{seed}.onnx", seed=seed)
    np.savez(folder / "inputs.npz", **models.sample_inputs(model, 40))
    out = folder / f"net-{version}.trimtab"
    offer = Offer(model=model, name="net", version=version, calibration=folder / "inputs.npz")
    bundle.write(offer, out, by=trust.signer(private), created_at_s=1e9, on_progress=None)
    return out


def bring(agent: RunningAgent, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "agent", "import", str(path), "--strategy", "as-is", *words],
        env=agent.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.timeout(400)
def test_a_device_without_a_broker_is_updated_by_hand(tmp_path: Path) -> None:
    private, keys = make_keys(tmp_path / "keys")
    first = a_bundle(tmp_path, private, version=1)
    second = a_bundle(tmp_path, private, version=2, seed=5)
    with running_agent(tmp_path / "device", broker_port=free_port(), keys=keys) as agent:
        done = bring(agent, first, "--wait")
        assert done.returncode == 0, done.stderr
        assert "live the original serves, as was asked" in done.stdout
        inputs = models.sample_inputs(tmp_path / "net-0.onnx", 1)
        assert agent.infer("net", inputs)["outputs"]
        # Handed in while nobody runs: taken up at the next start.
        assert agent.stop() == 0
        waiting = bring(agent, second)
        assert waiting.returncode == 0, waiting.stderr
        assert "it begins at the next start" in waiting.stdout
        assert bring(agent, second, "--wait").returncode == 4
        agent.start()
        state = tmp_path / "device" / "state"
        until(lambda: _live_version(state) == 2 or None, what="version 2 live")
        assert agent.infer("net", inputs)["model_version"] == "2"
        until(lambda: not list((state / "imports").glob("*/*")) or None, what="imports cleared")
        # The floor holds for what is brought by hand too.
        older = bring(agent, first, "--wait")
        assert older.returncode == 3, older.stdout
        assert "older than 2, which serves" in older.stderr
        assert agent.infer("net", inputs)["model_version"] == "2"


def _live_version(state: Path) -> int:
    record = json.loads((state / "records" / "net.json").read_text())
    return int(record["live"]["version"])


async def test_what_strangers_have_signed_is_not_imported(site: Site) -> None:
    path = a_bundle(site.folder, trust.generate()[0], version=1)
    done = await asyncio.to_thread(bring, site.agent, path)
    assert done.returncode == 3
    assert "not by a trusted key" in done.stderr
    assert not (site.folder / "device" / "state" / "imports").exists()


def test_a_device_that_has_never_run_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, keys = make_keys(tmp_path / "keys")
    path = a_bundle(tmp_path, private, version=1)
    agent = RunningAgent(tmp_path, {"TRIMTAB_STATE_DIR": str(tmp_path / "none"),
                                    "TRIMTAB_KEYS_DIR": str(keys)}, 0, 0)  # fmt: skip
    done = bring(agent, path)
    assert done.returncode == 2
    assert "no agent has ever run in" in done.stderr
