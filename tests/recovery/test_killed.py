"""A job that is killed while it trains goes on where it was, and ends as if nobody had."""

import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compression.findings import Recovered
from compression.job import Budget, CompressJob, PassSpec, Recipe
from compression.stream import Done, Progress
from compression.words import Words
from tests.compression import parent
from tests.compression.pretended import pretend
from tests.recovery.test_gate import LOGITS, STORED, cut
from tests.simulators import models


class Killer:
    """Kills a worker behind the second look at what it trains, some times; hears the steps."""

    def __init__(self, kills: int) -> None:
        self.left = kills
        self.heard: list[int] = []
        """Of this run."""

    def __call__(self, word: Words, worker: "subprocess.Popen[bytes]") -> None:
        found = re.search(r"step (\d+),", word.message) if isinstance(word, Progress) else None
        if found:
            self.heard.append(int(found[1]))
            if len(self.heard) == 2 and self.left:
                self.left -= 1
                worker.send_signal(signal.SIGKILL)
                worker.wait()


def job(tmp_path: Path, name: str, *, steps: int) -> CompressJob:
    """Train a cut that lost much, by steps: on a busy machine seconds are not all alike."""
    path, inputs, out = tmp_path / "model.onnx", tmp_path / "inputs.npz", tmp_path / name
    if not path.exists():
        models.cnn(path, width=16)
        np.savez(inputs, **models.sample_inputs(path, 600, seed=5))
    out.mkdir()
    spec = PassSpec(
        name="recovery", parameters={"seconds": 600.0, "steps": steps, "learning_rate": 3e-3}
    )
    recipe = Recipe(label="trained", passes=(cut(0.5), spec, STORED))
    return CompressJob(
        model_name="small", model_path=str(path), calibration_path=str(inputs),
        outputs=(LOGITS,), budget=Budget(min_agreement=0.1), device_class=parent.HASWELL,
        out_dir=str(out), minutes=10, recipes=(recipe,),
    )  # fmt: skip


def ended(said: list[Words]) -> Recovered:
    assert isinstance(said[-1], Done), said[-1]
    (recovered,) = said[-1].ladder.recovered
    return recovered


def goes_on(tmp_path: Path, *, kills: int, steps: int) -> None:
    killer, work = Killer(kills), job(tmp_path, "killed", steps=steps)
    firsts = []
    for _ in range(kills):
        killer.heard.clear()
        said = parent.follow(work, on_word=killer, trial=pretend)
        assert not isinstance(said[-1], Done)
        firsts.append(killer.heard[0])
    killer.heard.clear()
    found = ended(parent.follow(work, on_word=killer, trial=pretend))
    assert not killer.left
    heard = [*firsts, *killer.heard[:1]]
    assert heard == sorted(set(heard)), "a run began anew"
    assert not list((Path(work.out_dir) / "work").glob("**/checkpoint*")), "it is done"
    whole = ended(parent.follow(job(tmp_path, "whole", steps=steps), trial=pretend))
    print(f"{kills} kills: steps {heard}; {found.reason}\nunharmed: {whole.reason}")
    assert found.reason == whole.reason, "agreement and loss of the same weights"


@pytest.mark.prove
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    goes_on(tmp_path, kills=5, steps=2400)
