"""A recipe with a cut in a job: what cannot be cut is rejected, and the report says why."""

import re
from pathlib import Path

import numpy as np
import pytest

from compression import report
from compression.job import CompressJob, PassSpec, Recipe
from tests.compression import parent
from tests.compression.pretended import pretend
from tests.compression.small_jobs import done
from tests.simulators import models

HALF = Recipe(label="half", passes=(PassSpec(name="structured_pruning", parameters={"keep": 0.5}),))


@pytest.mark.parametrize(
    ("hidden", "inputs", "reason"),
    [
        (512, 40, r"cannot choose among 512 units of .* by 14 calibration inputs: at least"),
        (16, 15, r"cannot choose channels by 5 calibration inputs of 5 sources: at least 8"),
    ],
)
def test_too_few_inputs_for_a_cut_are_said_in_the_report(
    tmp_path: Path, hidden: int, inputs: int, reason: str
) -> None:
    path = models.mlp(tmp_path / "model.onnx", hidden=hidden)
    np.savez(tmp_path / "inputs.npz", **models.sample_inputs(path, inputs))
    (tmp_path / "out").mkdir()
    job = CompressJob(
        model_name="m", model_path=str(path), calibration_path=str(tmp_path / "inputs.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path / "out"), minutes=2, recipes=(HALF,),
    )  # fmt: skip
    found = done(parent.follow(job, trial=pretend)).ladder
    (rejected,) = [one for one in found.rejected if one.recipe.label == "half"]
    assert re.search(reason, rejected.reason)
    assert rejected.reason in report.table(found)
