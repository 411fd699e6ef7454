"""What zeros are worth: bytes on disk, agreement, and what loading a packed file costs, in a table.

Run by `./dev prove benchmarks -k sparse`; `TRIMTAB_SPARSE` names models, if not all are wanted.
Bytes are in parts of the float model's: as ONNX, as ONNX in zstd at its best, packed. Of loading,
plain and packed: CPU time, in turn in one process; peak memory, each first in a fresh process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression import graph
from tests.benchmarks import test_pruning as cutting

ROW = Path(__file__).with_name("sparse_row.py")
LOAD = Path(__file__).with_name("sparse_load.py")
MODELS = ("svhn", "mnist", "text-angle", "magika", "recogniser")
SHARES = (0.0, 0.5, 0.7, 0.9)
CALIBRATING = {"recogniser": 64}
OUGHT = {("svhn", 0.7): 0.95, ("mnist", 0.9): 0.95, ("magika", 0.7): 0.95}
"""Agreement of the float form."""


def said(program: Path, *words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(program), *words],
        capture_output=True, text=True, check=True, env={**os.environ, **cutting.QUIET},
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    case = cutting.fixture(name)
    (folder / "regular.onnx").write_bytes(graph.regular(case.onnx).SerializeToString())
    np.savez(folder / "judging.npz", **cutting.first(case.judging, cutting.JUDGING))
    np.savez(folder / "calibrating.npz", **case.calibrating(CALIBRATING.get(name, 256)))
    specs = [one.model_dump(mode="json") for one in case.outputs]
    for share in SHARES:
        asked = {"folder": str(folder), "outputs": specs, "sparsity": share}
        for row in said(ROW, json.dumps(asked)):
            paths = [str(folder / f"{row['name']}.onnx{suffix}") for suffix in ("", ".packed")]
            (plain,) = said(LOAD, str(folder / "warm.onnx"), *paths)
            (packed,) = said(LOAD, str(folder / "warm.onnx"), paths[1])
            yield {
                "model": name, "share": share, **row,
                "ms": plain["ms0"], "ms.packed": plain["ms1"],
                "peak": plain["peak_mib"], "peak.packed": packed["peak_mib"],
            }  # fmt: skip


@pytest.mark.prove
def test_what_zeros_are_worth(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wanted = os.environ.get("TRIMTAB_SPARSE", "").split(",")
    low: list[str] = []
    with capsys.disabled():
        print(f"\n{'model':11} {'zeros':>5} {'form':12} {'onnx':>5} {'zstd':>5} {'packed':>6} "
              f"{'agreement':>14} {'load ms':>13} {'peak MiB':>13} {'s':>4}")  # fmt: skip
        for name in [one for one in MODELS if wanted == [""] or one in wanted]:
            folder = tmp_path / name
            folder.mkdir()
            whole = 0
            for row in rows(name, folder):
                whole = whole or row["plain"]
                sizes = [row[key] / whole for key in ("plain", "zstd", "packed")]
                print(
                    f"{name:11} {row['share']:5.1f} {row['form']:12} {sizes[0]:5.3f} "
                    f"{sizes[1]:5.3f} {sizes[2]:6.3f} {row['agreement']:6.3f} [{row['low']:.3f}] "
                    f"{row['ms']:6.1f} {row['ms.packed']:6.1f} {row['peak']:6.1f} "
                    f"{row['peak.packed']:6.1f} {row['cpu_s']:4.0f}",
                    flush=True,
                )
                if row["packed"] > row["zstd"]:
                    low.append(f"{name}: packed {row['packed']}, zstd {row['zstd']}")
                ought = OUGHT.get((name, row["share"]), 0.0) * (row["form"] == "float")
                if row["agreement"] < ought:
                    low.append(f"{name}: {row['agreement']:.3f} < {ought}")
    assert not low
