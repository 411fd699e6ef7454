"""What other code has measured is measured again."""

from pathlib import Path

import numpy as np
import pytest

from compression import provenance
from compression.calibration import material
from compression.job import CompressJob
from tests.compression import parent
from tests.simulators import models


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package" / "passes"
    folder.mkdir(parents=True)
    (folder / "rounding.py").write_text("BOUND = 127\n")
    (folder / "blocks.py").write_text("")
    return folder.parent


def digest(package: Path) -> str:
    provenance.code.cache_clear()
    return provenance.code(package)


def test_the_same_code_has_the_same_hash(package: Path) -> None:
    first = digest(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "rounding.pyc").write_bytes(b"compiled")
    assert digest(package) == first


@pytest.mark.parametrize("change", ["changed", "renamed", "moved on", "removed"])
def test_other_code_has_another_hash(package: Path, change: str) -> None:
    first, path = digest(package), package / "passes" / "rounding.py"
    match change:
        case "changed":
            path.write_text("BOUND = 126\n")
        case "renamed":
            path.rename(path.with_name("steps.py"))
        case "moved on":  # the same text in another file
            path.rename(path.with_name("blocks.py"))
        case "removed":
            path.unlink()
    assert digest(package) != first


def test_results_hang_on_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", **models.sample_inputs(path, 8))
    job = CompressJob(
        model_name="m", model_path=str(path), calibration_path=str(tmp_path / "i.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path),
    )  # fmt: skip

    def keys() -> tuple[str, ...]:
        opened = material.Material.open(job, tmp_path)
        opened.close()
        return opened.keys

    before = keys()
    assert keys() == before
    monkeypatch.setattr(provenance, "code", lambda: "other")
    assert keys() != before
