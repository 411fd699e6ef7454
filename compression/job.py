"""The words of jobs: what the worker and the trial are asked, and about what."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from compression.words import Words

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

OutputKind = Literal[
    "logits", "steps", "embedding", "detections", "mask", "score", "state", "tensor"
]
Role = Literal["boxes", "scores", "classes", "count", "rows"]
Column = Literal["image", "box", "objectness", "score", "class", "classes", "-"]
BoxFormat = Literal["xyxy", "yxyx", "xywh", "cxcywh"]
Split = Literal["calibration", "choosing", "held-out", "evaluation", "synthetic", "live"]
"""Which inputs judged. `calibration`: those that calibrated, for want of others; `choosing`: those
that candidates were chosen by; `held-out`: neither; `evaluation`: a file of their own;
`synthetic`: made up, for want of any, so that nothing is verified; `live`: what clients asked."""


class Budget(Words):
    """What a model may cost on the device. What is None is not bounded here.

    `latency_ratio`, `memory_ratio` and `size_ratio` are against the original on the same
    device; the rest is absolute. MiB are 2**20 bytes.
    """

    latency_p95_ms: Positive | None = None
    latency_ratio: Positive | None = None
    peak_memory_mib: Positive | None = None
    memory_ratio: Positive | None = None
    size_mib: Positive | None = None
    size_ratio: Positive | None = None
    cpu_share: Annotated[float, Field(gt=0, le=1)] | None = None
    request_rate_hz: Positive | None = None
    min_agreement: Share | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None

    @model_validator(mode="after")
    def _share_needs_a_rate(self) -> Self:
        if self.cpu_share is not None and self.request_rate_hz is None:
            raise ValueError("cpu_share needs request_rate_hz: a share of the CPU at which rate?")
        return self

    def over(self, default: "Budget") -> "Budget":
        """This budget, with what it leaves open taken from `default`."""
        given = self.model_dump(exclude_none=True)
        return Budget(**(default.model_dump(exclude_none=True) | given))


class InputSpec(Words):
    """One graph input. Dims of -1 are dynamic; dtype is numpy's name (`float32`, `int64`, ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    reference_shape: tuple[int, ...] | None = None
    largest_shape: tuple[int, ...] | None = None


class OutputSpec(Words):
    """One graph output and what it means, which decides how agreement is judged.

    `docs/formats.md` says which fields belong to which kind. Fields at None or empty are decided
    by the kind's default, or by what the output looks like.
    """

    name: str
    kind: OutputKind = "tensor"
    axis: int | None = None
    blank: int | None = None
    threshold: float | None = None
    role: Role | None = None
    """Of a detector with several outputs: what this one holds."""
    columns: tuple[Column, ...] = ()
    """Of detections in rows: what stands in which column; `box` takes four, `classes` the rest."""
    box_format: BoxFormat | None = None
    iou_threshold: Share | None = None
    classes: tuple[str, ...] = ()
    """Names of the classes in order, where labels are text."""
    guessed: bool = False
    """Whether nobody named the kind."""


class DeviceClass(Words):
    """What decides whether a variant measured on one device may be used on another."""

    machine: str
    isa: tuple[str, ...]
    cores: Annotated[int, Field(ge=1)]
    onnxruntime: str

    @property
    def int8_dot(self) -> bool:
        """Whether int8 products are summed in 32 bits by one instruction (VNNI, dot product)."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(self.isa))

    @property
    def int8_saturates(self) -> bool:
        """Whether u8 x s8 pairs are summed in 16 bits (VPMADDUBSW): weights need 7 bits there."""
        return self.machine in {"x86_64", "AMD64"} and not self.int8_dot


class PassSpec(Words):
    """One compression pass by its name in `passes.catalogue.PASSES`, and its parameters."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class Recipe(Words):
    """How a variant is made from the original: passes in order. No passes: the original."""

    label: str
    passes: tuple[PassSpec, ...] = ()


class Runtime(Words):
    """How an artefact is to be run; chosen by measuring, obeyed by the server."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    arena: bool = True
    pattern: bool = True
    """False: no block of memory is planned for a whole run, and weights lie outside of the arena:
    less memory, and hardly slower."""
    optimization: Literal["disabled", "basic", "extended", "all"] = "all"


class CompressJob(Words):
    """One job for the compression worker. Paths are absolute; `out_dir` exists."""

    model_name: str
    model_path: str
    calibration_path: str | None = None
    evaluation_path: str | None = None
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    budget: Budget = Budget()
    device_class: DeviceClass
    out_dir: str
    minutes: Positive = 10.0
    recover_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Beside `minutes`: for training what promises to gain by it (needs the extra `recover`)."""
    work_memory_mib: Positive = 256.0
    seed: int = 0
    recipes: tuple[Recipe, ...] = ()
    """If given, the only candidates."""
    table_dir: str | None = None
    """Where what kernels cost here is kept for other jobs too; None: with the job's own work."""
    keep: tuple[str, ...] = ()
    """Files in `out_dir` that stay although the new ladder may not name them: they serve."""


class TrialJob(Words):
    """One measurement: a candidate alone (memory), then beside the original (the rest).

    `inputs_path` is an .npz as in docs/formats.md; `sample_indices` picks the samples that
    judge agreement and latency (None: all). `probe_path`: where to write a few inputs and
    the candidate's own outputs, which a server checks after loading it.
    `runtime` is how the candidate runs; the original runs with as many threads and no other option,
    so that a ratio shows what options bring or cost.
    `inputs`: those with a `largest_shape` above the largest sample decide the memory.
    `rounds` are timed as a rule: fewer (not below 20) where the ratio's interval is tight
    sooner, up to four times as many within `seconds` where it is not.
    """

    candidate_path: str
    original_path: str
    inputs_path: str
    sample_indices: tuple[int, ...] | None = None
    split: Split = "held-out"
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    runtime: Runtime = Runtime()
    rounds: Annotated[int, Field(ge=3, le=10_000)] = 40
    seconds: Positive = 20.0
    probe_path: str | None = None
    each: bool = False
    """Whether to tell of each input how alike the answers are."""


class KernelJob(Words):
    """Small models, one kernel each, to be timed one after the other in one process."""

    kernels: tuple[str, ...]
    """Files. Inputs that are no constants are made up."""
    runtime: Runtime = Runtime()
    seconds: Positive = 20.0


class KernelCosts(Words):
    """What each model of a KernelJob costs; None: it does not run, or there was no time for it.

    In references: CPU time over that of a product of matrices timed beside it.
    """

    costs: tuple[Annotated[float, Field(ge=0)] | None, ...]
    timed: Annotated[int, Field(ge=0)]
    """How many were come to."""
    reference_us: float
    calling: Annotated[float, Field(ge=0)] = 0.0
    """What a session costs for each run, whatever it holds."""


class MemoryJob(Words):
    """What a file adds to memory in each of some ways to run it: loaded and run alone, each time.

    Inputs are as of a TrialJob; the largest of them is run.
    """

    model_path: str
    inputs_path: str
    inputs: tuple[InputSpec, ...] = ()
    ways: Annotated[tuple[Runtime, ...], Field(min_length=1)]
    seconds: Positive = 20.0
    """For each of them."""


class MemoryPeaks(Words):
    """What a MemoryJob found, a peak for each way; None: it does not run so."""

    peaks_mib: tuple[Annotated[float, Field(ge=0)] | None, ...]
