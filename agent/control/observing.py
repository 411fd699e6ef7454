"""OBSERVING: a new variant serves while some of its answers are compared with the original's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from agent.control import observation
from agent.control.observation import Seen
from agent.control.parts import FORECAST, RUNTIME_MIB, Outcome, Parts, deployment_of, say
from agent.control.record import Record, Variant
from agent.control.states import Event
from agent.control.variants import serves
from agent.errors import Refused, TrimtabError, Unavailable
from agent.protocol.capturing import CaptureOrder, Compared, ShadowJob
from agent.protocol.manifest import Manifest
from compression.job import Runtime

_WAITING = 8
"""Requests that may wait to be compared; what comes meanwhile is not."""


async def observe(record: Record, parts: Parts) -> Outcome:
    """Compare live answers and latencies until enough is known, or the minutes are over."""
    deployment, live = deployment_of(record), record.live
    assert live is not None
    manifest = parts.catalog.manifest(record.model, deployment.version)
    budget = deployment.effective_budget or deployment.budget
    before = record.previous.sha256 if record.previous else ""
    began_s = parts.clock() - deployment.spent_s
    async with _comparing(record, manifest, parts) as compared:
        while True:
            if parts.served(record.model) != live.sha256:
                raise Refused(f"cannot keep {live.label!r}: the server does not serve it any more")
            seen = Seen(
                compared=await compared(),
                now=parts.counters(record.model, live.sha256),
                before=parts.counters(record.model, before),
                elapsed_s=parts.clock() - began_s,
            )
            verdict = observation.judge(
                seen, budget, promised_ratio=_promised(live, record.previous),
                wanted=deployment.observe_requests, window_s=deployment.observe_minutes * 60,
            )  # fmt: skip
            if verdict.over:
                break
            parts.emit("progress", record, observation.sentence(seen), stage="observe",
                       **observation.figures(seen, verdict))  # fmt: skip
            await asyncio.sleep(parts.poll_s)
    figures = {"label": live.label} | observation.figures(seen, verdict)
    if verdict.reasons:
        why = f"cannot keep {live.label!r}: {'; '.join(verdict.reasons)}"
        parts.emit("observed", record, why, **figures)
        return say(record, Event.FAILED, why)
    message = f"{serves(live)}; {observation.sentence(seen)}"
    parts.emit("observed", record, message, **figures)
    return say(record, Event.DONE, message)


def _promised(live: Variant, previous: Variant | None) -> float:
    """How long the trials let expect it to take, of its predecessor's time."""
    ratio = live.measurement.latency_ratio if live.measurement else 1.0
    if previous is None or previous.version != live.version or previous.measurement is None:
        return ratio
    return ratio / max(previous.measurement.latency_ratio, 1e-6)


@contextlib.asynccontextmanager
async def _comparing(
    record: Record, manifest: Manifest, parts: Parts
) -> AsyncIterator[Callable[[], Awaitable[Compared]]]:
    """Have requests queued and run on the original too, where memory allows that."""
    folder, live = parts.private_dir / f"{record.model}-observed", record.live
    assert live is not None
    order = CaptureOrder(
        name=record.model, kind="queue", folder=str(folder), most=_WAITING, sha256=live.sha256
    )
    job = ShadowJob(
        folder=str(folder),
        model_path=str(parts.catalog.path(record.model, manifest.version, "model")),
        sha256=manifest.files.model.sha256,
        runtime=Runtime(threads=live.runtime.threads),
        outputs=manifest.outputs,
    )
    if short := _too_little_memory(record, manifest, parts):

        async def nothing() -> Compared:
            return Compared(cannot=short)

        yield nothing
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with parts.shadow(job) as newest:

        async def look() -> Compared:
            found = newest()
            with contextlib.suppress(Unavailable):  # it starts again; the queue goes on then
                status = await parts.capture(order)
                return found.model_copy(update={"cannot": found.cannot or status.cannot})
            return found

        try:
            yield look
        finally:
            with contextlib.suppress(TrimtabError):  # else it ends by itself, soon
                await parts.capture(order.model_copy(update={"most": 0}))


def _too_little_memory(record: Record, manifest: Manifest, parts: Parts) -> str:
    original = deployment_of(record).original
    forecast = manifest.files.model.size_bytes * FORECAST / 2**20
    need = RUNTIME_MIB + (original.peak_memory_mib if original else forecast)
    available = parts.available_mib()
    if need <= available:
        return ""
    return f"the original beside it needs {need:.0f} MiB, {available:.0f} are available"
