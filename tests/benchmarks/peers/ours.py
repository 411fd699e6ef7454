"""Runs `trimtab compress` with default options and notes what it took."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from compression.findings import Ladder
from tests.benchmarks.peers.material import Material

ANSWERED = {0, 3}
"""Exit codes that leave a ladder: done, and nothing fits the budget."""
_EVERY_S = 0.1


@dataclass(frozen=True)
class Ours:
    """The variants by label, or why there are none; `peak_mib` of the largest process."""

    rungs: dict[str, Path]
    failed: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mib: float = 0.0


def compress(material: Material, into: Path) -> Ours:
    """Compress into a folder, where `taken.json` keeps what it took."""
    into.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "agent", "compress", str(material.model),
        "--calibration", str(material.calibration), "--out", str(into),
    ]  # fmt: skip
    began = time.monotonic()
    with (into / "compress.log").open("w") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)
        peak_mib = 0.0
        while True:
            pid, status, used = os.wait4(started.pid, os.WNOHANG)
            if pid:
                break
            peak_mib = max(peak_mib, _largest_mib(started.pid))
            time.sleep(_EVERY_S)
        started.returncode = os.waitstatus_to_exitcode(status)
    taken = {
        "wall_s": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": peak_mib,
        "code": started.returncode,
    }
    (into / "taken.json").write_text(json.dumps(taken))
    return read(into)


def read(folder: Path) -> Ours:
    """What lies in the folder of an earlier `compress`."""
    taken = {"wall_s": 0.0, "cpu_s": 0.0, "peak_mib": 0.0, "code": 0}
    if (folder / "taken.json").exists():
        taken = json.loads((folder / "taken.json").read_text())
    figures = {key: float(taken[key]) for key in ("wall_s", "cpu_s", "peak_mib")}
    if taken["code"] not in ANSWERED or not (folder / "ladder.json").exists():
        log = folder / "compress.log"
        last = (log.read_text().strip().splitlines() if log.exists() else []) or ["no ladder"]
        return Ours({}, failed=f"exit code {taken['code']}: {last[-1]}"[:160], **figures)
    ladder = Ladder.model_validate_json((folder / "ladder.json").read_text())
    rungs = {
        f"ours: {rung.recipe.label} ({rung.sha256[:6]})": folder / rung.file
        for rung in ladder.rungs
        if rung.recipe.passes
    }
    return Ours(rungs, **figures)


def _largest_mib(pid: int) -> float:
    """The highest peak among the processes below `pid` that still live."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0.0
    return max(_peaks_mib(process.pid for process in below), default=0.0)


def _peaks_mib(pids: Iterable[int]) -> list[float]:
    found = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return found
