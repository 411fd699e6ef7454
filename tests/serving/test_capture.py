"""Live requests kept by the real server: a fair sample, at little cost, sealed where asked."""

import asyncio
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agent.errors import Corrupt
from agent.host import comparing
from agent.protocol.capturing import SUFFIX, CaptureOrder, GatherJob, ShadowJob
from agent.serving import sampled
from agent.serving.capture import Reservoir
from agent.serving.sealing import Seal
from compression import samples
from compression.job import InputSpec, OutputSpec
from tests.simulators import models, serving
from tests.simulators.serving import Running
from tests.simulators.waiting import until

SPEC = InputSpec(name="x", dtype="float32", shape=(-1, 8))


def post(server: Running, values: object, shape: list[int], name: str = "m") -> int:
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": values}
    body = json.dumps({"inputs": [tensor]}).encode()
    return server.ask("POST", f"/v2/models/{name}/infer", body)[0]


def order(folder: Path, **changes: object) -> CaptureOrder:
    folder.mkdir(exist_ok=True)
    given = {"name": "m", "kind": "reservoir", "folder": str(folder), "most": 40, "share": 1.0}
    return CaptureOrder.model_validate(given | changes)


def test_every_request_of_a_stream_is_as_likely_to_stay() -> None:
    stayed: Counter[int] = Counter()
    for seed in range(3000):
        reservoir = Reservoir(5, held=0, chance=random.Random(seed))
        kept: dict[int, int] = {}
        for number in range(20):
            place = reservoir.place()
            if place is not None:
                kept[place] = number
                reservoir.held = len(kept)
        stayed.update(kept.values())
    # 3000 x 5 / 20 = 750 each; a standard deviation is 24.
    assert min(stayed.values()) > 620
    assert max(stayed.values()) < 880


@pytest.mark.parametrize("key", [None, b"k" * 32], ids=["plain", "sealed"])
async def test_what_is_asked_becomes_a_file_of_inputs(tmp_path: Path, key: bytes | None) -> None:
    key_file = None
    if key is not None:
        key_file = tmp_path / "key"
        key_file.write_bytes(key)
    wanted = order(tmp_path / "kept", key_file=str(key_file) if key_file else None)
    with serving.running() as server:
        server.load("m", models.mlp(tmp_path / "mlp.onnx"))
        assert server.call(server.supervisor.capture(wanted)).kept == 0
        rows = np.random.default_rng(1).random((30, 8), np.float32)
        for number, row in enumerate(rows):
            assert await asyncio.to_thread(post, server, row.tolist(), [1, 8]) == 200
            await until(
                lambda n=number: server.call(server.supervisor.capture(wanted)).kept == n + 1
            )
        # One again, and one that holds what no model may be calibrated with.
        await asyncio.to_thread(post, server, rows[3].tolist(), [1, 8])
        status = server.call(server.supervisor.capture(wanted))
        assert (status.kept, status.cannot) == (30, "")
    files = sorted((tmp_path / "kept").glob(f"*{SUFFIX}"))
    plain = all(b"in::x" in path.read_bytes() for path in files)
    assert plain is (key is None)
    assert not any(rows[0].tobytes() in path.read_bytes() for path in files) or key is None
    files[7].write_bytes(files[7].read_bytes()[:-9])  # a power cut
    out = tmp_path / "all.npz"
    job = GatherJob(folder=str(tmp_path / "kept"), out=str(out), inputs=(SPEC,),
                    key_file=wanted.key_file)  # fmt: skip
    gathered = await comparing.gather(job)
    assert (gathered.samples, gathered.damaged) == (29, 1)
    first = out.read_bytes()
    await comparing.gather(job)
    assert out.read_bytes() == first, "the same requests make the same file"
    with samples.open_samples(out, [SPEC]) as held:
        assert len(held) == 29
        found = {held.sample(index)["x"].tobytes() for index in range(29)}
    assert found == {row.tobytes() for row in np.delete(rows, 7, axis=0)}


def test_a_sealed_file_opens_with_its_key_under_its_name_only(tmp_path: Path) -> None:
    for name, byte in (("key", b"k"), ("other", b"o")):
        (tmp_path / name).write_bytes(byte * 32)
    seal = Seal(tmp_path / "key")
    path = tmp_path / f"000001{SUFFIX}"
    sampled.write(path, {"x": np.ones(3, "f4")}, {}, seal)
    assert sampled.read(path, seal).inputs["x"].tolist() == [1, 1, 1]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Corrupt, match="another key, or damaged"):
        sampled.read(path, Seal(tmp_path / "other"))
    moved = path.rename(tmp_path / f"000002{SUFFIX}")
    with pytest.raises(Corrupt, match="another key, or damaged"):
        sampled.read(moved, seal)


