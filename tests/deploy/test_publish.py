"""Publishing over a real broker: what a device then finds, and what never leaves the machine."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from securesystemslib.signer import Key, Signer

from agent.errors import BadInput, Corrupt, Refused, Unavailable
from agent.link.mqtt import Link
from agent.link.pull import blobs
from agent.link.retained import retained
from agent.protocol import chunking, trust
from agent.protocol import manifest as manifests
from agent.protocol.manifest import FileRef
from agent.protocol.topics import Topics
from agent.store.download import fetch_file
from compression.job import OutputSpec
from deploy import onnx_facts, publish, shelf
from deploy.packing import Packing, choose_encoding
from tests.simulators import models
from tests.simulators.broker import RunningBroker
from tests.simulators.proxy import Proxy
from tests.store.files import Shelf, a_file
from tests.store.test_catalog import a_manifest

TOPICS = Topics()
CONNECT_S = 15.0


def an_offer(folder: Path, *, version: int = 1, seed: int = 0, **more: Any) -> publish.Offer:
    folder.mkdir(exist_ok=True)
    model = models.cnn(folder / f"net{seed}.onnx", seed=seed)
    np.savez(folder / "inputs.npz", **models.sample_inputs(model, 40))
    return publish.Offer(
        model=model, name="net", version=version, calibration=folder / "inputs.npz", **more
    )


async def fetch(ref: FileRef, link: Link, folder: Path) -> bytes:
    target = folder / "fetched"
    target.unlink(missing_ok=True)
    await fetch_file(
        ref,
        get=lambda names: blobs(link, topics=TOPICS, names=names, timeout_s=CONNECT_S),
        target=target,
    )
    return target.read_bytes()


async def test_what_is_published_can_be_verified_and_fetched(
    broker: RunningBroker, signer: Signer, keys: tuple[Key, ...], tmp_path: Path
) -> None:
    offer = an_offer(tmp_path, licence="MIT", chunk_bytes=1024)
    progress: list[tuple[str, int, int]] = []
    async with Link(broker.settings(), client_id="operator", clean=True) as link:
        await link.connected(CONNECT_S)
        sent = await publish.publish(
            offer, link=link, topics=TOPICS, by=signer,
            on_progress=lambda *step: progress.append(step),
        )  # fmt: skip
        sealed = await retained(link, TOPICS.model("net", 1), timeout_s=CONNECT_S)
        manifest = manifests.parse(
            trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=keys)
        )
        assert manifest == sent
        assert await fetch(manifest.files.model, link, tmp_path) == offer.model.read_bytes()
        assert manifest.files.calibration is not None
        inputs = await fetch(manifest.files.calibration, link, tmp_path)
    assert inputs == (tmp_path / "inputs.npz").read_bytes()
    assert manifest.inputs[0].shape == (-1, 3, 32, 32)
    assert (manifest.outputs[0].name, manifest.outputs[0].kind) == ("logits", "logits")
    assert manifest.outputs[0].guessed
    assert manifest.metadata == {"guessed_outputs": "logits"}
    assert {name for name, _, _ in progress} == {"net0.onnx", "inputs.npz"}


@pytest.mark.parametrize("altered", ["payload", "signature", "signer"])
async def test_a_manifest_that_was_altered_is_not_believed(
    altered: str, signer: Signer, keys: tuple[Key, ...]
) -> None:
    sealed = trust.seal(b'{"name": "net"}', payload_type=trust.MANIFEST, by=signer)
    document = json.loads(sealed)
    if altered == "payload":
        document["payload"] = document["payload"][::-1]
    elif altered == "signature":
        document["signatures"][0]["sig"] = "0" * len(document["signatures"][0]["sig"])
    else:
        other = trust.signer(trust.generate()[0])
        document = json.loads(trust.seal(b'{"name": "net"}', payload_type=trust.MANIFEST, by=other))
    with pytest.raises((Corrupt, Refused)):
        trust.open_sealed(json.dumps(document).encode(), payload_type=trust.MANIFEST, keys=keys)


def test_a_manifest_with_a_field_that_nobody_knows_is_refused_by_name() -> None:
    document = json.loads(a_manifest().to_json())
    manifests.parse(json.dumps(document).encode())
    with pytest.raises(BadInput, match=r"unknown field 'files\.surprise'"):
        manifests.parse(
            json.dumps(document | {"files": document["files"] | {"surprise": 1}}).encode()
        )


async def test_publishing_goes_on_across_a_cut(
    broker: RunningBroker, signer: Signer, tmp_path: Path
) -> None:
    model = models.mlp(tmp_path / "big.onnx", hidden=60_000)
    offer = publish.Offer(model=model, name="net", version=1)
    async with (
        Proxy(broker.port) as proxy,
        Link(broker.settings(port=proxy.port), client_id="operator", clean=True) as link,
    ):
        await link.connected(CONNECT_S)
        cuts: list[int] = []

        def cut_once(_file: str, sent: int, total: int) -> None:
            if not cuts and sent >= total // 2:
                cuts.append(sent)
                proxy.cut()

        manifest = await publish.publish(
            offer, link=link, topics=TOPICS, by=signer, on_progress=cut_once
        )
        assert cuts
        assert await fetch(manifest.files.model, link, tmp_path) == model.read_bytes()


async def test_unpublish_clears_what_no_other_version_uses(
    broker: RunningBroker, signer: Signer, tmp_path: Path
) -> None:
    async with Link(broker.settings(), client_id="operator", clean=True) as link:
        await link.connected(CONNECT_S)
        first, second = an_offer(tmp_path / "1"), an_offer(tmp_path / "2", version=2, seed=5)
        for offer in (first, second):  # the same calibration inputs, another model
            await publish.publish(offer, link=link, topics=TOPICS, by=signer)
        cleared, kept = await shelf.unpublish("net", 1, link=link, topics=TOPICS)
        assert cleared >= 2
        assert kept >= 2
        with pytest.raises(BadInput, match="net@1: it is not on broker"):
            await shelf.unpublish("net", 1, link=link, topics=TOPICS)
        sealed = await retained(link, TOPICS.model("net", 2), timeout_s=CONNECT_S)
        manifest = manifests.parse(
            trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=trust.load_keys(tmp_path))
        )
        for ref in shelf.files_of(manifest):
            assert chunking.sha256(await fetch(ref, link, tmp_path)) == ref.sha256
        await shelf.unpublish("net", 2, link=link, topics=TOPICS)
        assert await shelf.retained_under(link, "trimtab/v1/#", quiet_s=0.3) == []


async def test_unpublish_goes_on_where_it_was_interrupted(
    broker: RunningBroker, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Link(broker.settings(), client_id="operator", clean=True) as link:
        await link.connected(CONNECT_S)
        await publish.publish(an_offer(tmp_path, chunk_bytes=4096), link=link, topics=TOPICS,
                              by=signer)  # fmt: skip
        whole, cleared = link.publish, 0

        async def gone_after_three(topic: str, payload: bytes, **options: Any) -> None:
            nonlocal cleared
            cleared += not payload
            if cleared > 3:
                raise Unavailable("cannot publish: gone")
            await whole(topic, payload, **options)

        monkeypatch.setattr(link, "publish", gone_after_three)
        with pytest.raises(Unavailable):
            await shelf.unpublish("net", 1, link=link, topics=TOPICS)
        monkeypatch.undo()
        sealed = await retained(link, TOPICS.model("net", 1), timeout_s=CONNECT_S)
        with pytest.raises(Corrupt, match="cannot read the envelope"):
            trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=trust.load_keys(tmp_path))
        await shelf.unpublish("net", 1, link=link, topics=TOPICS)
        assert await shelf.retained_under(link, "trimtab/v1/#", quiet_s=0.3) == []


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 30_000),
    chunk_bytes=st.integers(1024, 6000),
    encoding=st.sampled_from(["raw", "zstd"]),
    repetitive=st.booleans(),
)
def test_packed_is_fetched_for_every_size(
    *,
    size: int,
    chunk_bytes: int,
    encoding: chunking.Encoding,
    repetitive: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("p")
    data = b"abc" * (size // 3 + 1) if repetitive else a_file(size)
    (folder / "file").write_bytes(data)
    packing = Packing(folder / "file", encoding=encoding, chunk_bytes=chunk_bytes)
    sent = dict(packing)
    assert packing.ref is not None
    asyncio.run(
        fetch_file(
            packing.ref,
            get=Shelf(sent).get,
            target=folder / "out",
        )
    )
    assert (folder / "out").read_bytes() == data


def test_a_nested_index_is_packed_and_each_blob_fits_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(a_file(4_500_000))
    packing = Packing(tmp_path / "file", encoding="raw", chunk_bytes=1024)
    assert max(len(blob) for _, blob in packing) <= chunking.CHUNK_BYTES
    assert packing.ref is not None
    assert packing.ref.index_depth == 2


def test_compression_is_chosen_where_it_helps(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(a_file(300_000))
    (tmp_path / "zeros").write_bytes(bytes(300_000))
    assert choose_encoding(tmp_path / "noise") == "raw"
    assert choose_encoding(tmp_path / "zeros") == "zstd"
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(BadInput, match="0 bytes"):
        choose_encoding(tmp_path / "empty")


def test_inputs_that_do_not_fit_the_model_never_leave_the_machine(tmp_path: Path) -> None:
    offer = an_offer(tmp_path)
    np.savez(tmp_path / "inputs.npz", image=np.zeros((4, 1, 32, 32), np.float32))
    with pytest.raises(BadInput, match="image"):
        publish.check(offer)


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x07" * 50])
def test_a_file_that_is_no_model_is_bad_input(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"net\.onnx"):
        onnx_facts.read(path)


def test_weights_in_other_files_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "net.onnx", hidden=600)
    onnx.save(
        onnx.load(path), str(path), save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    with pytest.raises(BadInput, match="save it as one file"):
        onnx_facts.read(path)


def test_an_operators_word_on_an_output_overrides_the_guess(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "net.onnx")
    facts = onnx_facts.read(path, named=[OutputSpec(name="y", kind="embedding")])
    assert (facts.outputs[0].kind, facts.guessed) == ("embedding", ())
    assert not facts.outputs[0].guessed
    with pytest.raises(BadInput, match=r"output 'z': net\.onnx has y"):
        onnx_facts.read(path, named=[OutputSpec(name="z")])


def test_an_output_is_followed_through_what_only_passes_it_on(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("Identity", ["p"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["N", 5])],
        [value("out", TensorProto.FLOAT, ["N", 5])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "net.onnx"))
    spec = onnx_facts.read(tmp_path / "net.onnx").outputs[0]
    assert spec.name == "out"
    assert onnx_facts.read(tmp_path / "net.onnx").inputs[0].dtype == "float32"
