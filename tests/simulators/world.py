"""A small true world around the deployer: real files and records, a fleet that is a folder.

Trials and jobs are looked up in a table instead of run; everything else is the real thing.
"""

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Idle
from agent.control.deployer import Deployer
from agent.control.heavy import Heavy
from agent.control.leisure import Leisure
from agent.control.observation import Counters
from agent.control.parts import Parts
from agent.control.record import Record, Records
from agent.device.idleness import Reading
from agent.errors import BadInput, Unavailable
from agent.host.breaks import Breaks
from agent.protocol.capturing import (
    SUFFIX,
    CaptureOrder,
    CaptureStatus,
    Compared,
    Gathered,
    GatherJob,
    ShadowJob,
)
from agent.protocol.manifest import FileRef, Files, Manifest
from agent.protocol.private import LoadReply, LoadRequest
from agent.store.catalog import Catalog
from compression import ladder
from compression.findings import Agreement, Ladder, Measurement, ModelRef, Rung
from compression.job import (
    Budget,
    CompressJob,
    DeviceClass,
    InputSpec,
    OutputSpec,
    PassSpec,
    Recipe,
    Runtime,
    TrialJob,
)
from compression.stream import Progress, Tried

DEVICE = DeviceClass(machine="aarch64", isa=("asimddp",), cores=4, onnxruntime="1.31.1")


def measured(**changes: Any) -> Measurement:
    """A measurement of a model that is no trouble, with some figures changed."""
    agreement = changes.pop("agreement", 1.0)
    figures: dict[str, Any] = {
        "latency_p50_ms": 5.0, "latency_p95_ms": 6.0, "original_latency_p50_ms": 5.0,
        "original_latency_p95_ms": 6.0, "latency_ratio": 1.0, "ratio_basis": "wall",
        "wall_ratio": 1.0, "cpu_ratio": 1.0, "noise": 0.01, "cpu_ms_per_inference": 5.0,
        "original_cpu_ms_per_inference": 5.0, "peak_memory_mib": 20.0,
        "original_peak_memory_mib": 20.0, "size_mib": 3.0, "original_size_mib": 3.0,
        "sqnr_db": {"y": 200.0}, "threads": 1, "samples": 50, "rounds": 10, "method": {},
        "agreement": Agreement(value=agreement, low=agreement, high=agreement, kind="logits",
                               output="y", samples=50, split="held-out"),
    }  # fmt: skip
    return Measurement(**(figures | changes))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(
    version: int = 1, *, model: bytes = b"original", calibration: bool = True,
    evaluation: bool = False, **changes: Any,
) -> Manifest:  # fmt: skip
    """A manifest of files that `World.fleet` holds."""

    def ref(data: bytes) -> FileRef:
        return FileRef(size_bytes=len(data), sha256=sha256(data), index=sha256(b"index"))

    files = Files(
        model=ref(model + str(version).encode()),
        calibration=ref(b"calibration") if calibration else None,
        evaluation=ref(b"evaluation") if evaluation else None,
    )
    inputs = (InputSpec(name="x", dtype="float32", shape=(-1, 4)),)
    outputs = (OutputSpec(name="y", kind="logits", axis=1),)
    fields: dict[str, Any] = {"display_version": f"v{version}", "created_at_s": 0.0} | changes
    return Manifest(
        name="m", version=version, files=files, inputs=inputs, outputs=outputs, **fields
    )


class Killed(BaseException):
    """The process ended here."""