def test_what_cannot_be_kept_is_said_and_requests_are_answered(tmp_path: Path) -> None:
    with serving.running() as server:
        server.load("m", models.mlp(tmp_path / "mlp.onnx"))
        bad_key = tmp_path / "short"
        bad_key.write_bytes(b"short")
        told = server.call(server.supervisor.capture(order(tmp_path / "a", key_file=str(bad_key))))
        assert "5 bytes, not 32" in told.cannot
        gone = order(tmp_path / "b")
        server.call(server.supervisor.capture(gone))
        (tmp_path / "b").rmdir()
        assert post(server, [0.0] * 8, [1, 8]) == 200
        status = None
        for _ in range(200):
            status = server.call(server.supervisor.capture(gone))
            if status.cannot:
                break
        assert status is not None
        assert status.cannot.startswith("cannot keep inputs: ")
        assert post(server, [0.0] * 8, [1, 8]) == 200


def test_what_would_spoil_a_calibration_is_not_kept(tmp_path: Path) -> None:
    wanted = order(tmp_path / "kept", most_bytes=70)
    with serving.running() as server:
        server.load("m", models.mlp(tmp_path / "mlp.onnx"))
        server.call(server.supervisor.capture(wanted))
        assert post(server, [1e39] + [0.0] * 7, [1, 8]) in {200, 400}  # infinite as FP32
        for number in range(12):
            assert post(server, [float(number)] * 8, [1, 8]) == 200
        status = server.call(server.supervisor.capture(wanted))
        ended = server.call(server.supervisor.capture(wanted.model_copy(update={"most": 0})))
        assert status.kept <= 2, "two of 32 bytes fit"
        assert ended.kept >= 1
        before = len(list((tmp_path / "kept").glob("*")))
        post(server, [77.0] * 8, [1, 8])
        assert len(list((tmp_path / "kept").glob("*"))) == before, "it has ended"


def test_a_capture_costs_no_more_than_its_share(tmp_path: Path) -> None:
    wanted = order(tmp_path / "kept", most=2000, share=0.005)
    with serving.running() as server:
        server.load("m", models.mlp(tmp_path / "mlp.onnx"))
        server.call(server.supervisor.capture(wanted))
        rng = np.random.default_rng(0)
        for _ in range(400):
            assert post(server, rng.random(8).tolist(), [1, 8]) == 200
        status = server.call(server.supervisor.capture(wanted))
    # What it may spend is asked before each request; one may go over it.
    assert status.seen < 400 or status.spent_s <= 0.03 + 0.005 * status.elapsed_s
    assert status.spent_s <= 0.2


async def test_live_answers_are_compared_with_a_reference(tmp_path: Path) -> None:
    one, two = (serving.constant(tmp_path / f"{v}.onnx", v) for v in (1.0, 2.0))
    digest = hashlib.sha256(two.read_bytes()).hexdigest()
    (tmp_path / "queue").mkdir()
    wanted = order(tmp_path / "queue", kind="queue", most=8, sha256=digest)
    job = ShadowJob(
        folder=wanted.folder, model_path=str(one), outputs=(OutputSpec(name="y", kind="score"),),
        sha256=hashlib.sha256(one.read_bytes()).hexdigest(),
    )  # fmt: skip
    with serving.running() as server:
        server.load("m", two)
        async with comparing.shadow(job) as newest:
            async with asyncio.timeout(120):  # it runs at idle priority
                while newest().compared < 5:
                    server.call(server.supervisor.capture(wanted))
                    await asyncio.to_thread(post, server, [0.0], [1])
                    await asyncio.sleep(0.02)
            found = newest()
    assert found.compared >= 5
    assert found.agreement is not None
    assert (found.agreement.value, found.agreement.split) == (1.0, "live")
    assert found.cannot == ""


async def test_a_reference_that_dies_is_said_and_nothing_else_happens(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    job = ShadowJob(folder=str(tmp_path), model_path=str(path), sha256="0" * 64)
    async with comparing.shadow(job) as newest:
        await until(lambda: newest().cannot)
    assert "its sha256 is" in newest().cannot
