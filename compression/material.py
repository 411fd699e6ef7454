"""What a job works with: the model's words, its inputs in disjoint parts, ranges on request."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from compression import description, runtime, samples, statistics
from compression.job import CompressJob, OutputSpec, Split

SHARES = (0.35, 0.15)
"""Of the inputs: to calibrate, to choose among candidates; the rest reports."""
MOST_CALIBRATING = 128
MOST_CHOOSING = 40
MOST_REPORTING = 400
_SYNTHETIC = 16


@dataclass
class Material:
    """The inputs of one job. What reports has neither calibrated nor chosen."""

    inputs: samples.Samples
    inputs_path: Path
    """The file that trials read, and whose indices `report` are."""
    outputs: tuple[OutputSpec, ...]
    guessed: frozenset[str]
    calibration: tuple[int, ...]
    choosing: tuple[int, ...]
    report: tuple[int, ...]
    split: Split
    verified: bool
    """False where no inputs came with the job and random ones stand in."""
    model_sha256: str
    keys: tuple[str, ...]
    """What every result hangs on, beside its recipe."""
    threads: int
    _ranges: dict[str, dict[str, statistics.Range]] = field(default_factory=dict)

    @classmethod
    def open(cls, job: CompressJob, work: Path) -> "Material":
        """Open and check the model's words and all inputs.

        Raises:
            BadModel: the model cannot be read or loaded.
            BadInputs: a file of inputs does not fit the model.
        """
        model_path = Path(job.model_path)
        described = description.describe(model_path)
        guessed = () if job.outputs else described.guessed
        given = job.calibration_path or job.evaluation_path
        path = Path(given) if given else _synthetic(job, work)
        inputs = samples.open_samples(path, described.inputs)
        parts = samples.split(len(inputs), job.seed, shares=SHARES)
        report, report_path = parts[2], path
        split: Split = "held-out"
        if job.evaluation_path and job.calibration_path:
            report_path, split = Path(job.evaluation_path), "evaluation"
            with samples.open_samples(report_path, described.inputs) as evaluation:
                report = tuple(range(len(evaluation)))
        model_sha256 = sha256(model_path)
        budget_threads = job.budget.threads or 1
        return cls(
            inputs=inputs,
            inputs_path=report_path,
            outputs=job.outputs or described.outputs,
            guessed=frozenset(guessed),
            calibration=parts[0][:MOST_CALIBRATING],
            choosing=parts[1][:MOST_CHOOSING],
            report=report[:MOST_REPORTING],
            split=split,
            verified=given is not None,
            model_sha256=model_sha256,
            keys=(
                model_sha256, sha256(path), sha256(report_path), str(job.seed),
                str(budget_threads), job.device_class.model_dump_json(),
            ),
            threads=budget_threads,
        )  # fmt: skip

    def close(self) -> None:
        """Close the inputs."""
        self.inputs.close()

    def calibrate(
        self, model: onnx.ModelProto, progress: Callable[[float], None] = lambda _: None
    ) -> dict[str, statistics.Range]:
        """Return the ranges of a model's tensors on the calibration part; found once per model."""
        name = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        if name not in self._ranges:
            self._ranges[name] = statistics.ranges(
                model,
                (self.inputs.sample(index) for index in self.calibration),
                count=len(self.calibration),
                threads=self.threads,
                progress=progress,
            )
        return self._ranges[name]


def sha256(path: Path) -> str:
    """Return the hash of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synthetic(job: CompressJob, work: Path) -> Path:
    """Write random inputs, for a job that came with none."""
    session = runtime.session(Path(job.model_path))
    rows = [
        runtime.synthetic(session, seed=job.seed + index, specs=job.inputs)
        for index in range(_SYNTHETIC)
    ]
    path = work / "synthetic.npz"
    samples.write(path, rows)
    return path
