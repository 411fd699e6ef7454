"""What a job works with: the model's words, its inputs in disjoint parts, ranges on request."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx

from compression import graph, provenance, samples, statistics
from compression.calibration import datafree, gathering, histograms, pacing, splits, synthesis
from compression.calibration.evidence import Evidence
from compression.findings import Division
from compression.job import CompressJob, InputSpec, OutputSpec
from compression.meaning import description
from compression.statistics import Range
from compression.workplace import Workplace

APART = (0.5, 0.5, 0.0)
"""Shares where an evaluation file reports, as of splits.SHARES."""
MOST_LOOKING = 60
"""Of the choosing part, for the look at a candidate before its trial."""
MADE_UP = (12, 48)
"""The fewest and the most samples where none came; within `MADE_UP_BYTES` between them."""
MADE_UP_BYTES = 64 * 2**20


@dataclass
class Material:
    """The inputs of one job. What reports has neither calibrated nor chosen."""

    inputs: samples.Samples
    inputs_path: Path
    """The file that calibrates and chooses, opened as `inputs`."""
    report_path: Path
    """The file that reports, whose indices `report` are."""
    outputs: tuple[OutputSpec, ...]
    guessed: frozenset[str]
    calibration: tuple[int, ...]
    fitting: tuple[int, ...]
    """What weights may be fitted to: `calibration`, and more of its part."""
    choosing: tuple[int, ...]
    report: tuple[int, ...]
    division: Division
    verified: bool
    """False where no inputs came with the job and made-up ones stand in."""
    model_sha256: str
    keys: tuple[str, ...]
    """What every result hangs on, beside its recipe."""
    threads: int
    work_memory_mib: float
    most_looking: int = MOST_LOOKING
    once_s: float = 0.0
    """What one run of the original takes, in seconds, once it is known."""
    beliefs: datafree.Beliefs | None = None
    """Where nothing is verified: what is believed of ranges beyond what was seen."""
    workplace: Workplace | None = None
    """Where passes that train keep what they have."""
    evidence: Evidence = field(init=False)
    """What else the passes ask about the calibration part."""
    _ranges: dict[str, dict[str, Range]] = field(default_factory=dict)
    _best: dict[str, dict[str, Range]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.evidence = Evidence(
            self._calibrating,
            threads=self.threads,
            work_memory_mib=self.work_memory_mib,
            sources=lambda: self.sources(self.calibration),
            outputs=self.outputs,
            wide=Evidence(
                lambda: self._samples(self.fitting),
                threads=self.threads,
                work_memory_mib=self.work_memory_mib,
                sources=lambda: self.sources(self.fitting),
                outputs=self.outputs,
            ),
        )

    @classmethod
    def open(cls, job: CompressJob, work: Path) -> "Material":
        """Open and check the model's words and all inputs.

        Raises:
            BadModel: the model cannot be read or loaded.
            BadInputs: a file of inputs does not fit the model.
        """
        model_path = Path(job.model_path)
        described = description.describe(model_path)
        outputs = description.told(described.outputs, job.outputs)
        given = job.calibration_path or job.evaluation_path
        path = Path(given) if given else _synthetic(job, work)
        inputs = samples.open_samples(path, described.inputs)
        try:
            parts = _divided(job, inputs)
            if _reported_apart(job):
                report_path = Path(str(job.evaluation_path))
                report = _evaluation(report_path, described.inputs)
                division = parts.division(reporting=len(report), split="evaluation")
            else:
                report, report_path = parts.reporting, path
                division = parts.division(split=None if given else "synthetic")
            beliefs = None if given else _beliefs(model_path, inputs, parts.calibrating)
        except BaseException:
            inputs.close()
            raise
        model_sha256 = sha256(model_path)
        budget_threads = job.budget.threads or 1
        return cls(
            inputs=inputs,
            inputs_path=path,
            report_path=report_path,
            outputs=outputs,
            guessed=frozenset(one.name for one in outputs if one.guessed),
            calibration=parts.calibrating,
            fitting=parts.fitting,
            choosing=parts.choosing,
            report=report,
            division=division,
            verified=given is not None,
            model_sha256=model_sha256,
            keys=(
                model_sha256, sha256(path), sha256(report_path), str(job.seed),
                str(parts), str(budget_threads), job.device_class.model_dump_json(),
                provenance.code(),
            ),
            threads=budget_threads,
            work_memory_mib=job.work_memory_mib,
            beliefs=beliefs,
        )  # fmt: skip

    @property
    def looking(self) -> tuple[int, ...]:
        """The samples of the choosing part for a first look, spread over it."""
        return pacing.spread(self.choosing, self.most_looking)

    def pace(self, *, once_s: float, within_s: float) -> None:
        """Use fewer inputs where one run takes `once_s` and the whole job `within_s`, in seconds.

        To be called before anything is calibrated.
        """
        found = pacing.counts(once_s=once_s, within_s=within_s)
        self.once_s = once_s
        self.calibration = pacing.spread(self.calibration, found.calibrating)
        more = [one for one in self.fitting if one not in frozenset(self.calibration)]
        lacking = min(len(more), max(0, found.fitting - len(self.calibration)))
        self.fitting = tuple(sorted((*self.calibration, *pacing.spread(tuple(more), lacking))))
        fitting = len(self.fitting) if lacking else 0
        counts = {"calibrating": len(self.calibration), "fitting": fitting}
        self.division = self.division.model_copy(update=counts)
        self.most_looking = min(MOST_LOOKING, found.looking)
        kept = f"{len(self.calibration)} calibrate, {len(self.fitting)} are fitted to"
        self.keys = (*self.keys, f"{kept}, {len(self.looking)} are seen")

    def close(self) -> None:
        """Close the inputs."""
        self.inputs.close()

    def calibrate(
        self,
        model: onnx.ModelProto,
        *,
        least_error: tuple[str, ...] = (),
        progress: Callable[[float], None] = lambda _: None,
    ) -> dict[str, Range]:
        """Return the ranges of a model's tensors on the calibration part; found once per model.

        Those of the tensors in `least_error` end where 256 steps round their values best.
        """
        name = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        if name not in self._ranges:
            seen = statistics.ranges(
                model,
                self._calibrating(),
                count=len(self.calibration),
                threads=self.threads,
                progress=progress,
            )
            self._ranges[name] = seen if self.beliefs is None else self.beliefs.widen(model, seen)
        best = self._best.setdefault(name, {})
        if lacking := [tensor for tensor in least_error if tensor not in best]:
            best |= self._least_error(model, lacking)
        return self._ranges[name] | {tensor: best[tensor] for tensor in least_error}

    def _least_error(self, model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Range]:
        found: dict[str, Range] = {}
        for name, seen in gathering.stream(
            model,
            self._calibrating,
            count=len(self.calibration),
            wanted=dict.fromkeys(names, gathering.What(histogram=True)),
            work_memory_mib=self.work_memory_mib,
            threads=self.threads,
        ):
            assert seen.histogram is not None
            low, high = histograms.least_error_range(seen.histogram)
            found[name] = replace(seen.range, low=low, high=high)
        return found

    def _calibrating(self) -> Iterator[samples.Arrays]:
        return self._samples(self.calibration)

    def _samples(self, indices: tuple[int, ...]) -> Iterator[samples.Arrays]:
        return (self.inputs.sample(index) for index in indices)

    def sources(self, indices: tuple[int, ...]) -> Sequence[int]:
        """The source of each of these samples."""
        every = self.inputs.sources()
        return indices if every is None else [every[at] for at in indices]


def _divided(job: CompressJob, inputs: samples.Samples) -> splits.Splits:
    shares = APART if _reported_apart(job) else splits.SHARES
    digests = [_digest(inputs.sample(index)) for index in range(len(inputs))]
    return splits.divide(digests, seed=job.seed, sources=inputs.sources(), shares=shares)


def _reported_apart(job: CompressJob) -> bool:
    return bool(job.evaluation_path and job.calibration_path)


def _evaluation(path: Path, inputs: Sequence[InputSpec]) -> tuple[int, ...]:
    """Check every sample that reports, so that a bad one is told before the work begins."""
    with samples.open_samples(path, inputs) as evaluation:
        report = tuple(range(min(len(evaluation), splits.MOST[2])))
        for index in report:
            evaluation.sample(index)
    return report


def _digest(sample: samples.Arrays) -> bytes:
    """Return a hash that is equal for samples which are equal to the last bit."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sample.items():
        found.update(f"{name} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.digest()


def sha256(path: Path) -> str:
    """Return the hash of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synthetic(job: CompressJob, work: Path) -> Path:
    """Make up inputs, for a job that came with none; as many as fit into some bytes."""
    fewest, most = MADE_UP
    make = partial(synthesis.make, Path(job.model_path), seed=job.seed, specs=job.inputs)
    (first,) = make(count=1)
    size = max(1, sum(array.nbytes for array in first.values()))
    path = work / "synthetic.npz"
    samples.write(path, make(count=min(most, max(fewest, MADE_UP_BYTES // size))))
    return path


def _beliefs(
    model_path: Path, inputs: samples.Samples, calibrating: Sequence[int]
) -> datafree.Beliefs:
    def feeds() -> Iterator[samples.Arrays]:
        return (inputs.sample(index) for index in calibrating)

    return datafree.read(graph.load(model_path), feeds, count=len(calibrating))
