"""A slow model on a slow board: fewer inputs, and a job that ends with what it has."""

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import graph
from compression.calibration import pacing
from compression.calibration.material import Material
from compression.choosing import refining
from compression.choosing.exploring import Exploring
from compression.findings import Ladder, Measurement
from compression.job import CompressJob, PassSpec, TrialJob
from tests.compression import parent
from tests.compression.pretended import pretend
from tests.compression.small_jobs import FEW, done
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    path = models.cnn(tmp_path / "model.onnx", width=8)
    np.savez(tmp_path / "inputs.npz", **models.sample_inputs(path, 60))
    (tmp_path / "out").mkdir()
    return CompressJob(
        model_name="m", model_path=str(path), calibration_path=str(tmp_path / "inputs.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path / "out"), recipes=FEW[:1],
    )  # fmt: skip


def slowly(job: TrialJob) -> Measurement:
    """As if one run of the original took ten seconds."""
    return pretend(job).model_copy(update={"original_latency_p50_ms": 10_000.0})


def paced(job: CompressJob, trial) -> tuple[Ladder, set[float]]:
    asked: set[float] = set()

    def answer(one: TrialJob) -> Measurement:
        asked.add(one.seconds)
        return trial(one)

    return done(parent.follow(job, trial=answer)).ladder, asked


@given(st.floats(0, 1e4), st.floats(0.1, 1e6))
def test_a_slower_model_never_gets_more_inputs(once_s: float, within_s: float) -> None:
    found = pacing.counts(once_s=once_s, within_s=within_s)
    slower = pacing.counts(once_s=2 * once_s, within_s=within_s)
    assert slower <= found
    assert slower >= (pacing.LEAST_CALIBRATING, pacing.LEAST_LOOKING)


def test_a_model_of_a_tenth_of_a_second_gets_all_in_ten_minutes() -> None:
    found = pacing.counts(once_s=0.1, within_s=600)
    assert found.calibrating >= 128
    assert found.looking >= 60


@given(st.lists(st.integers(), unique=True, min_size=1).map(tuple), st.integers(1, 200))
def test_what_is_picked_is_spread(indices: tuple[int, ...], most: int) -> None:
    found = pacing.spread(indices, most)
    assert len(found) == min(most, len(indices))
    assert found == tuple(one for one in indices if one in found)
    assert pacing.spread(indices, len(indices)) == indices


def test_a_slow_model_is_calibrated_on_few_inputs_and_the_ladder_says_so(job: CompressJob) -> None:
    quick, _ = paced(job, pretend)
    elsewhere = Path(job.out_dir).with_name("elsewhere")  # here the original is measured
    elsewhere.mkdir()
    slow, asked = paced(job.model_copy(update={"minutes": 8.0, "out_dir": str(elsewhere)}), slowly)
    assert quick.division is not None
    assert slow.division is not None
    assert quick.division.calibrating == 21
    assert slow.division.calibrating == pacing.LEAST_CALIBRATING
    assert slow.division.choosing == quick.division.choosing
    assert max(asked) == 60.0


def test_a_short_job_has_short_trials(job: CompressJob) -> None:
    short = job.model_copy(update={"minutes": 1.0})
    _, asked = paced(short, slowly)
    assert max(asked) == pytest.approx(7.5)


def test_late_in_a_job_only_the_first_candidates_are_looked_at(job: CompressJob) -> None:
    job = job.model_copy(update={"recipes": ()})
    work = Path(job.out_dir)
    with contextlib.closing(Material.open(job, work)) as material:
        model = graph.regular(Path(job.model_path), sample=material.inputs.sample(0), folder=work)
        exploring = Exploring(
            job, material, model, folder=work, say=lambda *_: None, ends=time.monotonic() - 1
        )
        seen = [look.recipe.label for look in exploring.run()]
    assert seen == ["simplified", "int8 weights"]
    assert "int8 per-channel" in {recipe.label for recipe in exploring.unseen}


def test_a_correction_of_many_layers_takes_many_runs() -> None:
    correction = PassSpec(name="correction")
    assert refining.runs(correction, layers=100) > 10 * refining.runs(correction, layers=5)
    assert refining.runs(PassSpec(name="stored"), layers=100) == 0


def test_what_nobody_looked_at_is_on_the_ladder_with_the_reason(job: CompressJob) -> None:
    late = job.model_copy(update={"recipes": (), "minutes": 1e-3})
    found = done(parent.follow(late, trial=pretend)).ladder
    left = {one.recipe.label: one for one in found.rejected if not one.tried}
    assert "int8 per-channel" in left
    assert "minutes were over" in left["int8 per-channel"].reason
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