@dataclass
class World:
    """One device with its folder, and what the fleet has published."""

    folder: Path
    published: dict[int, Manifest] = field(default_factory=dict)
    original: Measurement = field(default_factory=measured)
    rungs: dict[str, Measurement] = field(default_factory=dict)
    """What a compression makes: label -> its measurement."""
    evaluated: dict[str, Measurement] = field(default_factory=dict)
    """What the admission measures for a label; else the same as the rung's."""
    loaded: dict[str, LoadRequest] = field(default_factory=dict)
    """The server: outlives the agent only where a test says so."""
    events: list[tuple[str, str, str]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    """Of each event."""
    before: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Called before an act: fetch_manifest, fetch_file, trial, compress, load."""
    counts: dict[str, int] = field(default_factory=dict)
    available_mib: float = 500.0
    jobs: list[CompressJob] = field(default_factory=list)
    traffic: int = 40
    """Requests that come between two looks."""
    live: Measurement | None = None
    """What live answers of a variant are worth; else what the trial said."""
    counters: dict[str, Counters] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    now_s: float = 0.0
    look_s: float = 30.0
    """How much time goes by between two looks."""

    heavy: Heavy = field(default_factory=Heavy)
    reading: Reading = field(default_factory=Reading)
    """What a look at the device tells."""
    calm_s: float = 60.0
    leisure_now: Leisure = field(init=False)
    """Of the newest deployer."""
    again_s: float = 600.0
    """How long what crashes, and is all there is, is left alone."""

    def deployer(self, records: Records | None = None) -> Deployer:
        """A fresh process: everything but the disk is new."""
        return Deployer(
            self.parts(), records or Records(self.folder / "records"), retry_least_s=0.001,
            again_s=self.again_s,
        )  # fmt: skip

    def live_label(self) -> str:
        """Which variant the server runs."""
        return Path(self.loaded["m"].path).stem if "m" in self.loaded else ""

    def parts(self) -> Parts:
        return Parts(
            state_dir=self.folder, catalog=Catalog(self.folder / "models"),
            fetch_manifest=self._fetch_manifest, fetch_file=self._fetch_file,
            trial=self._trial, compress=self._compress,
            load=self._load, unload=self._unload,
            served=lambda name: self.loaded[name].sha256 if name in self.loaded else None,
            device_class=DEVICE, default_budget=lambda: Budget(threads=1, peak_memory_mib=250),
            available_mib=lambda: self.available_mib, work_memory_mib=64, emit=self._emit,
            heavy=self.heavy, leisure=self.leisure(), capture=self._capture, gather=self._gather,
            shadow=self._shadow,
            counters=lambda _name, sha: self.counters.get(sha, Counters()),
            private_dir=self.folder / "private", clock=self._clock, poll_s=0.0,
        )  # fmt: skip

    def leisure(self) -> Leisure:
        def read(ours: Iterable[int]) -> Reading:
            del ours
            return self.reading

        self.leisure_now = Leisure(
            Idle(calm_s=self.calm_s), heavy=self.heavy, read=read, clock=self._clock, look_s=0.0
        )
        return self.leisure_now

    async def _act(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        await asyncio.sleep(0)
        if name in self.before:
            result = self.before[name]()
            if asyncio.iscoroutine(result):
                await result

    async def _fetch_manifest(self, name: str, version: int) -> bytes:
        await self._act("fetch_manifest")
        if version not in self.published:
            raise Unavailable(f"cannot find {name}@{version}: not published")
        return self.published[version].to_json()

    async def _fetch_file(
        self, ref: FileRef, path: Path, on_progress: Callable[[int, int], None]
    ) -> None:
        await self._act("fetch_file")
        version = path.parent.name
        whole = {"model.onnx": b"original" + version.encode()}.get(path.name, path.stem.encode())
        if sha256(whole) != ref.sha256:
            whole = b"other" + version.encode()
        on_progress(1, 1)
        path.write_bytes(whole)

    async def _trial(self, job: TrialJob) -> Measurement:
        await self._act("trial")
        label = Path(job.candidate_path).stem
        if label == "model":
            return self.original
        return self.evaluated.get(label, self.rungs[label])

    async def _compress(
        self, job: CompressJob, *, on_progress: Callable[[Progress], None],
        on_tried: Callable[[Tried], None], breaks: Breaks | None = None,
    ) -> Ladder:  # fmt: skip
        if breaks is not None:
            await breaks.ended()
        await self._act("compress")
        self.jobs.append(job)
        verified = job.calibration_path is not None  # as the worker has it
        on_progress(Progress(stage="realise", message="working", fraction=0.5))
        made = []
        for label, measurement in self.rungs.items():
            data = label.encode()
            (Path(job.out_dir) / f"{label}.onnx").write_bytes(data)
            recipe = Recipe(label=label, passes=(PassSpec(name="quantization"),))
            rung = Rung(file=f"{label}.onnx", sha256=sha256(data), recipe=recipe,
                        runtime=Runtime(), measurement=measurement, meets_budget=True,
                        verified=verified)  # fmt: skip
            made.append(rung)
            on_tried(Tried(rung=rung))
        original = Path(job.model_path).read_bytes()
        shutil.copy(job.model_path, Path(job.out_dir) / "model.onnx")
        made.append(Rung(file="model.onnx", sha256=sha256(original), runtime=Runtime(),
                         recipe=Recipe(label="original"), measurement=self.original,
                         meets_budget=True))  # fmt: skip
        offered = ladder.build(
            model=ModelRef(name=job.model_name, sha256=sha256(original)),
            device_class=job.device_class, budget=job.budget, rungs=made,
        )  # fmt: skip
        ladder.save(offered, Path(job.out_dir))
        for path in Path(job.out_dir).glob("*.onnx"):
            if path.name not in {*job.keep, *(rung.file for rung in offered.rungs)}:
                path.unlink()
        return offered

    async def _load(self, request: LoadRequest) -> LoadReply:
        await self._act("load")
        if sha256(Path(request.path).read_bytes()) != request.sha256:
            raise BadInput(f"cannot load {request.path}: another hash")
        replaced = self.loaded.get(request.name)
        self.loaded[request.name] = request
        return LoadReply(load_ms=1, warm_ms=1, drain_ms=0, probe_sqnr_db=None, rss_mib=60,
                         replaced_sha256=replaced.sha256 if replaced else None)  # fmt: skip

    async def _unload(self, name: str) -> None:
        self.loaded.pop(name, None)

    def _clock(self) -> float:
        """Time goes by where somebody looks."""
        self.now_s += self.look_s
        return self.now_s

    async def _capture(self, order: CaptureOrder) -> CaptureStatus:
        await self._act("capture")
        if not order.most:
            return CaptureStatus()
        self.asked[order.name] = self.asked.get(order.name, 0) + self.traffic
        seen = self.asked[order.name]
        if order.kind == "queue":
            return CaptureStatus(seen=seen)
        kept = min(order.most, seen)
        for index in range(kept):
            (Path(order.folder) / f"{index:04d}{SUFFIX}").write_bytes(b"a request")
        return CaptureStatus(kept=kept, seen=seen, kept_bytes=9 * kept, elapsed_s=self.now_s)

    async def _gather(self, job: GatherJob) -> Gathered:
        await self._act("gather")
        found = list(Path(job.folder).glob(f"*{SUFFIX}"))
        Path(job.out).write_bytes(b"collected")
        return Gathered(samples=len(found))

    @contextlib.asynccontextmanager
    async def _shadow(self, job: ShadowJob) -> AsyncIterator[Callable[[], Compared]]:
        del job
        await self._act("shadow")
        begun = self.asked.get("m", 0)
        label = self.live_label()

        def newest() -> Compared:
            live = self.live or self.rungs.get(label) or self.original
            count = self.asked.get("m", 0) - begun
            if not count:
                return Compared()
            agreement = live.agreement.model_copy(update={"samples": count})
            return Compared(compared=count, agreement=agreement)

        yield newest

    def _emit(self, kind: str, record: Record, message: str = "", **figures: Any) -> None:
        self.figures.append(figures)
        state = record.deployment.state if record.deployment else ""
        self.events.append((kind, str(state), message))
