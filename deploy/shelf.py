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
_GOING = "trimtab_unpublishing"
"""The key of the note that stands in the place of a manifest whose chunks are being cleared."""


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
            async with asyncio.timeout(quiet_s):
                message = await arrived.get()
            found[message.topic] = message
    except TimeoutError:
        return [found[topic] for topic in sorted(found) if found[topic].payload]
    finally:
        link.unsubscribe([topic_filter])


async def unpublish(name: str, version: int, *, link: Link, topics: Topics) -> tuple[int, int]:
    """Clear a version's manifest and each blob that no other published manifest names.

    Returns (blobs cleared, blobs kept because another version uses them). Signatures are not
    checked: whoever may publish may clear. Interrupted, it goes on when it is called again: a
    note takes the manifest's place first, so that nobody begins to pull what is about to vanish,
    and goes last.

    Raises:
        BadInput: it is not published.
        Unavailable: the link, or the index of another version that the broker has lost: nobody
            can tell then what must stay.
    """
    topic = topics.model(name, version)
    published = {m.topic: m.payload for m in await retained_under(link, topics.every_model())}
    if topic not in published:
        raise BadInput(f"cannot unpublish {name}@{version}: it is not on broker {link.where}")
    going = _files(published.pop(topic))
    ours, indexes = await _blobs_of(going, link=link, topics=topics, all_of_them=False)
    kept: set[str] = set()
    for other in published.values():
        theirs, _ = await _blobs_of(_files(other), link=link, topics=topics)
        kept |= theirs & ours
    await link.publish(topic, _note(going), retain=True)
    # An index goes behind what it names: without it nobody could find the rest.
    for blob in [*sorted(ours - kept - indexes), *sorted(indexes - kept)]:
        await link.publish(topics.blob(blob), b"", retain=True)
    await link.publish(topic, b"", retain=True)
    return len(ours - kept), len(kept)


def _note(files: list[FileRef]) -> bytes:
    """What stands in the manifest's place: no envelope, so no device takes it for one."""
    listed = [json.loads(ref.to_json()) for ref in files]
    return json.dumps({_GOING: listed}, separators=(",", ":")).encode()


def _files(retained: bytes) -> list[FileRef]:
    """The files that a manifest names, by its unverified payload, or a note."""
    try:
        document = json.loads(retained)
        if _GOING in document:
            return [FileRef.model_validate(each) for each in document[_GOING]]
        manifest = manifests.parse(base64.b64decode(document["payload"]))
    except (BadInput, ValueError, KeyError, TypeError):
        return []  # no manifest of ours; it names nothing that we could keep for it
    return list(files_of(manifest))


def files_of(manifest: Manifest) -> Iterable[FileRef]:
    """Every file that a manifest names."""
    files = manifest.files
    named = (files.model, files.calibration, files.evaluation, *(v.file for v in files.variants))
    return [ref for ref in named if ref is not None]


async def _blobs_of(
    refs: list[FileRef], *, link: Link, topics: Topics, all_of_them: bool = True
) -> tuple[set[str], set[str]]:
    """The names of all blobs of some files, and which of them are indexes.

    Raises:
        Unavailable: an index is gone, unless not `all_of_them` are needed.
    """
    names: set[str] = set()
    indexes: set[str] = set()
    for ref in refs:
        level = [ref.index]
        for _ in range(ref.index_depth):
            indexes |= set(level)
            below: list[str] = []
            try:
                async for blob in _pull(level, link=link, topics=topics):
                    below += chunking.split_index(blob)
            except Unavailable:
                if all_of_them:
                    raise
            level = list(dict.fromkeys(below))
            names |= set(level)
    return names | indexes, indexes


async def _pull(names: list[str], *, link: Link, topics: Topics) -> AsyncIterator[bytes]:
    async for name, payload in blobs(link, topics=topics, names=names, timeout_s=PULL_S):
        if chunking.sha256(payload) != name:
            raise Unavailable(f"cannot read index blob {name[:12]}: damaged on {link.where}")
        yield payload
