"""What a model adds to a process's memory: loaded and run alone, in a forked child."""

import ctypes
import json
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from compression import runtime, samples
from compression.errors import BadInputs, BadModel, CannotRun, from_wire, to_wire
from compression.job import TrialJob

_PR_SET_PDEATHSIG = 1
_RUNS = 2
_STDIN = 0


@dataclass(frozen=True)
class Peak:
    """The peak above the imported runtime, in MiB, and how it was taken."""

    mib: float
    method: str


def peak(model: Path, job: TrialJob) -> Peak:
    """Load `model` and run the largest sample in a forked child; call before any thread starts.

    Ends this process when its stdin ends, because then nobody waits for the answer.

    Raises:
        BadModel: it does not load or run.
        BadInputs: the inputs do not fit it.
        CannotRun: it killed the child, or took longer than five times the trial's seconds.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(model, job, write_end)
    os.close(write_end)
    text = _answer(read_end, pid, model, deadline=time.monotonic() + 5 * job.seconds + 10)
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    if not text:
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "an exit"
        raise CannotRun(f"cannot run {model.name}: it ended its process by {name}")
    answer = json.loads(text)
    if "kind" in answer:
        raise from_wire(answer["kind"], answer["message"])
    return Peak(**answer)


def _answer(fd: int, pid: int, model: Path, *, deadline: float) -> bytes:
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
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise CannotRun(f"cannot run {model.name}: no end before its deadline")


def _child(model: Path, job: TrialJob, fd: int) -> None:
    """Measure and write the answer; never returns, so that the parent's cleanup runs once."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        answer: dict[str, object] = _measure(model, job)
    except (BadModel, BadInputs) as error:
        answer = dict(to_wire(error))
    except MemoryError:
        answer = dict(to_wire(CannotRun(f"cannot run {model.name}: out of memory")))
    except Exception as error:  # whatever it is, the parent must hear of it
        answer = dict(to_wire(error))
    os.write(fd, json.dumps(answer).encode())
    os._exit(0)


def _measure(model: Path, job: TrialJob) -> dict[str, object]:
    reset = _reset_peak()
    before = _status_kib("VmRSS")
    session = runtime.session(model, runtime.options(job.runtime))
    with samples.open_samples(Path(job.inputs_path), runtime.inputs(session)) as inputs:
        feeds = inputs.sample(inputs.largest())
    for _ in range(_RUNS):
        runtime.run(session, feeds)
    mib = max(0.0, (_status_kib("VmHWM") - before) / 1024)
    how = "VmHWM reset by clear_refs" if reset else "VmHWM of a fresh fork"
    return {"mib": mib, "method": f"{how}, above the imported runtime, largest sample"}


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to VmRSS
    except OSError:
        return False
    return True


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0
