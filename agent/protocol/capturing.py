"""What is kept of live requests, and what is said about it: orders, counts, comparisons.

A capture is one folder of files, each with one request: its inputs under `in::NAME`, and where it
is observed what was answered under `out::NAME`. The agent orders it with POST CAPTURE_PATH on the
server's private socket, again and again: the same order goes on, and tells its counts. Two
children read such folders: agent/serving/gather.py and agent/serving/shadow.py; each is given its
job as one JSON line on its input, and answers in JSON lines.
"""

from typing import Annotated, Literal

from pydantic import Field

from compression.findings import Agreement
from compression.job import InputSpec, OutputSpec, Runtime, Sha256, Share
from compression.words import Words

CAPTURE_PATH = "/v2/trimtab/capture"
SUFFIX = ".sample"


class CaptureOrder(Words):
    """Keep some of the requests to one model in `folder`; `most` of 0 ends it.

    `reservoir`: a uniform sample of all requests (Vitter, "Random sampling with a reservoir",
    1985), none twice. `queue`: with their answers, for a reader that takes them away; while `most`
    wait none is added. Only answers of the variant `sha256` are kept in a queue.
    """

    name: str
    kind: Literal["reservoir", "queue"]
    folder: str
    most: Annotated[int, Field(ge=0, le=10_000)]
    most_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    share: Share = 0.005
    """The most of the elapsed time that all of it may cost."""
    sha256: Sha256 | None = None
    key_file: str | None = None
    """32 bytes; each file is then sealed with AES-256-GCM."""


class CaptureStatus(Words):
    """What a capture has done. `spent_s` is the time that it cost, of `elapsed_s`."""

    kept: int = 0
    seen: int = 0
    """Requests that it considered; others came while the time it may cost was used up."""
    kept_bytes: int = 0
    spent_s: float = 0.0
    elapsed_s: float = 0.0
    cannot: str = ""
    """Why nothing can be kept, where that is so."""


class GatherJob(Words):
    """Make one .npz (docs/formats.md) of what a reservoir holds; damaged files are left out."""

    folder: str
    out: str
    inputs: tuple[InputSpec, ...]
    key_file: str | None = None


class Gathered(Words):
    """What came of it."""

    samples: int
    damaged: int = 0


class ShadowJob(Words):
    """Run what a queue holds on a reference too, and compare, until the input ends."""

    folder: str
    model_path: str
    sha256: Sha256
    runtime: Runtime = Runtime()
    outputs: tuple[OutputSpec, ...] = ()
    key_file: str | None = None


class Compared(Words):
    """How the live answers compare with the reference's so far; the newest line counts."""

    compared: int = 0
    failed: int = 0
    """Of them, those that only the reference could answer: an answer that never agrees."""
    skipped: int = 0
    """Damaged, or nothing that the reference could answer either."""
    agreement: Agreement | None = None
    cannot: str = ""
    """Why there is no comparison, where that is so."""
