"""The parent's side of the worker's stream, small and true: it runs the real trial."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from compression.findings import Measurement
from compression.job import (
    CompressJob,
    DeviceClass,
    KernelCosts,
    KernelJob,
    MemoryJob,
    MemoryPeaks,
    TrialJob,
)
from compression.stream import (
    Done,
    Failed,
    FromWorker,
    KernelRequest,
    MemoryRequest,
    TrialAnswer,
    TrialRequest,
)
from compression.words import Words

WORDS: TypeAdapter[Words] = TypeAdapter(FromWorker)
Said = TypeVar("Said", bound=Words)
HASWELL = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="test")


def run_trial(job: TrialJob, *, timeout_s: float = 60) -> Measurement | Failed:
    """Run a trial in its own process."""
    return _answer(job, Measurement, timeout_s)


def time_kernels(job: KernelJob, *, timeout_s: float = 120) -> KernelCosts | Failed:
    """Time kernels in a trial's process."""
    return _answer(job, KernelCosts, timeout_s)


def see_memory(job: MemoryJob, *, timeout_s: float = 120) -> MemoryPeaks | Failed:
    """Have a trial's process see what a file takes in memory."""
    return _answer(job, MemoryPeaks, timeout_s)


def _answer(job: Words, kind: type[Said], timeout_s: float) -> Said | Failed:
    """What a trial's process says, its stdin held open until it has."""
    with start("compression.trial") as trial:
        assert trial.stdin is not None
        assert trial.stdout is not None
        trial.stdin.write(job.to_json() + b"\n")
        trial.stdin.flush()
        line = trial.stdout.readline()
        trial.stdin.close()
        code = trial.wait(timeout_s)
    if not line:
        return Failed(kind="cannot-run", message=f"cannot run the trial: exit code {code}")
    failed = b'"type":"failed"' in line
    return Failed.model_validate_json(line) if failed else kind.model_validate_json(line)


def start(module: str) -> "subprocess.Popen[bytes]":
    """Start a child as the agent does, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def follow(
    job: CompressJob,
    *,
    on_word: Callable[[Words, "subprocess.Popen[bytes]"], None] = lambda _word, _worker: None,
    trial: Callable[[TrialJob], Measurement | Failed] = run_trial,
    memory: Callable[[MemoryJob], MemoryPeaks | Failed] = see_memory,
) -> list[Words]:
    """Run a worker to its end and return what it said; trials are answered as they are asked."""
    answers: dict[type[Words], tuple[str, Callable[[Any], Words]]] = {
        TrialRequest: ("measurement", trial),
        KernelRequest: ("kernels", time_kernels),
        MemoryRequest: ("memory", memory),
    }
    said: list[Words] = []
    with start("compression.worker") as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(job.to_json() + b"\n")
        worker.stdin.flush()
        for line in worker.stdout:
            word = WORDS.validate_json(line)
            said.append(word)
            on_word(word, worker)
            if type(word) in answers and worker.poll() is None:
                field, ask = answers[type(word)]
                found = ask(word.job)
                given = {"failed" if isinstance(found, Failed) else field: found}
                worker.stdin.write(TrialAnswer(**given).to_json() + b"\n")
                worker.stdin.flush()
            if isinstance(word, Done | Failed):
                break
        worker.stdin.close()
        worker.wait(120)
    return said
