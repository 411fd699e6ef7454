"""Puts a model version on the broker: its files as retained chunks, then its signed manifest."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import Signer

from agent.errors import BadInput, Unavailable
from agent.link.mqtt import Link
from agent.protocol import topics as topic_names
from agent.protocol import trust
from agent.protocol.manifest import FileRef, Files, Manifest
from agent.protocol.topics import Topics
from compression import samples
from compression.errors import BadInputs
from compression.job import Budget, InputSpec, OutputSpec
from deploy import onnx_facts
from deploy.packing import Packing, choose_encoding

IN_FLIGHT = 32
"""Chunks that are read and encoded while earlier ones wait for their PUBACK."""
RECONNECT_S = 60.0
_NO_BUDGET = Budget()

OnProgress = Callable[[str, int, int], None]
"""Called with (file name, blobs sent, chunks in all)."""


@dataclass(frozen=True)
class Offer:
    """What an operator gives to be published. `outputs` overrides what is guessed."""

    model: Path
    name: str
    version: int
    display_version: str = ""
    calibration: Path | None = None
    evaluation: Path | None = None
    outputs: tuple[OutputSpec, ...] = ()
    min_agreement: float = 0.98
    budget: Budget = _NO_BUDGET
    licence: str = ""
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    chunk_bytes: int | None = None
    """Plain bytes per chunk; None: as many as a message holds."""


def check(offer: Offer) -> onnx_facts.Facts:
    """Read and judge everything before anything is sent.

    Raises:
        BadInput: the model, a name, an output or the inputs do not fit.
    """
    topic_names.check_name(offer.name, what="model name")
    if offer.version < 1:
        raise BadInput(f"cannot publish version {offer.version}: versions begin at 1")
    facts = onnx_facts.read(offer.model, named=offer.outputs)
    for path in (offer.calibration, offer.evaluation):
        if path is not None:
            _check_samples(path, facts.inputs)
    return facts


def manifest_of(
    offer: Offer, facts: onnx_facts.Facts, files: Files, *, created_at_s: float
) -> Manifest:
    """What is said of an offer whose files have been packed."""
    return Manifest(
        name=offer.name,
        version=offer.version,
        display_version=offer.display_version or str(offer.version),
        files=files,
        inputs=facts.inputs,
        outputs=facts.outputs,
        preprocessing=dict(offer.preprocessing),
        min_agreement=offer.min_agreement,
        budget=offer.budget,
        licence=offer.licence,
        metadata={"guessed_outputs": ",".join(facts.guessed)} if facts.guessed else {},
        created_at_s=created_at_s,
    )


async def publish(
    offer: Offer,
    *,
    link: Link,
    topics: Topics,
    by: Signer,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Publish one version, its manifest last, so that whoever sees it finds all its chunks.

    Publishing the same again changes nothing but the time in the manifest. A link that is lost
    midway is waited for.

    Raises:
        BadInput: what is offered cannot be published.
        Unavailable: the broker is away for 60 s, or refuses.
    """
    facts = check(offer)

    async def send(path: Path | None) -> FileRef | None:
        if path is None:
            return None
        return await _upload(
            path, link=link, topics=topics, chunk_bytes=offer.chunk_bytes, on_progress=on_progress
        )

    model = await send(offer.model)
    assert model is not None
    manifest = manifest_of(
        offer,
        facts,
        Files(
            model=model,
            calibration=await send(offer.calibration),
            evaluation=await send(offer.evaluation),
        ),
        created_at_s=time.time(),
    )
    sealed = trust.seal(manifest.to_json(), payload_type=trust.MANIFEST, by=by)
    await _persistently(link, topics.model(offer.name, offer.version), sealed)
    return manifest


async def _upload(
    path: Path,
    *,
    link: Link,
    topics: Topics,
    chunk_bytes: int | None,
    on_progress: OnProgress | None,
) -> FileRef:
    packing = Packing(path, encoding=choose_encoding(path), chunk_bytes=chunk_bytes)
    blobs, sent = iter(packing), 0
    room = asyncio.Semaphore(IN_FLIGHT)

    async def send(name: str, blob: bytes) -> None:
        nonlocal sent
        try:
            await _persistently(link, topics.blob(name), blob)
        finally:
            room.release()
        sent += 1
        if on_progress is not None:
            on_progress(path.name, sent, packing.chunk_count)

    async with _first_failure_ends_all() as group:
        while True:
            await room.acquire()
            # Reading and compressing would hold up the acknowledgements.
            item = await asyncio.to_thread(next, blobs, None)
            if item is None:
                break
            group.create_task(send(*item), name=f"publish {item[0][:12]}")
    assert packing.ref is not None
    return packing.ref


async def _persistently(link: Link, topic: str, payload: bytes) -> None:
    """Publish, retained; where the link is lost, wait for it and publish again."""
    while True:
        await link.connected(RECONNECT_S)
        connection = link.connects
        try:
            await link.publish(topic, payload, retain=True)
        except Unavailable:
            if link.online and link.connects == connection:
                raise  # the broker is there and refuses
            await asyncio.sleep(0.05)
        else:
            return


class _first_failure_ends_all(asyncio.TaskGroup):  # noqa: N801 - reads as a phrase where it is used
    """A task group that raises the first failure itself, not a group of one."""

    async def __aexit__(self, *details: object) -> None:
        try:
            await super().__aexit__(*details)  # type: ignore[arg-type]  # passed through as they came
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _check_samples(path: Path, inputs: tuple[InputSpec, ...]) -> None:
    try:
        samples.open_samples(path, inputs).close()
    except BadInputs as error:
        raise BadInput(str(error)) from error
