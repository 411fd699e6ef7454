"""What cutting channels costs: held-out agreement against the share of products left, in a table.

Run by `./dev prove benchmarks -k pruning`; `TRIMTAB_PRUNING` names models, if not all are wanted.
Each row is made in a process of its own, whose peak memory it shows. Inputs are in the order of
the calibration files, of which some have fewer than the most that is asked for.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression import graph, job
from compression.meaning import description
from tests.fixtures import models, more, printed, renders
from tests.fixtures.trained import collection

ROW = Path(__file__).with_name("pruning_row.py")
SHARES = (0.75, 0.5, 0.3)
COUNTS = (32, 256, 2000)
WAYS = {
    "magnitude": {"order": "magnitude", "refit": False},
    "activations": {"order": "activations", "refit": False},
    "magnitude, refit": {"order": "magnitude", "refit": True},
    "activations, refit": {"order": "activations", "refit": True},
}
JUDGING = 400
OUGHT = {("svhn", 256): 0.95, ("mnist", 256): 0.95, ("recogniser", 256): 0.95}
"""Agreement at half of the products, by activations and refitted."""
MOST_MIB = {"recogniser": 400.0}
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model, as many inputs to calibrate with as are asked for, and others that judge."""

    onnx: Path
    outputs: tuple[job.OutputSpec, ...]
    calibrating: Callable[[int], Arrays]
    judging: Arrays


def fixture(name: str) -> Case:
    found = (models.FIXTURES | more.MORE)[name]()
    makers: dict[str, Callable[[int], Arrays]] = {
        "svhn": lambda count: {"image": renders.digits(count, seed=77)[0]},
        "text-angle": lambda count: {"x": renders.lines(count, seed=77)[0]},
        "recogniser": _lines,
    }
    with np.load(found.calibration) as held:
        own = dict(held)
    with np.load(found.evaluation) as held:
        judging = dict(held)
    described = description.describe(found.onnx)
    name_, _, rest = found.outputs.partition("=")
    kind, _, blank = rest.partition(":")
    spec = job.OutputSpec.model_validate(
        {"name": name_, "kind": kind, "blank": int(blank) if blank else None}
    )
    outputs = description.told(described.outputs, (spec,))
    return Case(found.onnx, outputs, makers.get(name, lambda count: first(own, count)), judging)


def _lines(count: int) -> Arrays:
    return {f"x::{at:04d}": one for at, one in enumerate(printed.lines(count, seed=77)[0])}


def trained(name: str) -> Case:
    found = collection.load(name)
    return Case(
        found.onnx,
        found.outputs,
        lambda count: found.make_inputs(count, collection.CALIBRATION_SEED),
        found.make_inputs(JUDGING, collection.EVALUATION_SEED),
    )


CASES: dict[str, Callable[[str], Case]] = {
    **dict.fromkeys(("svhn", "mnist", "text-angle"), fixture),
    **dict.fromkeys(collection.NAMES, trained),
    "recogniser": fixture,
}


def first(arrays: Arrays, count: int) -> Arrays:
    """The first samples of arrays as `np.savez` takes them."""
    ragged = {name for name in arrays if "::" in name.lstrip(":") and not name.startswith("::")}
    return {
        name: array if name in ragged else array[:count]
        for name, array in arrays.items()
        if not name.startswith("::") and (name not in ragged or int(name.split("::")[1]) < count)
    }


def rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    case = CASES[name](name)
    regular = folder / "regular.onnx"
    regular.write_bytes(graph.regular(case.onnx).SerializeToString())
    np.savez(folder / "judging.npz", **first(case.judging, JUDGING))
    specs = [one.model_dump(mode="json") for one in case.outputs]
    for count in COUNTS:
        calibrating = case.calibrating(count)
        if count > COUNTS[0] and _samples(calibrating) <= COUNTS[COUNTS.index(count) - 1]:
            continue
        np.savez(folder / "calibrating.npz", **calibrating)
        for way, parameters in WAYS.items():
            for share in SHARES:
                asked = {"folder": str(folder), "outputs": specs, "keep": share, **parameters}
                done = subprocess.run(
                    [sys.executable, str(ROW), json.dumps(asked)],
                    capture_output=True, text=True, check=False, env={**os.environ, **QUIET},
                )  # fmt: skip
                found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
                problem = "" if found else done.stderr.strip().splitlines()[-1][:60]
                yield {"inputs": _samples(calibrating), "way": way, "keep": share,
                       "problem": problem, **found}  # fmt: skip


QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


def _samples(arrays: Arrays) -> int:
    name = next(iter(arrays))
    return len(arrays) if "::" in name else len(arrays[name])


@pytest.mark.prove
def test_what_cut_channels_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wanted = os.environ.get("TRIMTAB_PRUNING", "").split(",")
    names = [name for name in CASES if wanted == [""] or name in wanted]
    low: list[str] = []
    with capsys.disabled():
        print(f"\n{'model':12} {'inputs':>6} {'MACs':>5} {'agreement':>9} {'s':>5} {'MiB':>5}  way")
        for name in names:
            folder = tmp_path / name
            folder.mkdir()
            for row in rows(name, folder):
                if row["problem"]:
                    print(f"{name:12} {row['inputs']:6} {row['keep']:5}  {row['problem']}")
                    continue
                print(
                    f"{name:12} {row['inputs']:6} {row['macs']:5.2f} {row['agreement']:9.3f} "
                    f"{row['cpu_s']:5.0f} {row['peak_mib']:5.0f}  {row['way']}",
                    flush=True,
                )
                ought = OUGHT.get((name, row["inputs"]), 0.0) * (row["keep"] == 0.5)
                if row["way"] == "activations, refit" and row["agreement"] < ought:
                    low.append(f"{name}: {row['agreement']:.3f} < {ought}")
                if row["peak_mib"] > MOST_MIB.get(name, 1e9):
                    low.append(f"{name}: {row['peak_mib']:.0f} MiB")
    assert not low
