"""The worker end to end over its pipes, with a parent that runs the real trial."""

from pathlib import Path

import numpy as np
import pytest

from compression import ladder, runtime, samples
from compression.calibration.material import sha256
from compression.job import CompressJob, Recipe
from compression.stream import Progress, TrialRequest, Tried
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend
from tests.compression.small_jobs import FEW, STATIC, changed, done


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    return small_jobs.of_cnn(tmp_path)


def test_makes_a_ladder_that_can_be_served(job: CompressJob) -> None:
    said = parent.follow(changed(job, recipes=FEW[:2]))
    found = done(said).ladder
    out = Path(job.out_dir)
    assert ladder.load(out) == found
    for rung in found.rungs:
        assert sha256(out / rung.file) == rung.sha256
        assert rung.file == f"rung-{rung.sha256[:12]}.onnx"
        session = runtime.session(out / rung.file)
        with samples.open_samples(out / str(rung.probe), runtime.inputs(session)) as probe:
            got = runtime.run(session, probe.sample(0))["logits"]
            assert np.allclose(got, probe.expected(0)["logits"], atol=1e-4)
    (original,) = [rung for rung in found.rungs if rung.recipe.label == "original"]
    assert original.measurement.agreement.value == 1.0
    assert original.misses == ("size ratio 1.00 over budget 0.50",)
    assert all(rung.measurement.agreement.guessed for rung in found.rungs)
    assert {path.name for path in out.iterdir()} == {
        "work", "ladder.json", *(r.file for r in found.rungs), *(str(r.probe) for r in found.rungs),
    }  # fmt: skip


def test_what_nobody_named_is_searched_for(job: CompressJob) -> None:
    found = done(parent.follow(changed(job, recipes=()), trial=pretend)).ladder
    tried = [one.recipe.label for one in (*found.rungs, *found.rejected)]
    assert len(set(tried)) == len(tried)
    assert {"original", "simplified", "int8 weights", "int8 per-channel"} <= set(tried)
    assert found.rungs[0].meets_budget


def test_says_what_it_does_and_asks_for_the_original_first(job: CompressJob) -> None:
    reaches = [STATIC.model_copy(update={"parameters": {"reach": at / 10}}) for at in range(4, 9)]
    more = tuple(Recipe(label=str(one), passes=(one,)) for one in reaches)
    job = changed(job, recipes=FEW + more)  # more than ever get a trial
    said = parent.follow(job, trial=pretend)
    requests = [word.job for word in said if isinstance(word, TrialRequest)]
    assert requests[0].original_path == job.model_path
    fractions = [word.fraction for word in said if isinstance(word, Progress)]
    assert fractions == sorted(fractions)
    tried = [word for word in said if isinstance(word, Tried)]
    found = done(said).ladder
    told = [word.rung or word.rejected for word in tried if not word.untried]
    left = [one for word in tried for one in word.untried]
    assert len(told) + len(left) == len(found.rungs) + len(found.rejected)
    assert left == [one for one in found.rejected if not one.tried]
    assert sum(bool(word.untried) for word in tried) == 1
    assert tried[0].rung is not None
    assert tried[0].rung.recipe.label == "original"
    best = found.rungs[0]
    assert best.meets_budget
    assert best.measurement.size_mib < 0.5 * best.measurement.original_size_mib
