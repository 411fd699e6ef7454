"""Keeps a job's rungs on disk: put before they are told of, found again after a kill, swept."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from compression import durable, ladder
from compression.calibration.material import sha256
from compression.findings import Agreement, Ladder, Measurement, Rung
from compression.job import Recipe, Runtime
from compression.packed import reading
from compression.stream import Tried


class Shelf:
    """The folder of a job: rungs and probes in it, what is being made in `work` below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)

    def candidate(self, key: str) -> Path:
        """Where a candidate is made."""
        return self.work / f"candidate-{key[:12]}.onnx"

    def probe(self, key: str) -> Path:
        """Where a candidate's trial writes its probe."""
        return self.work / f"probe-{key[:12]}.npz"

    def copy(self, key: str, source: Path) -> Path:
        """Make a candidate of a file as it is."""
        target = self.candidate(key)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target, follow_symlinks=True)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
        return target

    def put(
        self,
        key: str,
        file: Path,
        *,
        recipe: Recipe,
        runtime: Runtime,
        measurement: Measurement,
        verified: bool,
        chosen_by: Agreement | None = None,
        predicted_ratio: float | None = None,
    ) -> Rung:
        """Move a candidate into place, then remember it: a power cut between repeats its trial."""
        digest = sha256(file)
        suffix = reading.SUFFIX if reading.is_packed(file) else ""
        target = self._folder / f"rung-{digest[:12]}.onnx{suffix}"
        placed = self._folder / f"probe-{digest[:12]}.npz"
        file.replace(target)
        if self.probe(key).exists():
            self.probe(key).replace(placed)
        rung = Rung(
            file=target.name,
            sha256=digest,
            recipe=recipe,
            runtime=runtime,
            measurement=measurement,
            meets_budget=False,  # the budget of each run decides
            verified=verified,
            probe=placed.name if placed.exists() else None,
            chosen_by=chosen_by,
            predicted_ratio=predicted_ratio,
        )
        durable.replace(self._note(key), Tried(rung=rung).to_json())
        return rung

    def remember(self, key: str, how: Runtime, found: Measurement) -> None:
        """Keep what a candidate was chosen by, so that a run after a kill needs no second trial."""
        durable.replace(self._choice(key, how), found.to_json())

    def recall(self, key: str, how: Runtime) -> Measurement | None:
        """What a candidate, run so, was chosen by in an earlier run."""
        try:
            return Measurement.model_validate_json(self._choice(key, how).read_bytes())
        except (OSError, ValidationError):
            return None

    def get(self, key: str) -> Rung | None:
        """The rung of an earlier run, if it is there and whole."""
        try:
            rung = Tried.model_validate_json(self._note(key).read_bytes()).rung
            if rung is None or sha256(self._folder / rung.file) != rung.sha256:
                return None
            whole = rung.probe is None or (self._folder / rung.probe).exists()
        except (OSError, ValidationError):
            return None
        return rung if whole else None

    def close(self, found: Ladder, *, keep: Sequence[str] = ()) -> None:
        """Write the ladder, then remove what neither a rung nor `keep` names."""
        ladder.save(found, self._folder)
        kept = {*keep, *(name for rung in found.rungs for name in (rung.file, rung.probe))}
        for pattern in ("rung-*.onnx*", "probe-*.npz"):
            for path in self._folder.glob(pattern):
                if path.name not in kept:
                    path.unlink()
        for pattern in ("candidate-*", "probe-*", "*.tmp"):
            for path in self.work.glob(pattern):
                path.unlink()

    def _choice(self, key: str, how: Runtime) -> Path:
        said = how.model_dump_json(exclude_defaults=True)
        run = "" if said == "{}" else f"-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        return self.work / f"chosen-{key}{run}.json"

    def _note(self, key: str) -> Path:
        return self.work / f"tried-{key}.json"
