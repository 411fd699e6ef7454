"""Makes the peers' variants, each in a process of its own, and keeps them by content."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.peers.grid import Setting
from tests.benchmarks.peers.material import Material, sha256
from tests.fixtures import wheels

VERSION = 1
"""Raise it where quantize_one.py changes what it writes: cached variants are then made anew."""
SECONDS = 400.0
_HERE = Path(__file__).parent
_CONSTRAINTS = _HERE / "constraints.txt"


@dataclass(frozen=True)
class Built:
    """One variant: its file, or why there is none; what it took on one core."""

    label: str
    path: str
    failed: str
    user_s: float
    peak_mib: float


def folder() -> Path:
    """Where the peers' environment and variants lie."""
    found = wheels.cache().parent / "peers"
    found.mkdir(parents=True, exist_ok=True)
    return found


def python() -> Path:
    """The interpreter of the peers' virtual environment, which is made on first use."""
    name = hashlib.sha256(_CONSTRAINTS.read_bytes()).hexdigest()[:12]
    made = folder() / f"venv-{name}"
    found = made / "bin" / "python"
    with wheels.locked(f"peers-venv-{name}"):
        if not (made / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(made)], check=True)
            subprocess.run(
                [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                 "--requirement", str(_CONSTRAINTS)],
                check=True,
            )  # fmt: skip
            (made / "complete").touch()
    return found


def prepare(material: Material) -> Built:
    """The model as the tools want it: folded, with shapes, in operator set 17."""
    return build("prepared", {"tool": "prepare"}, material, material.model)


def build(label: str, setting: Setting, material: Material, model: Path) -> Built:
    """One variant of `model` by `setting`, from the cache where it lies there."""
    named = json.dumps([VERSION, setting], sort_keys=True)
    contents = [named, sha256(model), sha256(material.calibration), sha256(_CONSTRAINTS)]
    key = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:16]
    into = folder() / material.name
    into.mkdir(exist_ok=True)
    out, record = into / f"{key}.onnx", into / f"{key}.json"
    if not record.exists():
        part = into / f"{key}.part.onnx"
        with_ranges = setting | {"ranges_path": str(into / f"{_ranges(setting, contents)}.ranges")}
        found = _run(with_ranges, [model, material.calibration, part])
        if not found["failed"]:
            part.replace(out)
        part.unlink(missing_ok=True)
        record.write_text(json.dumps(found | {"setting": setting, "label": label}))
    found = json.loads(record.read_text())
    path = "" if found["failed"] else str(out)
    return Built(label, path, found["failed"], found["user_s"], found["peak_mib"])


def _ranges(setting: Setting, contents: list[str]) -> str:
    """The name of the ranges that static settings share: what they are found by."""
    what = [setting.get(name) for name in ("ranges", "operators", "extra")]
    return hashlib.sha256(json.dumps([what, contents[1:]]).encode()).hexdigest()[:16]


def _run(setting: Setting, paths: list[Path]) -> dict[str, float | str]:
    command = [str(python()), str(_HERE / "quantize_one.py"), json.dumps(setting)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = environment["OPENBLAS_NUM_THREADS"] = "1"
    try:
        # Some of the tools leave files where they are started.
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [*command, *(str(path.resolve()) for path in paths)], cwd=scratch, env=environment,
                capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer after {SECONDS:.0f} s", "user_s": SECONDS, "peak_mib": 0.0}
    try:
        answer: dict[str, float | str] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        why = f"crashed with {done.returncode}: {last}"[:160]
        return {"failed": why, "user_s": 0.0, "peak_mib": 0.0}
    return answer


def describe(built: Built) -> str:
    """One variant as a JSON line."""
    return json.dumps(asdict(built))
