"""What the search returns at each budget, beside int8 alone and beside even cuts with int8.

Run by `./dev prove benchmarks -k test_budgets`. `TRIMTAB_BUDGETS` names models, if not all are
wanted; `TRIMTAB_BUDGETS_OUT` is a folder for rows as JSON and for the jobs' own folders, which a
second run goes on with; `TRIMTAB_BUDGETS_MINUTES` is for each job (6). All three ways are measured
by the same ruler, on an evaluation set that neither calibrated nor chose. `time` is against the
original's on one thread, with twice its standard error; a figure of a rival is its agreement, time
and size where it keeps the bounds of time and size, whether or not it agrees enough to serve.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.device import profile
from compression import bought, judging
from compression.errors import BadModel
from compression.findings import Rung
from compression.job import Budget
from tests.benchmarks import budget_jobs, budget_rows

MODELS = ("mnist", "svhn", "mobile", "text-angle", "sentences", "detector", "recogniser")
FURTHER = {"mobile": (Budget(size_ratio=0.35, threads=1),)}
"""What int8 alone reaches of the tight model, whose constants are few beside its graph."""
MINUTES = float(os.environ.get("TRIMTAB_BUDGETS_MINUTES", "6"))


def rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    one, cores = budget_jobs.case(name), profile.device_class().cores
    free = budget_jobs.searched(one, Budget(threads=1), folder / "search", minutes=2 * MINUTES)
    assert free.ladder is not None, free.refused
    plain: list[Rung] = []
    _add(plain, free.ladder.rungs)
    form = budget_jobs.form(free.ladder, least=judging.DEFAULT_MIN_AGREEMENT)
    try:
        even = budget_jobs.evenly(one, form, folder / "even", minutes=2 * MINUTES)
    except BadModel as error:
        print(f"{name}: {error}")
        even = []
    for budget in (*budget_rows.BUDGETS, *FURTHER.get(name, ())):
        run = budget_jobs.searched(one, budget, folder / "search", minutes=MINUTES)
        _add(plain, run.ladder.rungs if run.ladder else ())
        yield budget_rows.row(name, budget, run, plain=plain, even=even, cores=cores)


def _add(plain: list[Rung], rungs: tuple[Rung, ...]) -> None:
    known = {rung.sha256 for rung in plain}
    plain += [
        rung
        for rung in rungs
        if rung.sha256 not in known and not bought.is_cut(rung) and rung.recipe.passes
    ]


@pytest.mark.prove
@pytest.mark.timeout(6 * 3600)
def test_the_search_is_at_least_as_good_as_simpler_ways(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wanted = os.environ.get("TRIMTAB_BUDGETS", "").split(",")
    kept = Path(os.environ.get("TRIMTAB_BUDGETS_OUT", tmp_path))
    found: list[dict[str, Any]] = []
    with capsys.disabled():
        print(f"\n{budget_rows.HEAD}")
        for name in MODELS:
            if wanted != [""] and name not in wanted:
                continue
            for row in rows(name, kept / name):
                print(budget_rows.text(row), flush=True)
                found.append(row)
                (kept / f"budgets-{'-'.join(wanted) or 'all'}.json").write_text(
                    json.dumps(found, indent=1)
                )
    assert not [budget_rows.text(row) for row in found if row["lost"]]
