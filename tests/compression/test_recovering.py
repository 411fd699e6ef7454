"""The gate of a job: what was trained is let in where it is better, whatever the training did.

The training itself is a stand-in here, so that it does what each test needs; with the real one
see tests/recovery.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression import pipeline, report
from compression.choosing import recovering, room
from compression.choosing.climb import Climb
from compression.errors import BadModel
from compression.findings import Ladder
from compression.job import Budget, CompressJob, PassSpec, Recipe
from compression.passes import catalogue
from compression.passes.context import Context
from tests.compression import parent
from tests.compression.pretended import Quiet
from tests.simulators import models

CUT = Recipe(
    label="cut",
    passes=(
        PassSpec(name="structured_pruning", parameters={"keep": 0.3, "refit": False}),
        PassSpec(name="stored"),
    ),
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompressJob:
    monkeypatch.setattr(recovering, "installed", lambda: True)
    path = models.cnn(tmp_path / "model.onnx", width=32)
    np.savez(tmp_path / "inputs.npz", **models.sample_inputs(path, 120))
    (tmp_path / "out").mkdir()
    return CompressJob(
        model_name="small", model_path=str(path), calibration_path=str(tmp_path / "inputs.npz"),
        budget=Budget(min_agreement=0.4), device_class=parent.HASWELL,
        out_dir=str(tmp_path / "out"), minutes=2, recover_minutes=1, recipes=(CUT,),
    )  # fmt: skip


def trains(monkeypatch: pytest.MonkeyPatch, how: catalogue.Pass) -> None:
    monkeypatch.setitem(catalogue.PASSES, "recovery", how)
    monkeypatch.setattr(pipeline, "FLOAT", catalogue.FLOAT | {"recovery"})


def perfect(model: onnx.ModelProto, parameters: dict, context: Context) -> onnx.ModelProto:
    del model
    assert parameters["seconds"] == 45.0
    assert context.workplace is not None
    context.workplace.report("step 9, loss 0.1, agreement 0.9", 0.5)
    return context.original


def ruinous(model: onnx.ModelProto, parameters: dict, context: Context) -> onnx.ModelProto:
    """A training that diverged a little."""
    del parameters, context
    random = np.random.default_rng(0)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            noise = random.normal(size=values.shape).astype(np.float32) * values.std()
            tensor.CopyFrom(numpy_helper.from_array(values + noise, tensor.name))
    return changed


def climbed(job: CompressJob, listener: Quiet | None = None) -> Ladder:
    return Climb(job, listener or Quiet()).run()


def labels(found: Ladder) -> set[str]:
    return {one.recipe.label for one in found.rungs}


def test_what_became_better_is_tried_and_told(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch, perfect)
    listener = Quiet()
    found = climbed(job, listener)
    (one,) = found.recovered
    assert one.accepted
    assert one.of == "cut"
    assert one.agreement is not None
    assert one.loss is not None
    assert one.agreement.after > one.agreement.before
    assert one.loss.after < one.loss.before
    assert "cut, recovered" in labels(found)
    assert "cut, recovered: let in, better: agreement" in report.table(found)
    assert any(
        stage == "recovering"
        and message == "cut, recovered: step 9, loss 0.1, agreement 0.9, 0.4 min left"
        for stage, message in listener.said
    )


def test_what_became_worse_is_not_let_in_and_says_by_how_much(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch, ruinous)
    found = climbed(job)
    (one,) = found.recovered
    assert not one.accepted
    assert "cut, recovered" not in labels(found)
    (lost,) = [one for one in found.rejected if one.recipe.label == "cut, recovered"]
    assert lost.reason.startswith("not let in: no better beyond chance in agreement and loss: ")
    assert "agreement 0." in lost.reason


def test_the_untrained_variant_keeps_its_place(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = climbed(job.model_copy(update={"recover_minutes": 0.0}))
    trains(monkeypatch, ruinous)
    again = climbed(job)
    assert [one.sha256 for one in again.rungs] == [one.sha256 for one in plain.rungs]


def breaks(model: onnx.ModelProto, parameters: dict, context: Context) -> onnx.ModelProto:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def refuses(model: onnx.ModelProto, parameters: dict, context: Context) -> onnx.ModelProto:
    raise BadModel("cannot recover: nothing became better on 9 held-out inputs")


@pytest.mark.parametrize(
    ("how", "reason"),
    [(breaks, "RuntimeError: DefaultCPUAllocator"), (refuses, "nothing became better on 9")],
)
def test_a_training_that_fails_costs_its_own_candidate_alone(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch, how: catalogue.Pass, reason: str
) -> None:
    trains(monkeypatch, how)
    found = climbed(job)
    assert "cut" in labels(found)
    (one,) = found.recovered
    assert reason in one.reason
    assert one.agreement is None


def test_a_recipe_that_a_person_gave_is_judged_beside_itself_too(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch, ruinous)
    cut, stored = CUT.passes
    given = Recipe(label="mine", passes=(cut, PassSpec(name="recovery"), stored))
    found = climbed(job.model_copy(update={"recipes": (given,), "recover_minutes": 0.0}))
    assert labels(found) == {"original"}
    (lost,) = found.rejected
    assert lost.reason.startswith("not let in: ")


@pytest.mark.parametrize(
    ("torch", "free_mib", "reason"),
    [
        (False, 9e9, "cannot recover: torch is not installed; pip install 'trimtab[recover]'"),
        (True, 100.0, "cannot recover: it needs about "),
    ],
)
def test_where_it_cannot_train_the_search_goes_on_and_says_why(
    job: CompressJob,
    monkeypatch: pytest.MonkeyPatch,
    torch: bool,
    free_mib: float,
    reason: str,
) -> None:
    trains(monkeypatch, perfect)
    monkeypatch.setattr(recovering, "installed", lambda: torch)
    monkeypatch.setattr(room, "available_mib", lambda _root: free_mib)
    found = climbed(job)
    assert "cut" in labels(found)
    assert not found.recovered
    assert any(one.reason.startswith(reason) for one in found.rejected)


def test_made_up_inputs_teach_nothing(job: CompressJob, monkeypatch: pytest.MonkeyPatch) -> None:
    trains(monkeypatch, perfect)
    plain = PassSpec(name="structured_pruning", parameters={"keep": 0.3, "order": "magnitude",
                                                            "refit": False})  # fmt: skip
    recipe = Recipe(label="cut", passes=(plain, PassSpec(name="stored")))
    found = climbed(job.model_copy(update={"calibration_path": None, "recipes": (recipe,)}))
    assert not found.recovered
    assert any("made-up ones teach nothing" in one.reason for one in found.rejected)


def test_where_nothing_can_gain_it_says_so(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch, perfect)
    stored = Recipe(label="stored", passes=(PassSpec(name="stored"),))
    found = climbed(job.model_copy(update={"recipes": (stored,)}))
    assert not found.recovered
    assert any(one.reason.startswith("nothing to train: ") for one in found.rejected)


def test_a_second_run_trains_nothing_anew(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains(monkeypatch, perfect)
    first = climbed(job)
    trains(monkeypatch, breaks)
    assert climbed(job).recovered == first.recovered
