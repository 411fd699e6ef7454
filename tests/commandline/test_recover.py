"""`trimtab compress --recover-minutes` where it cannot be done, and where nothing can gain."""

import argparse
import importlib.util
from pathlib import Path

import pytest

from agent.commandline import compress
from agent.errors import BadInput
from tests.simulators import models


def arguments(tmp_path: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    compress.add_arguments(parser)
    path = models.mlp(tmp_path / "net.onnx")
    return parser.parse_args([str(path), "--out", str(tmp_path / "out"), *more])


def test_without_torch_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    with pytest.raises(BadInput, match=r"pip install 'trimtab\[recover\]'"):
        compress.run(arguments(tmp_path, "--recover-minutes", "5"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_minutes_that_are_none_are_refused(tmp_path: Path, minutes: str) -> None:
    with pytest.raises(BadInput, match="--recover-minutes must be 0 or above"):
        compress.run(arguments(tmp_path, "--recover-minutes", minutes))
