"""The words between a worker and its parent: JSON lines, the job first, then these."""

from typing import Annotated, Literal

from pydantic import Field

from compression.findings import Ladder, Measurement, Rejected, Rung
from compression.job import KernelCosts, KernelJob, MemoryJob, MemoryPeaks, Share, TrialJob
from compression.words import Words


class Progress(Words):
    """Worker to parent: what is being done. `fraction` is of the whole job."""

    type: Literal["progress"] = "progress"
    stage: str
    message: str
    fraction: Share = 0.0


class TrialRequest(Words):
    """Worker to parent: please run this trial (a process at idle priority cannot)."""

    type: Literal["trial"] = "trial"
    job: TrialJob


class KernelRequest(Words):
    """Worker to parent: please time these kernels, as a trial is run."""

    type: Literal["kernels"] = "kernels"
    job: KernelJob


class MemoryRequest(Words):
    """Worker to parent: please see what this file takes in memory, as a trial is run."""

    type: Literal["memory"] = "memory"
    job: MemoryJob


class Tried(Words):
    """Worker to parent: one candidate was judged, or several were left; one field is given."""

    type: Literal["tried"] = "tried"
    rung: Rung | None = None
    rejected: Rejected | None = None
    untried: tuple[Rejected, ...] = ()
    """Those that others made needless, together and last."""


class Done(Words):
    """Worker to parent: the ladder, which also lies in `out_dir/ladder.json`."""

    type: Literal["done"] = "done"
    ladder: Ladder


class Failed(Words):
    """Worker or trial to parent: the job failed; see compression.errors."""

    type: Literal["failed"] = "failed"
    kind: str
    message: str


class TrialAnswer(Words):
    """Parent to worker: the measurement (or what kernels cost), or why there is none."""

    type: Literal["answer"] = "answer"
    measurement: Measurement | None = None
    kernels: KernelCosts | None = None
    memory: MemoryPeaks | None = None
    failed: Failed | None = None


FromWorker = Annotated[
    Progress | TrialRequest | KernelRequest | MemoryRequest | Tried | Done | Failed,
    Field(discriminator="type"),
]
