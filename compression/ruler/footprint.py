"""What a model adds to a process's memory: loaded and run alone, in a forked child."""

import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compression import columns, runtime, samples
from compression.errors import BadInputs, BadModel, CannotRun, from_wire, to_wire
from compression.job import InputSpec, MemoryJob, MemoryPeaks, Runtime, TrialJob
from compression.ruler import endings, resident

GRACE_S = 20.0
"""Beyond the trial's seconds: the load of a large model from a slow card."""

_PR_SET_PDEATHSIG = 1
_RUNS = 2
_STDIN = 0


@dataclass(frozen=True)
class Peak:
    """The peak above the imported runtime, in MiB, and how it was taken."""

    mib: float
    method: str


def peaks(job: MemoryJob) -> MemoryPeaks:
    """The peak of a file in each way to run it; None where it does not.

    Raises:
        BadInputs: the inputs do not fit it.
    """
    found: list[float | None] = []
    for how in job.ways:
        try:
            found.append(peak(Path(job.model_path), job, how).mib)
        except (BadModel, CannotRun):
            found.append(None)
    return MemoryPeaks(peaks_mib=tuple(found))


def peak(model: Path, job: TrialJob | MemoryJob, how: Runtime) -> Peak:
    """Load `model` and run the largest shape in a forked child; call before any thread starts.

    Ends this process when its stdin ends, because then nobody waits for the answer.

    Raises:
        BadModel: it does not load or run.
        BadInputs: the inputs do not fit it.
        CannotRun: it killed the child, needs more memory than there is, or took longer than
            the trial's seconds and `GRACE_S`.
    """
    pages = resident.mapped_file_pages()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    limit_s = job.seconds + GRACE_S
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _die_with(parent, cpu_s=limit_s * how.threads)
        _child(model, job, how, write_end, pages)
    os.close(write_end)
    text = _answer(read_end, pid, deadline=time.monotonic() + limit_s)
    os.close(read_end)
    if text is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if text is None:
        raise CannotRun(f"cannot run {model.name} here: no end of its first runs in {limit_s:g} s")
    if not text:
        raise CannotRun(f"cannot run {model.name} here: {endings.death(status)}")
    answer = json.loads(text)
    if "kind" in answer:
        raise from_wire(answer["kind"], answer["message"])
    return Peak(**answer)


def _answer(fd: int, pid: int, *, deadline: float) -> bytes | None:
    """Read what the child writes until it ends; None where the deadline came first."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        ready, _, _ = select.select([fd, _STDIN], [], [], max(0.0, left))
        if fd in ready:
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
        elif _STDIN in ready and not os.read(_STDIN, 1):
            os.kill(pid, signal.SIGKILL)
            os._exit(1)
        elif left <= 0:
            return None


def _die_with(parent: int, *, cpu_s: float) -> None:
    """See to it that a child in an endless loop ends, whatever becomes of its parent."""
    bound = math.ceil(cpu_s) + 10
    resource.setrlimit(resource.RLIMIT_CPU, (bound, bound))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be told
        os._exit(1)


def _child(
    model: Path, job: TrialJob | MemoryJob, how: Runtime, fd: int, pages: list[int] | None
) -> None:
    """Measure and write the answer; never returns, so that the parent's cleanup runs once."""
    try:
        answer: dict[str, object] = _measure(model, job, how, pages)
    except Exception as error:  # whatever it is, the parent must hear of it
        answer = dict(to_wire(endings.of_memory(error, model.name) or error))
    os.write(fd, json.dumps(answer).encode())
    os._exit(0)


def _measure(
    model: Path, job: TrialJob | MemoryJob, how: Runtime, pages: list[int] | None
) -> dict[str, object]:
    resident.touch(pages or [])
    reset = resident.reset_peak()
    before_kib = resident.kib("VmRSS")
    session = runtime.session(model, runtime.options(how))
    with samples.open_samples(Path(job.inputs_path), runtime.inputs(session)) as inputs:
        feeds = _largest(inputs.sample(inputs.largest()), job.inputs, runtime.inputs(session))
    for _ in range(_RUNS):
        runtime.run(session, feeds)
    mib = max(0.0, (resident.kib("VmHWM") - before_kib) / 1024)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    method = "VmHWM reset by clear_refs" if reset else "VmHWM of a fresh fork"
    runtime_too = "" if pages else "; pages of the runtime itself may be counted too"
    return {
        "mib": mib,
        "method": f"{method}, above the imported runtime, load and run of {shapes[:200]}"
        + runtime_too,
    }


def _largest(
    feeds: samples.Arrays, wanted: tuple[InputSpec, ...], own: tuple[InputSpec, ...]
) -> samples.Arrays:
    """The largest sample, repeated to the largest shape where that is given and larger.

    Its own values, because random ones need not be valid (an index, a mask).
    """
    shapes = {spec.name: spec.shape for spec in own}
    largest = dict(feeds)
    for spec in wanted:
        shape = spec.largest_shape
        if shape is None or spec.name not in feeds or np.prod(shape) <= feeds[spec.name].size:
            continue
        if min(shape) < 1 or not columns.fits(shape, shapes[spec.name]):
            raise BadInputs(
                f"cannot run input {spec.name!r} at its largest shape {list(shape)}: the model "
                f"wants {list(shapes[spec.name])} (-1: any)"
            )
        largest[spec.name] = np.resize(feeds[spec.name], shape)
    return largest
