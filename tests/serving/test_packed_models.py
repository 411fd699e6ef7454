"""A packed model is loaded, measured, kept and served like any other; a broken one is told."""

import asyncio
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from agent.errors import BadInput, Corrupt
from agent.host import trials
from agent.serving import runtime
from compression import report
from compression.choosing.shelf import Shelf
from compression.errors import BadModel
from compression.findings import Measurement
from compression.job import Recipe, Runtime, TrialJob
from compression.packed import reading, writing
from deploy import onnx_facts
from tests.compression.test_page import DEVICE, ladder_of, measured
from tests.simulators import models


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    plain = models.cnn(tmp_path / "m.onnx", width=32)
    path = tmp_path / "m.onnx.packed"
    path.write_bytes(writing.pack(plain.read_bytes()))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_server_answers_by_a_packed_model_as_by_the_plain_one(packed: Path) -> None:
    plain = packed.with_suffix("")
    inputs = {name: array[:1] for name, array in models.sample_inputs(plain, 1).items()}
    answers = []
    for path in (plain, packed):
        model = runtime.load(path, sha256=digest(path), runtime=Runtime())
        model.check(inputs)
        answers.append(model.run(inputs, ["logits"])[0])
        model.close()
    assert np.array_equal(*answers)


def test_the_hash_is_of_the_file_as_it_lies_there(packed: Path) -> None:
    with pytest.raises(Corrupt, match="its sha256 is"):
        runtime.load(packed, sha256=digest(packed.with_suffix("")), runtime=Runtime())


@pytest.mark.parametrize("keep", [20, 3000, -1])
def test_the_server_refuses_a_broken_one_in_a_line(packed: Path, keep: int) -> None:
    packed.write_bytes(packed.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"cannot expand m\.onnx\.packed: not what was packed"):
        runtime.load(packed, sha256=digest(packed), runtime=Runtime())


def trial(packed: Path, tmp_path: Path) -> Measurement:
    plain = packed.with_suffix("")
    np.savez(tmp_path / "i.npz", **models.sample_inputs(plain, 8))
    job = TrialJob(
        candidate_path=str(packed), original_path=str(plain),
        inputs_path=str(tmp_path / "i.npz"), rounds=3, seconds=2.0,
    )  # fmt: skip
    return asyncio.run(trials.trial(job))


def test_a_trial_measures_the_file_and_what_it_expands_to(packed: Path, tmp_path: Path) -> None:
    found = trial(packed, tmp_path)
    assert found.size_mib == packed.stat().st_size / 2**20
    assert found.expanded_mib == found.original_size_mib
    assert found.agreement.value == 1
    assert "expanded MiB" in report.measurement(found)


def test_a_trial_of_a_broken_one_says_why(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:2000])
    with pytest.raises(BadModel, match=r"cannot expand m\.onnx\.packed"):
        trial(packed, tmp_path)


def test_a_packed_rung_is_known_by_its_name_and_what_no_ladder_names_is_swept(
    packed: Path, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path / "out")
    content, rungs = packed.read_bytes(), []
    for key, data in (("a" * 12, content), ("b" * 12, packed.with_suffix("").read_bytes())):
        shelf.candidate(key).write_bytes(data)
        rungs.append(
            shelf.put(
                key, shelf.candidate(key), recipe=Recipe(label=key), runtime=Runtime(),
                measurement=measured(), verified=True,
            )
        )  # fmt: skip
    assert [Path(rung.file).suffix for rung in rungs] == [reading.SUFFIX, ".onnx"]
    assert shelf.get("a" * 12) == rungs[0]
    assert hashlib.sha256((tmp_path / "out" / rungs[0].file).read_bytes()).hexdigest() == (
        rungs[0].sha256
    )
    shelf.close(ladder_of(rungs[1]))
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {rungs[1].file, "ladder.json", "work"}
    assert json.loads((tmp_path / "out" / "ladder.json").read_text())["device_class"] == (
        json.loads(DEVICE.to_json())
    )


def test_a_packed_model_is_published_by_what_it_expands_to(packed: Path) -> None:
    plain, expanded = (onnx_facts.read(path) for path in (packed.with_suffix(""), packed))
    assert plain == expanded
