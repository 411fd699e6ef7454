"""Compresses one model in a process of its own: `python -P -m compression.worker`.

A CompressJob as the first JSON line on stdin; Progress, requests (for a trial, for what kernels
cost, for what a file takes in memory), Tried, Done or Failed as JSON lines on stdout; a TrialAnswer
on stdin for each request. It starts no child itself: a process at idle priority cannot start one at
the priority that serving will have.
"""

import sys
from typing import TextIO

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # it brings none
from pydantic import ValidationError

from compression import child, errors, working
from compression.choosing.climb import Climb
from compression.findings import Rejected, Rung
from compression.job import CompressJob, KernelJob, MemoryJob, TrialJob
from compression.stream import (
    Done,
    Failed,
    KernelRequest,
    MemoryRequest,
    Progress,
    TrialAnswer,
    TrialRequest,
    Tried,
)
from compression.words import Words, explain


class Parent:
    """The other end of the pipes: hears what happens, and runs trials."""

    def __init__(self, out: TextIO, stdin: child.Parent) -> None:
        self._out = out
        self._stdin = stdin

    def say(self, word: Words) -> None:
        """Write one line."""
        self._out.write(word.to_json().decode() + "\n")
        self._out.flush()

    def progress(self, stage: str, message: str, fraction: float) -> None:
        """Tell what is being done; `fraction` is of the whole job."""
        self.say(Progress(stage=stage, message=message, fraction=min(1.0, max(0.0, fraction))))

    def tried(self, found: Rung | Rejected) -> None:
        """Tell what became of one candidate."""
        self.say(Tried(rung=found) if isinstance(found, Rung) else Tried(rejected=found))

    def untried(self, left: tuple[Rejected, ...]) -> None:
        """Tell of the candidates that others made needless."""
        self.say(Tried(untried=left))

    def trial(self, job: TrialJob) -> TrialAnswer:
        """Have a trial run, and wait for its answer (this process ends when the parent does)."""
        self.say(TrialRequest(job=job))
        return TrialAnswer.model_validate_json(self._stdin.line())

    def kernels(self, job: KernelJob) -> TrialAnswer:
        """Have kernels timed, as a trial runs."""
        self.say(KernelRequest(job=job))
        return TrialAnswer.model_validate_json(self._stdin.line())

    def memory(self, job: MemoryJob) -> TrialAnswer:
        """Have it seen what a file takes in memory, as a trial runs."""
        self.say(MemoryRequest(job=job))
        return TrialAnswer.model_validate_json(self._stdin.line())


def main() -> int:
    """Do the job that stdin brings; exit 0 with Done, 1 with Failed.

    An argument is the descriptor of the page in which the parent tells for how long it has had this
    process stopped.
    """
    for descriptor in sys.argv[1:]:
        working.follow(int(descriptor))
        working.die_with_parent()
    out = child.clean_stdout()
    stdin = child.Parent()
    parent = Parent(out, stdin)
    last = _work(parent, stdin)
    stdin.finished()
    parent.say(last)
    return 0 if isinstance(last, Done) else 1


def _work(parent: Parent, stdin: child.Parent) -> Done | Failed:
    try:
        job = CompressJob.model_validate_json(stdin.line())
        return Done(ladder=Climb(job, parent).run())
    except ValidationError as error:
        return Failed(kind="internal", message=f"cannot read a line: {explain(error)}")
    except (MemoryError, EncodeError) as error:  # the latter: protobuf was refused memory
        died = errors.OutOfBudget(f"cannot go on: out of memory ({error})")
        return Failed(**errors.to_wire(died))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        full = errors.OutOfBudget(f"cannot go on: {error.strerror or error}{where}")
        return Failed(**errors.to_wire(full))
    except Exception as error:  # the parent decides what each kind means
        return Failed(**errors.to_wire(error))


if __name__ == "__main__":
    sys.exit(main())
