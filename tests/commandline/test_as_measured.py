"""A rung is run as its ladder says, wherever it is measured or served by hand."""

from pathlib import Path

import pytest

from agent.commandline import as_measured
from agent.errors import BadInput
from compression import ladder
from compression.job import Budget, Runtime
from tests.compression import test_ladder

PREPARED = Runtime(threads=2, optimization="disabled", pattern=False)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    rung = test_ladder.rung("rung-1").model_copy(update={"runtime": PREPARED})
    ladder.save(test_ladder.built(Budget(), rung), tmp_path)
    return tmp_path


def test_a_rung_runs_as_its_ladder_says(shelf: Path) -> None:
    assert as_measured.runtime(shelf / "rung-1.onnx", threads=None) == PREPARED


def test_threads_that_a_person_names_are_obeyed(shelf: Path) -> None:
    found = as_measured.runtime(shelf / "rung-1.onnx", threads=1)
    assert found == PREPARED.model_copy(update={"threads": 1})


def test_any_other_file_runs_plainly(shelf: Path, tmp_path: Path) -> None:
    assert as_measured.runtime(shelf / "other.onnx", threads=None) == Runtime()
    (tmp_path / "ladder.json").write_text("damaged")
    assert as_measured.runtime(shelf / "rung-1.onnx", threads=3) == Runtime(threads=3)


@pytest.mark.parametrize("threads", [0, 257, -1])
def test_threads_out_of_range_are_refused(shelf: Path, threads: int) -> None:
    with pytest.raises(BadInput, match=f"cannot run with {threads} threads"):
        as_measured.runtime(shelf / "rung-1.onnx", threads=threads)
