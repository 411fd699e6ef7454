"""Which real models can be made regular, how exactly, and what that takes: a table.

The fixture models, ONNX files out of public wheels, and the small models that the onnx package
tests backends with. Run by `./dev prove benchmarks`.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.fixtures import graphs
from tests.fixtures.models import FIXTURES
from tests.fixtures.trained import collection

Row = dict[str, Any]
REFUSED = {"graph-network": "output 'pred_mean' is NaN"}
"""It divides by distances between atoms, and random inputs are no molecule."""
HEAD = f"{'model':18} {'MiB':>6} {'difference':>10} shapes {'nodes':>12} opset {'s':>5} {'MiB':>5}"


def regularized(path: Path) -> Row:
    """What `tests.benchmarks.regularize` says of a model."""
    command = [sys.executable, "-m", "tests.benchmarks.regularize", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def line(name: str, row: Row) -> str:
    if "refused" in row:
        return f"{name:18} refused: {row['refused'][:160]}"
    nodes = f"{row['before']} -> {row['after']}"
    opset = "{}>{}".format(*row["opset"])
    kept = "  kept: quantized already" if row["quantized"] else ""
    return (
        f"{name:18} {row['mib']:6.2f} {row['gap']:10.1e} {len(row['shapes']):6} {nodes:>12} "
        f"{opset:>5} {row['seconds']:5.2f} {row['peak_mib']:5.0f}{kept}"
    )


def right(row: Row) -> bool:
    return row["gap"] <= row["tolerance"] and row["same_names"] and not math.isnan(row["gap"])


@pytest.mark.prove
def test_real_models_become_regular_or_say_why_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources: dict[str, Callable[[], Path]] = {
        **{name: lambda make=make: make().onnx for name, make in FIXTURES.items()},
        **{name: lambda name=name: collection.load(name).onnx for name in collection.NAMES},
        **{name: lambda name=name: graphs.fetch(name) for name in graphs.GRAPHS},
    }
    rows = {}
    with capsys.disabled():
        print(f"\n{HEAD}")
        for name, source in sources.items():
            rows[name] = regularized(source())
            print(line(name, rows[name]))
    refused = {name: row["refused"] for name, row in rows.items() if "refused" in row}
    assert set(refused) == set(REFUSED)
    assert all(REFUSED[name] in reason for name, reason in refused.items())
    wrong = {name: row for name, row in rows.items() if "refused" not in row and not right(row)}
    assert not wrong
    assert len(rows) >= 20 + len(FIXTURES)


@pytest.mark.prove
def test_the_models_of_the_onnx_package_become_regular(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Opsets 3 to 21, operators of all kinds; the runtime itself does not run those before 7."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(root.rglob("model.onnx"))
    rows = {str(path.parent.relative_to(root)): regularized(path) for path in paths}
    refused = {name: row for name, row in rows.items() if "refused" in row}
    accepted = {name: row for name, row in rows.items() if "refused" not in row}
    with capsys.disabled():
        print(f"\n{len(accepted)} of {len(rows)} models of the onnx package; refused:")
        for name, row in refused.items():
            print(line(name, row))
        print(f"largest difference {max(row['gap'] for row in accepted.values()):.1e}")
    assert not {name: row for name, row in accepted.items() if not right(row)}
    reasons = ("cannot load", "cannot run", "cannot use a model with", "of the unknown domain")
    assert all(any(one in row["refused"] for one in reasons) for row in refused.values())
    assert len(accepted) >= 90
