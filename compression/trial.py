"""One measurement in a process of its own: `python -P -m compression.trial`.

A TrialJob as one JSON line on stdin; one JSON line out, a Measurement or why there is none (or a
KernelJob: what small models cost, `compression.latency.timing`; or a MemoryJob: what a file takes
in memory). The candidate first loads alone in a forked child (its memory), then beside the
original: what they answer, then how long they take, in interleaved rounds of original, candidate,
original.
"""

import filecmp
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compression import agreement, apart, child, errors, runtime, samples
from compression.findings import Measurement
from compression.job import (
    KernelCosts,
    KernelJob,
    MemoryJob,
    MemoryPeaks,
    OutputSpec,
    Runtime,
    TrialJob,
)
from compression.latency import timing
from compression.meaning import kinds
from compression.meaning.seen import Seen
from compression.packed import reading
from compression.ruler import answers, conditions, endings, footprint, interleaving
from compression.stream import Failed
from compression.words import explain

_JOB: TypeAdapter[TrialJob | KernelJob | MemoryJob] = TypeAdapter(TrialJob | KernelJob | MemoryJob)
PROBES = 4
AGREEMENT_SHARE = 0.7
"""Of the trial's seconds: judging every input matters more than many rounds."""
LEAST_JUDGED = 64
"""Inputs that judge although time is over, for at most as long again: fewer decide nothing."""


def main() -> int:
    """Run the trial that stdin asks for; exit 0 with a Measurement, 1 with a Failed."""
    out = child.clean_stdout()
    try:
        job = _JOB.validate_json(child.read_line())
    except ValidationError as error:
        message = f"cannot read the trial: {explain(error)}"
        out.write(Failed(kind="internal", message=message).to_json().decode() + "\n")
        return 1
    watch: list[child.Parent] = []
    try:
        answer = _answered(job, watch)
    except Exception as error:  # the parent decides what each kind means
        name = Path(job.candidate_path).name if isinstance(job, TrialJob) else "a small model"
        died = endings.of_memory(error, name)
        answer = Failed(**errors.to_wire(died or error))
    for parent in watch:
        parent.finished()
    out.write(answer.to_json().decode() + "\n")
    return 1 if isinstance(answer, Failed) else 0


def _answered(
    job: TrialJob | KernelJob | MemoryJob, watch: list[child.Parent]
) -> Measurement | KernelCosts | MemoryPeaks | Failed:
    if isinstance(job, TrialJob):
        return measure(job, watch)
    if isinstance(job, MemoryJob):
        return footprint.peaks(job)
    watch.append(child.Parent())
    return timing.measure(job)


def measure(
    job: TrialJob, watch: list[child.Parent], *, root: Path = conditions.ROOT
) -> Measurement:
    """Measure as `job` says; after the forks a watcher of stdin starts and is put into `watch`.

    Raises:
        BadModel: a model does not load or run, answers NaN, or differently each time.
        BadInputs: the inputs do not fit the original.
        CannotRun: a model killed its process, or needs more memory or time than there is.
    """
    began = time.monotonic()
    candidate_path, original_path = Path(job.candidate_path), Path(job.original_path)
    if missing := [path for path in (candidate_path, original_path) if not path.is_file()]:
        raise errors.BadModel(f"cannot use model {missing[0].name}: no such file")
    plain = Runtime(threads=job.runtime.threads)
    memory = footprint.peak(candidate_path, job, job.runtime)
    same = job.runtime == plain and filecmp.cmp(candidate_path, original_path, shallow=False)
    original_memory = memory if same else footprint.peak(original_path, job, plain)
    watch.append(child.Parent())
    original = runtime.session(original_path, runtime.options(plain))
    candidate = runtime.session(candidate_path, runtime.options(job.runtime))
    with samples.open_samples(Path(job.inputs_path), runtime.inputs(original)) as inputs:
        bench = interleaving.Bench(original, candidate, inputs, _chosen(job, inputs), root)
        outputs = job.outputs or _guessed(bench.original)
        judge, each = agreement.Judge(outputs), apart.Apart(outputs) if job.each else None
        _judge(job, bench, (judge, each), same=same, began=began)
        deadline = began + job.seconds
        latest = deadline + job.seconds + footprint.GRACE_S
        figures, method = bench.run(interleaving.Plan(job.rounds, deadline, latest))
        if job.probe_path:
            _probe(Path(job.probe_path), candidate, inputs, bench.indices[:PROBES])
    if same:
        figures |= _equal(figures)
    return Measurement(
        **figures,
        peak_memory_mib=memory.mib,
        original_peak_memory_mib=original_memory.mib,
        size_mib=candidate_path.stat().st_size / 2**20,
        original_size_mib=original_path.stat().st_size / 2**20,
        expanded_mib=_expanded(candidate_path),
        agreement=judge.agreement(job.split, guessed=not job.outputs),
        labelled=judge.labelled(),
        sqnr_db=judge.sqnr_db(),
        threads=job.runtime.threads,
        samples=judge.samples,
        method={"memory": memory.method, **method},
        each=each.found() if each else None,
    )


