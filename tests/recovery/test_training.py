"""Cut models learn from the original on unlabelled inputs; what was learned is judged apart."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compression import graph
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import OutputSpec
from compression.passes import recovery, structured_pruning
from compression.recovery import checkpoints, engine, ground
from compression.recovery.judging import Judge
from tests.fixtures import models, renders

OUTPUTS = (OutputSpec(name="logits", kind="logits"),)
COUNT = 160
STEPS = 24
TRAINS = recovery.Settings(seconds=3600.0, steps=STEPS, learning_rate=1e-2, features=2)
"""Steps end a test, not the time, which says something else on a busy machine."""


@pytest.fixture(scope="module")
def original() -> onnx.ModelProto:
    return graph.regular(models.svhn().onnx)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    images = renders.digits(COUNT, seed=3)[0]
    return Evidence(lambda: ({"image": one[np.newaxis]} for one in images), outputs=OUTPUTS)


@pytest.fixture(scope="module")
def cut(original: onnx.ModelProto) -> onnx.ModelProto:
    """Without fitting anew: there is much to learn."""
    settings = structured_pruning.Settings(keep=0.4, refit=False, order="magnitude")
    return structured_pruning.apply(original, settings)


@pytest.fixture(scope="module")
def trained(
    original: onnx.ModelProto, cut: onnx.ModelProto, evidence: Evidence
) -> tuple[onnx.ModelProto, list[float]]:
    """The cut model trained without a break, and what was told of the progress."""
    told: list[float] = []
    made = recovery.apply(
        cut, TRAINS, original=original, evidence=evidence,
        report=lambda _, fraction: told.append(fraction),
    )  # fmt: skip
    return made, told


def test_a_cut_model_answers_more_like_the_original_again(
    original: onnx.ModelProto,
    cut: onnx.ModelProto,
    trained: tuple[onnx.ModelProto, list[float]],
) -> None:
    made, told = trained
    judge = Judge(original, OUTPUTS, threads=1)
    others = list(enumerate({"image": one[None]} for one in renders.digits(150, seed=4)[0]))
    before, after = (judge.figures(model, others) for model in (cut, made))
    assert after.agreement > before.agreement + 0.1
    assert after.loss < before.loss / 2
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert list(made.graph.node) == list(cut.graph.node)
    for one, other in zip(cut.graph.initializer, made.graph.initializer, strict=True):
        assert (one.name, one.dims, one.data_type) == (other.name, other.dims, other.data_type)


def test_what_is_no_better_beyond_chance_is_refused_with_its_figures(
    original: onnx.ModelProto, cut: onnx.ModelProto, evidence: Evidence, tmp_path: Path
) -> None:
    told: list[str] = []
    absurd = recovery.Settings(steps=4, learning_rate=3.0)
    with pytest.raises(BadModel, match=r"cannot recover by training .*agreement 0\.\d+ -> 0\.\d+"):
        recovery.apply(
            cut, absurd, original=original, evidence=evidence, folder=tmp_path / "gone",
            report=lambda message, _: told.append(message),
        )  # fmt: skip
    # Without a disk it trains all the same, and says so.
    assert any(one.startswith("cannot keep a checkpoint") for one in told)


def test_the_original_itself_has_nothing_to_recover(
    original: onnx.ModelProto, evidence: Evidence
) -> None:
    with pytest.raises(BadModel, match="no better beyond chance"):
        recovery.apply(
            original, recovery.Settings(steps=4, learning_rate=1e-4), original=original,
            evidence=evidence,
        )  # fmt: skip


def test_a_model_without_weights_is_refused_by_name(evidence: Evidence) -> None:
    node = onnx.helper.make_node("Flatten", ["image"], ["logits"])
    value = onnx.helper.make_tensor_value_info
    bare = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node], "g", [value("image", 1, ["N", 3, 32, 32])], [value("logits", 1, ["N", 3072])]
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9,
    )  # fmt: skip
    with pytest.raises(BadModel, match="cannot recover: it has no weights that learn"):
        recovery.apply(bare, recovery.Settings(seconds=0.5), original=bare, evidence=evidence)


def test_too_few_inputs_or_sources_are_refused(
    original: onnx.ModelProto, cut: onnx.ModelProto
) -> None:
    images = renders.digits(40, seed=3)[0]

    def feeds(count: int) -> Evidence:
        return Evidence(
            lambda: ({"image": one[np.newaxis]} for one in images[:count]),
            sources=lambda: [at % 4 for at in range(count)],
        )

    for count in (8, 40):
        with pytest.raises(BadModel, match=f"cannot recover by {count} calibration inputs of 4"):
            recovery.apply(
                cut, recovery.Settings(seconds=0.5), original=original, evidence=feeds(count)
            )


def test_no_source_lies_in_two_parts() -> None:
    sources = [at // 3 for at in range(120)]
    held = Evidence(
        lambda: ({"x": np.full(1, at, np.float32)} for at in range(120)), sources=lambda: sources
    )
    divided = ground.divide(held, most=1000)
    seen = {
        part: {source for source, _ in divided.feeds(part)} for part in ("train", "tune", "judge")
    }
    assert all(seen.values())
    assert sum(map(len, seen.values())) == 40
    assert len(set().union(*seen.values())) == 40


def test_a_training_that_is_killed_twice_ends_with_the_same_weights(
    original: onnx.ModelProto,
    cut: onnx.ModelProto,
    evidence: Evidence,
    trained: tuple[onnx.ModelProto, list[float]],
    tmp_path: Path,
) -> None:
    class KilledError(Exception):
        pass

    def goes_on(until: float) -> tuple[onnx.ModelProto, float]:
        fractions: list[float] = []

        def report(message: str, fraction: float) -> None:
            if message.startswith("step"):
                fractions.append(fraction)
                if fraction > until:
                    raise KilledError

        made = recovery.apply(
            cut, TRAINS, original=original, evidence=evidence, folder=tmp_path, report=report
        )
        return made, min(fractions)

    for until in (0.3, 0.7):
        with pytest.raises(KilledError):
            goes_on(until)
    made, began = goes_on(1.0)
    assert began > 0.5
    assert made.SerializeToString(True) == trained[0].SerializeToString(True)


def test_a_checkpoint_of_other_settings_is_not_used(
    original: onnx.ModelProto, cut: onnx.ModelProto
) -> None:
    asked = engine.Asked(seconds=1.0)
    known = engine.key(cut, original, asked)
    assert engine.key(cut, original, replace(asked, seconds=9.0, threads=2)) == known
    for other in ({"samples": 9}, {"batch": 9}, {"seed": 9}, {"features": 0}, {"learning_rate": 1}):
        assert engine.key(cut, original, replace(asked, **other)) != known
    assert engine.key(original, original, asked) != known


def test_a_checkpoint_that_is_damaged_or_of_something_else_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / checkpoints.NAME
    state = checkpoints.State(
        rate=0.1, spent_s=3.0, steps=7, tensors={"now": {"a/b": torch.ones(2)}}
    )
    assert checkpoints.load(path, key="x") is None
    checkpoints.save(path, state, key="x")
    found = checkpoints.load(path, key="x")
    assert found is not None
    assert (found.rate, found.spent_s, found.steps) == (0.1, 3.0, 7)
    assert found.tensors["now"]["a/b"].tolist() == [1.0, 1.0]
    assert checkpoints.load(path, key="y") is None
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\0" * 100):
        path.write_bytes(damaged)
        assert checkpoints.load(path, key="x") is None


def test_nothing_but_the_engine_loads_torch() -> None:
    script = (
        "import json, sys; import compression.pipeline, compression.worker, compression.trial; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'torch']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(done.stdout) == []
