"""What stays in a job's folder when it ends: its rungs, and what serves already."""

from pathlib import Path

from compression import ladder
from compression.choosing.shelf import Shelf
from compression.findings import ModelRef
from compression.job import Budget
from tests.compression.test_ladder import DEVICE


def test_what_serves_stays_although_no_rung_names_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name in ("rung-a.onnx", "rung-b.onnx", "probe-a.npz", "probe-b.npz"):
        (tmp_path / name).write_bytes(b"")
    model = ModelRef(name="m", sha256="0" * 64)
    empty = ladder.build(model=model, device_class=DEVICE, budget=Budget(), rungs=[])
    shelf.close(empty, keep=("rung-a.onnx", "probe-a.npz"))
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert left == ["ladder.json", "probe-a.npz", "rung-a.onnx"]
