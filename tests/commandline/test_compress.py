"""`trimtab compress` as a person and as a script call it: real processes, killed and run again."""

import fcntl
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.commandline import job_folder
from compression import ladder
from compression.findings import Ladder
from compression.job import CompressJob, DeviceClass, PassSpec, Recipe
from tests.simulators import models

STATIC = Recipe(label="static", passes=(PassSpec(name="quantization"),))
SAID = '{"name": "logits", "kind": "score"}'
UNKNOWN = Recipe(label="unknown", passes=(PassSpec(name="magic"),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, inputs for it, and two recipes, so that a run takes seconds."""
    made = tmp_path_factory.mktemp("compress")
    path = models.cnn(made / "net.onnx", width=32)
    np.savez(made / "inputs.npz", **models.sample_inputs(path, 40))
    recipes = [one.model_dump(mode="json") for one in (STATIC, UNKNOWN)]
    (made / "recipes.json").write_text(json.dumps(recipes))
    return made


def command(folder: Path, *more: str, model: str = "net.onnx", out: str = "out") -> list[str]:
    return [
        sys.executable, "-P", "-m", "agent", "compress", str(folder / model),
        "--calibration", str(folder / "inputs.npz"), "--recipe", str(folder / "recipes.json"),
        "--out", str(folder / out), "--size-ratio", "0.5", "--min-agreement", "0.5",
        "--minutes", "2", "--outputs", SAID, *more,
    ]  # fmt: skip


def run(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def first(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The first run, from nothing to the end."""
    return run(command(folder, "--json"))


def variants(found: Ladder) -> dict[str, str]:
    return {rung.recipe.label: rung.sha256 for rung in found.rungs}


def test_prints_only_the_ladder_as_json_and_plain_lines_of_progress(
    folder: Path, first: "subprocess.CompletedProcess[str]"
) -> None:
    assert first.returncode == 0, first.stderr
    found = Ladder.model_validate_json(first.stdout)
    assert found == ladder.load(folder / "out")
    assert set(variants(found)) == {"static", "original"}
    (lost,) = [one.reason for one in found.rejected if one.recipe == UNKNOWN]
    assert lost.startswith("cannot run pass 'magic'")
    lines = first.stderr.splitlines()
    assert any(line.endswith("trying: static") for line in lines)
    assert any(line.startswith("measured static:") for line in lines)
    assert "\x1b" not in first.stderr


def test_leaves_the_ladder_its_files_and_a_page(
    folder: Path, first: "subprocess.CompletedProcess[str]"
) -> None:
    found = ladder.load(folder / "out")
    files = {rung.file for rung in found.rungs} | {str(rung.probe) for rung in found.rungs}
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == files | {"ladder.json", "report.html", "work"}
    page = (folder / "out" / "report.html").read_text()
    assert found.model.sha256 in page
    assert (
        found.model.sha256
        == job_folder.Order.model_validate_json(
            (folder / "out" / "work" / "job.json").read_bytes()
        ).sha256["model"]
    )


def test_a_second_run_measures_nothing_again_and_other_arguments_are_said(
    folder: Path, first: "subprocess.CompletedProcess[str]"
) -> None:
    before = ladder.load(folder / "out")
    again = run(command(folder, "--size-ratio", "0.1"))
    assert again.returncode == 3, again.stderr
    said = " ".join(again.stderr.split())
    assert "out was begun with other arguments (size_ratio 0.1 (was 0.5))" in said
    assert "cannot fit net.onnx into the budget: nearest is 'static': size ratio" in said
    after = ladder.load(folder / "out")
    assert [one.measurement for one in after.rungs] == [one.measurement for one in before.rungs]
    assert not any(one.meets_budget for one in after.rungs)
    table = again.stdout.splitlines()[0]
    assert "agreement" in table
    assert str(folder / "out" / "report.html") in again.stdout


def test_the_work_on_another_model_is_never_mixed_up(
    folder: Path, first: "subprocess.CompletedProcess[str]"
) -> None:
    models.cnn(folder / "other.onnx", seed=5, width=32)
    before = sorted(path.name for path in (folder / "out").iterdir())
    refused = run(command(folder, model="other.onnx"))
    assert refused.returncode == 2
    assert "it holds the work on another model" in refused.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == before


def told(words: Sequence[str], *, lines: int) -> list[str]:
    """Run a command and kill it, as power does, behind this many lines of its progress."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        said = [process.stderr.readline().decode() for _ in range(lines)]
        process.kill()
    return said


def killed_and_run_again(folder: Path, out: str, lines: int) -> None:
    said = told(command(folder, out=out), lines=lines)
    again = run(command(folder, out=out))
    assert again.returncode == 0, again.stderr
    found, wanted = ladder.load(folder / out), ladder.load(folder / "out")
    assert variants(found) == variants(wanted)
    assert [one.recipe for one in found.rejected] == [one.recipe for one in wanted.rejected]
    files = {rung.file for rung in found.rungs} | {str(rung.probe) for rung in found.rungs}
    names = {path.name for path in (folder / out).iterdir()}
    assert names == files | {"ladder.json", "report.html", "work"}
    measured = [line.strip() for line in said if line.startswith("measured")]
    assert set(measured) <= set(again.stderr.splitlines())  # to the last digit: not again
    if measured:
        assert f"{out}: going on from what was measured there before" in again.stderr


def test_killed_and_run_again_it_ends_with_the_same_ladder(
    folder: Path, first: "subprocess.CompletedProcess[str]"
) -> None:
    lines = first.stderr.splitlines()
    behind = next(at for at, line in enumerate(lines, 1) if line.startswith("measured original"))
    killed_and_run_again(folder, "killed", behind)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(20))
def test_killed_anywhere_it_ends_with_the_same_ladder(
    folder: Path, first: "subprocess.CompletedProcess[str]", seed: int
) -> None:
    count = len(first.stderr.splitlines())
    killed_and_run_again(folder, f"seed-{seed}", random.Random(seed).randrange(count))


def test_a_run_that_fails_leaves_nothing_behind(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"not a model")
    failed = run(command(folder, model="bad.onnx", out="none"))
    assert failed.returncode == 2
    assert "cannot use model bad.onnx: not ONNX" in failed.stderr
    assert not (folder / "none").exists()
    (folder / "mine").mkdir()
    (folder / "mine" / "letter.txt").write_text("dear")
    assert run(command(folder, model="bad.onnx", out="mine")).returncode == 2
    assert [path.name for path in (folder / "mine").iterdir()] == ["letter.txt"]


def test_two_at_once_in_one_folder_is_refused(folder: Path) -> None:
    work = folder / "taken" / "work"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run(command(folder, out="taken"))
    assert refused.returncode == 4
    assert "another compression works in it" in refused.stderr


def test_without_inputs_it_works_and_everything_says_unverified(folder: Path) -> None:
    words = command(folder, out="free")
    at = words.index("--calibration")
    free = run([*words[:at], *words[at + 2 :]])
    assert free.returncode == 0, free.stderr
    found = ladder.load(folder / "free")
    by_label = {rung.recipe.label: rung for rung in found.rungs}
    assert not by_label["static"].verified
    assert by_label["original"].verified
    assert by_label["static"].measurement.agreement.split == "synthetic"
    assert "meets, unverified" in free.stdout
    assert "made-up ones stand in" in free.stdout
    assert "; unverified" in free.stderr
    assert "unverified" in (folder / "free" / "report.html").read_text()


def test_outputs_that_the_model_does_not_have_are_named(folder: Path) -> None:
    failed = run(command(folder, "--outputs", "classes=logits", out="odd"))
    assert failed.returncode == 2
    assert "cannot judge output 'classes': the model gives logits" in failed.stderr
    assert not (folder / "odd").exists()


def test_what_a_person_says_of_outputs_is_no_guess(
    first: "subprocess.CompletedProcess[str]",
) -> None:
    rungs = Ladder.model_validate_json(first.stdout).rungs
    said = {(r.measurement.agreement.kind, r.measurement.agreement.guessed) for r in rungs}
    assert said == {("score", False)}


def job(**changes: object) -> CompressJob:
    device = DeviceClass(machine="x86_64", isa=(), cores=2, onnxruntime="1")
    fields = {"model_name": "m", "model_path": "/m", "device_class": device, "out_dir": "/o"}
    return CompressJob.model_validate(fields | changes)


def order(calibration: str = "0", **changes: object) -> job_folder.Order:
    hashes = {"model": "a" * 64, "calibration": calibration * 64}
    return job_folder.Order(job=job(**changes), sha256=hashes)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (order(), order(), ()),
        (order(model_path="/a"), order(model_path="/b"), ()),
        (order(), order("1"), ("other calibration inputs",)),
        (order(minutes=3), order(minutes=4.5), ("minutes 4.5 (was 3)",)),
        (order(), order(budget={"threads": 2}), ("threads 2 (was open)",)),
        (
            order(budget={"size_mib": 1}),
            order(recipes=[{"label": "a", "passes": [{"name": "b"}]}]),
            ("other recipes", "size_mib open (was 1)"),
        ),
    ],
)
def test_orders_are_told_apart_by_what_they_ask(
    before: job_folder.Order, now: job_folder.Order, said: tuple[str, ...]
) -> None:
    assert job_folder.differences(before, now) == said


@pytest.mark.parametrize(
    ("bound", "missed"),
    [
        (("--peak-memory-mib", "1"), "peak memory"),
        pytest.param(("--memory-ratio", "0.01"), "memory ratio", marks=pytest.mark.prove),
        (("--cpu-share", "0.00001", "--request-rate-hz", "1000"), "CPU share"),
        pytest.param(("--latency-p95-ms", "0.00001"), "latency p95", marks=pytest.mark.prove),
    ],
    ids=["memory", "memory ratio", "CPU share", "latency"],
)
def test_a_bound_that_nothing_meets_is_refused_with_the_nearest_and_its_figures(
    folder: Path, bound: tuple[str, ...], missed: str
) -> None:
    found = run(command(folder, *bound, out="bounds"))
    assert found.returncode == 3, found.stderr
    last = found.stderr.splitlines()[-1]
    assert "nearest is" in last
    assert f"{missed} " in last
    assert " over budget " in last
