"""What is wrong is named once, as an event or an answer; what ran before goes on running."""

import json
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from agent.protocol import chunking, commands, trust
from agent.protocol.manifest import Manifest
from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models


@pytest.fixture
async def serving(site: Site) -> Site:
    """A site on which version 1 of `m` serves."""
    await site.fleet.publish(**site.cnn(1))
    end = await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    assert end.state == "live", end.message
    return site


def still_serves(site: Site) -> bool:
    inputs = models.sample_inputs(site.folder / "cnn-1.onnx", 1, 0)
    return bool(site.agent.infer("m", inputs)["model_version"] == "1")


async def republish(
    site: Site, manifest: Manifest, key: bytes | None = None, **changes: object
) -> None:
    """Put a manifest on the broker that an honest publisher would not have."""
    document = json.loads(manifest.to_json()) | changes
    sealed = trust.seal(
        json.dumps(document).encode(), payload_type=trust.MANIFEST,
        by=trust.signer(key or site.fleet.private_key),
    )  # fmt: skip
    topic = site.fleet.topics.model("m", manifest.version)
    await site.fleet.link.publish(topic, sealed, retain=True)


async def test_a_manifest_signed_by_a_stranger_is_refused(serving: Site) -> None:
    manifest = await serving.fleet.publish(**serving.cnn(2), version=2)
    await republish(serving, manifest, key=trust.generate()[0])
    end = await serving.fleet.end_of(await serving.fleet.deploy(version=2))
    assert end.state == "refused"
    assert "not by a trusted key" in end.message
    assert still_serves(serving)


async def test_a_manifest_with_an_unknown_field_is_refused_by_name(serving: Site) -> None:
    manifest = await serving.fleet.publish(**serving.cnn(2), version=2)
    await republish(serving, manifest, colour="green")
    end = await serving.fleet.end_of(await serving.fleet.deploy(version=2))
    assert end.state == "refused"
    assert "unknown field 'colour'" in end.message
    assert still_serves(serving)


async def test_a_file_that_is_not_what_the_manifest_says_fails(serving: Site) -> None:
    manifest = await serving.fleet.publish(**serving.cnn(2), version=2)
    files = json.loads(manifest.to_json())["files"]
    files["model"]["sha256"] = "0" * 64
    await republish(serving, manifest, files=files)
    end = await serving.fleet.end_of(await serving.fleet.deploy(version=2))
    assert end.state == "failed"
    assert "manifest says 000000000000" in end.message
    assert still_serves(serving)


async def test_a_corrupt_chunk_fails_by_name(serving: Site) -> None:
    fleet = serving.fleet
    manifest = await fleet.publish(**serving.cnn(2), version=2)
    await fleet.link.publish(fleet.topics.blob(manifest.files.model.index), b"x" * 32, retain=True)
    end = await fleet.end_of(await fleet.deploy(version=2))
    assert end.state == "failed"
    assert manifest.files.model.index[:12] in end.message
    assert still_serves(serving)


@pytest.mark.parametrize("what", ["not ONNX", "truncated"])
async def test_a_model_that_is_none_is_refused(serving: Site, what: str) -> None:
    fleet = serving.fleet
    good = serving.cnn(2)
    manifest = await fleet.publish(**good, version=2)
    data = b"GIF89a, surely no model" if what == "not ONNX" else good["model"].read_bytes()[:-400]
    bad = serving.folder / "bad.onnx"
    bad.write_bytes(data)
    ref = await blob_file(serving, bad)
    files = json.loads(manifest.to_json())["files"] | {"model": ref}
    await republish(serving, manifest, files=files)
    end = await fleet.end_of(await fleet.deploy(version=2))
    assert end.state == "refused", end.message
    assert end.message.startswith("cannot")
    assert still_serves(serving)


async def blob_file(site: Site, path: Path) -> dict[str, object]:
    """Publish a small file as one chunk, past the publisher's own checks."""
    data = path.read_bytes()
    parts = [data[i : i + chunking.CHUNK_BYTES] for i in range(0, len(data), chunking.CHUNK_BYTES)]
    blobs, depth = chunking.index_blobs([chunking.sha256(part) for part in parts])
    for blob in (*parts, *blobs):
        await site.fleet.link.publish(
            site.fleet.topics.blob(chunking.sha256(blob)), blob, retain=True
        )
    return {"size_bytes": len(data), "sha256": chunking.sha256(data), "index_depth": depth,
            "index": chunking.sha256(blobs[-1]), "encoding": "raw"}  # fmt: skip


async def test_calibration_inputs_of_the_wrong_shape_leave_the_original_live(serving: Site) -> None:
    fleet = serving.fleet
    manifest = await fleet.publish(**serving.cnn(2), version=2)
    wrong = serving.folder / "wrong.npz"
    np.savez(wrong, x=np.zeros((4, 5), np.float32))
    files = json.loads(manifest.to_json())["files"] | {
        "calibration": await blob_file(serving, wrong)
    }
    await republish(serving, manifest, files=files)
    end = await fleet.end_of(await fleet.deploy(version=2, budget=Budget(size_ratio=0.5)))
    assert end.state == "refused"
    assert "cannot" in end.message
    assert still_serves(serving)


async def test_an_unsigned_command_is_told_and_not_obeyed(serving: Site) -> None:
    fleet = serving.fleet
    await fleet.link.publish(fleet.topics.command("device/pole-7"), b'{"kind": "remove"}')
    event = await fleet.event(lambda e: e.kind == "corrupt", what="event about it")
    assert "cannot read the envelope" in event.message
    assert still_serves(serving)


async def test_an_unknown_command_is_told_by_name(serving: Site) -> None:
    fleet = serving.fleet
    document = {"id": "command-x", "audience": "device/pole-7", "issued_at_s": 0,
                "expires_at_s": 9e9, "body": {"kind": "reboot"}}  # fmt: skip
    sealed = trust.seal(
        json.dumps(document).encode(), payload_type=trust.COMMAND,
        by=trust.signer(fleet.private_key),
    )  # fmt: skip
    await fleet.link.publish(fleet.topics.command("device/pole-7"), sealed)
    event = await fleet.event(lambda e: e.kind == "refused", what="event about it")
    assert "cannot obey command 'reboot': known are deploy" in event.message
    assert still_serves(serving)


@pytest.mark.parametrize("topic", ["trimtab/v1/#", "trimtab/v1/device/pole-7/status", "x" * 300])
async def test_a_reply_goes_only_where_replies_go(serving: Site, topic: str) -> None:
    body = commands.Ping()
    now_s = time.time()
    command = commands.Command(
        id=uuid.uuid4().hex, audience="device/pole-7", issued_at_s=now_s,
        expires_at_s=now_s + 60, body=body,
    )  # fmt: skip
    signer = trust.signer(serving.fleet.private_key)
    envelope = trust.seal(command.to_json(), payload_type=trust.COMMAND, by=signer)
    to = serving.fleet.topics.command("device/pole-7")
    await serving.fleet.link.publish(to, envelope, response_topic=topic)
    told = await serving.fleet.event(
        lambda e: e.kind == "refused" and "no topic of replies" in e.message, what="refusal"
    )
    assert topic[:80] in told.message
    assert still_serves(serving)
