"""What is published on the broker, and how to take a version off it again."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable

from agent.errors import BadInput, Unavailable
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.link.pull import blobs
from agent.protocol import chunking
from agent.protocol import manifest as manifests
from agent.protocol.manifest import FileRef, Manifest
from agent.protocol.topics import Topics

QUIET_S = 1.0
"""Retained messages come at once; after this much silence there are no more."""
PULL_S = 15.0


async def retained_under(
    link: Link, topic_filter: str, *, quiet_s: float = QUIET_S
) -> list[Message]:
    """Everything retained under a filter, in order of topic.

    Raises:
        Unavailable: not connected, or denied.
    """
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    found: dict[str, Message] = {}
    await link.subscribe([topic_filter], arrived.put_nowait)
    try:
        while True:
            message = await asyncio.wait_for(arrived.get(), quiet_s)
            found[message.topic] = message
    except TimeoutError:
        return [found[topic] for topic in sorted(found) if found[topic].payload]
    finally:
        link.unsubscribe([topic_filter])


async def unpublish(name: str, version: int, *, link: Link, topics: Topics) -> tuple[int, int]:
    """Clear a version's manifest and each blob that no other published manifest names.

    Returns (blobs cleared, blobs kept because another version uses them). Signatures are not
    checked: whoever may publish may clear.

    Raises:
        BadInput: it is not published.
        Unavailable: the link, or an index that the broker does not have any more.
    """
    topic = topics.model(name, version)
    published = {m.topic: m.payload for m in await retained_under(link, topics.every_model())}
    if topic not in published:
        raise BadInput(f"cannot unpublish {name}@{version}: it is not on broker {link.where}")
    ours = await _blobs_of(_files(published.pop(topic)), link=link, topics=topics)
    kept: set[str] = set()
    for other in published.values():
        kept |= await _blobs_of(_files(other), link=link, topics=topics) & ours
    # The manifest goes first: nobody shall begin to pull what is about to vanish.
    await link.publish(topic, b"", retain=True)
    for blob in sorted(ours - kept):
        await link.publish(topics.blob(blob), b"", retain=True)
    return len(ours - kept), len(kept)


def _files(sealed: bytes) -> list[FileRef]:
    """The files that a manifest names, by its unverified payload."""
    try:
        manifest = manifests.parse(base64.b64decode(json.loads(sealed)["payload"]))
    except (BadInput, ValueError, KeyError, TypeError):
        return []  # no manifest of ours; it names nothing that we could keep for it
    return list(files_of(manifest))


def files_of(manifest: Manifest) -> Iterable[FileRef]:
    """Every file that a manifest names."""
    files = manifest.files
    named = (files.model, files.calibration, files.evaluation, *(v.file for v in files.variants))
    return [ref for ref in named if ref is not None]


async def _blobs_of(refs: list[FileRef], *, link: Link, topics: Topics) -> set[str]:
    """The names of all blobs of some files: chunks and indexes."""
    names: set[str] = set()
    for ref in refs:
        level = [ref.index]
        names |= set(level)
        for _ in range(ref.index_depth):
            below: list[str] = []
            async for blob in _pull(level, link=link, topics=topics):
                below += chunking.split_index(blob)
            level = list(dict.fromkeys(below))
            names |= set(level)
    return names


async def _pull(names: list[str], *, link: Link, topics: Topics) -> AsyncIterator[bytes]:
    async for name, payload in blobs(link, topics=topics, names=names, timeout_s=PULL_S):
        if chunking.sha256(payload) != name:
            raise Unavailable(f"cannot read index blob {name[:12]}: damaged on {link.where}")
        yield payload