def _expanded(path: Path) -> float | None:
    return reading.expanded_bytes(path) / 2**20 if reading.is_packed(path) else None


def _chosen(job: TrialJob, inputs: samples.Samples) -> tuple[int, ...]:
    indices = job.sample_indices or tuple(range(len(inputs)))
    if beyond := [index for index in indices if not 0 <= index < len(inputs)]:
        raise errors.BadInputs(f"cannot use sample {beyond[0]}: there are {len(inputs)}")
    return indices


def _judge(
    job: TrialJob,
    bench: interleaving.Bench,
    judges: tuple[agreement.Judge, apart.Apart | None],
    *,
    same: bool,
    began: float,
) -> None:
    """Compare the answers to as many samples as there is time for, with pauses."""
    names = Path(job.original_path).name, Path(job.candidate_path).name
    first = bench.indices[0]
    answers.ask_twice(names[0], bench.original, bench.inputs.sample(first), sample=first)
    if not same:
        answers.ask_twice(names[1], bench.candidate, bench.inputs.sample(first), sample=first)
    judge, each = judges
    labels = bench.inputs.labels()
    stop = began + job.seconds * AGREEMENT_SHARE
    for index in _until(stop, bench.indices, latest=stop + job.seconds):
        feeds = bench.inputs.sample(index)
        wanted = answers.ask(names[0], bench.original, feeds, sample=index)
        got = wanted if same else answers.ask(names[1], bench.candidate, feeds, sample=index)
        judge.add(wanted, got, None if labels is None else labels[index])
        if each is not None:
            each.add(wanted, got)
        bench.pace.rest()


def _equal(figures: dict[str, Any]) -> dict[str, float]:
    """The ratio of a model to itself is 1; what the clocks say of it is their error."""
    return {
        "latency_ratio": 1.0,
        "ratio_low": min(1.0, figures["ratio_low"]),
        "ratio_high": max(1.0, figures["ratio_high"]),
    }


def _until(stop: float, indices: tuple[int, ...], *, latest: float) -> Iterator[int]:
    """As many indices as there is time for: at least one, and few only where `latest` is past."""
    for count, index in enumerate(indices):
        if count and time.monotonic() > (latest if count < LEAST_JUDGED else stop):
            return
        yield index


def _guessed(session: Any) -> tuple[OutputSpec, ...]:
    specs = [runtime.input_spec(value) for value in session.get_outputs()]
    return kinds.guess_all([Seen(spec.name, spec.shape) for spec in specs])


def _probe(path: Path, session: Any, inputs: samples.Samples, indices: tuple[int, ...]) -> None:
    """Write a few inputs and this model's own answers, for a server to check after loading."""
    feeds = [inputs.sample(index) for index in indices]
    name = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    beside = path.with_name(f".{name}.tmp")
    samples.write(beside, feeds, expected=[runtime.run(session, one) for one in feeds])
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
