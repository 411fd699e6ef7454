"""The words of what was found: how alike, how fast, and the ladder of variants that is offered."""

from typing import Annotated, Literal

from pydantic import Field

from compression.job import Budget, DeviceClass, OutputKind, Recipe, Runtime, Sha256, Share, Split
from compression.words import Words


class Agreement(Words):
    """How alike candidate and original answer, with a 95 % interval (Wilson or bootstrap)."""

    value: Share
    low: Share
    high: Share
    kind: OutputKind
    output: str
    samples: Annotated[int, Field(ge=1)]
    split: Split
    guessed: bool = False
    """Whether the kind was guessed from the graph, because nobody named it."""
    also: dict[str, float] = Field(default_factory=dict)
    """Further figures of the same outputs by name, as docs/formats.md says."""


class Each(Words):
    """What answers are to the original's, input by input, over all outputs that mean something."""

    agreed: tuple[float, ...]
    """By the outputs' kinds, in [0, 1]."""
    lost: tuple[float, ...]
    """Nats of classes; of all else the share of the error's power."""
    error: tuple[float, ...]
    """The share of the error's power in what the outputs hold, whatever it means."""


class Nearness(Words):
    """Where a variant stands among those of its ladder, by the inputs that chose."""

    place: Annotated[int, Field(ge=0)]
    """0: the original, and what cannot be told from it; equal where chance may be all."""
    loss: Annotated[float, Field(ge=0)]
    """The mean over inputs, as of `Each`."""


class Labelled(Words):
    """The user's own metric on labelled inputs, of the original and of the candidate.

    `low` and `high` bound candidate - original: 95 %, paired bootstrap over samples.
    """

    metric: str
    output: str
    original: float
    candidate: float
    low: float
    high: float
    samples: Annotated[int, Field(ge=1)]


class Measurement(Words):
    """What one trial found. `method` says in words how each figure was taken."""

    latency_p50_ms: float
    latency_p95_ms: float
    original_latency_p50_ms: float
    original_latency_p95_ms: float
    latency_ratio: float
    """The ratio to judge by: of wall times where `noise` <= 5 %, else of process CPU times."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """The 95 % interval of `latency_ratio`, by bootstrap over rounds."""
    ratio_basis: Literal["wall", "cpu"]
    wall_ratio: float
    cpu_ratio: float
    noise: float
    """Spread of the original against itself in the same interleaved run, as a fraction."""
    cpu_ms_per_inference: float
    original_cpu_ms_per_inference: float
    peak_memory_mib: float
    """What the model adds above the imported runtime, load and run at the largest shape."""
    original_peak_memory_mib: float
    size_mib: float
    """Of the file as it lies there."""
    original_size_mib: float
    expanded_mib: float | None = None
    """Where the file is packed: as ONNX, which it becomes in memory while it loads."""
    agreement: Agreement
    labelled: tuple[Labelled, ...] = ()
    """Where the inputs that judged have labels."""
    sqnr_db: dict[str, float]
    """Per output; 200 stands for exactly equal."""
    threads: int
    samples: int
    rounds: int
    method: dict[str, str]
    each: Each | None = None
    """Where the trial was asked for it; never on a ladder."""


class Rung(Words):
    """One variant that can be served. `file` is relative to the ladder's folder."""

    file: str
    sha256: Sha256
    recipe: Recipe
    runtime: Runtime
    measurement: Measurement
    meets_budget: bool
    misses: tuple[str, ...] = ()
    verified: bool = True
    """False where no real inputs have shown how alike it answers."""
    probe: str | None = None
    predicted_ratio: float | None = None
    """The share of the original's CPU time that was forecast before it was made, if any was."""
    chosen_by: Agreement | None = None
    """What it was chosen by; `measurement` is on inputs that chose nothing."""
    nearness: Nearness | None = None
    """What it is ordered by, where inputs were compared one by one."""


class Rejected(Words):
    """A candidate that did not become a rung, and why."""

    recipe: Recipe
    reason: str
    measurement: Measurement | None = None
    predicted_ratio: float | None = None
    """As of a Rung."""
    tried: bool = True
    """False where nothing speaks against it but that others promised more."""


class ModelRef(Words):
    """The original that a ladder descends from."""

    name: str
    sha256: Sha256


class Division(Words):
    """How many samples calibrated, chose among candidates and reported."""

    calibrating: Annotated[int, Field(ge=1)]
    fitting: Annotated[int, Field(ge=0)] = 0
    """What weights may be fitted to, those that calibrate among them; 0: just those."""
    choosing: Annotated[int, Field(ge=1)]
    reporting: Annotated[int, Field(ge=1)]
    split: Split
    """Which inputs reported."""
    sources: Annotated[int, Field(ge=1)]
    """Groups that were kept together; as many as samples where no source is known."""
    copies: Annotated[int, Field(ge=0)] = 0
    """Samples left out because another one is equal to the last bit."""
    apart: bool = True
    """False where there were too few sources for three parts."""


class Sensitivity(Words):
    """What one node costs: how far the judged output moves when that node alone is quantized."""

    node: str
    """By the name of its first output."""
    operator: str
    sqnr_db: float
    """Of the judged output; the lower the worse."""
    weight_share: Share
    """Of the bytes of all float weights."""
    left_float_in: tuple[str, ...] = ()
    """Labels of the recipes of the rungs that leave it float."""


class Paired(Words):
    """One figure of two variants on the same inputs."""

    before: float
    after: float
    chance: Share
    """How often chance alone would look as good: one-sided, by randomization of the pairs."""


class Recovered(Words):
    """What came of training one variant without labels (the pass `recovery`)."""

    recipe: Recipe
    of: str
    """The label of the same variant without it, which it has to beat."""
    accepted: bool
    reason: str
    """In words, with the figures."""
    agreement: Paired | None = None
    loss: Paired | None = None
    """Both on inputs that were not trained on; None where nothing was trained."""
    samples: Annotated[int, Field(ge=0)] = 0
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """That training took, over all runs of the job."""


class Ladder(Words):
    """ladder.json: the variants of one model on one device, best first."""

    version: Literal[1] = 1
    model: ModelRef
    device_class: DeviceClass
    budget: Budget
    rungs: tuple[Rung, ...]
    rejected: tuple[Rejected, ...] = ()
    division: Division | None = None
    sensitivities: tuple[Sensitivity, ...] = ()
    """Of the nodes that were looked at one by one, the worst first; empty where none had to be."""
    recovered: tuple[Recovered, ...] = ()
    """What was trained, accepted or not."""
