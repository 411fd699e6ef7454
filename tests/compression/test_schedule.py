"""What is trained, where training stands in a recipe, and how much memory there is for it."""

from pathlib import Path

import pytest

from compression.choosing import room, schedule
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.job import Budget, PassSpec, Recipe
from tests.compression.test_choosing import look

CUT = PassSpec(name="structured_pruning", parameters={"keep": 0.5})
INTEGERS = PassSpec(name="quantization")
CORRECTION = PassSpec(name="correction")
STORED = PassSpec(name="stored")
BUDGET = Budget(min_agreement=0.98)


def passes(*specs: PassSpec) -> Recipe:
    return Recipe(label="base", passes=specs)


def made_by(recipe: Recipe, value: float, *, cpu: float = 0.5, mib: float = 1.0) -> Preview:
    found = look(value, low=value - 0.01, cpu=cpu, mib=mib, label=f"{value} {cpu}", db=40 * value)
    return found.model_copy(update={"recipe": recipe.model_copy(update={"label": found.key})})


def names(recipe: Recipe) -> list[str]:
    return [spec.name for spec in recipe.passes]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (passes(STORED), []),
        (passes(PassSpec(name="dynamic"), STORED), []),
        (passes(CUT, STORED), [["structured_pruning", "recovery", "stored"]]),
        (
            passes(INTEGERS, CORRECTION, STORED),
            [["quantization", "correction", "recovery", "stored"]],
        ),
        (
            passes(CUT, INTEGERS, STORED),
            [
                ["structured_pruning", "recovery", "quantization", "stored"],
                ["structured_pruning", "recovery", "quantization", "recovery", "stored"],
            ],
        ),
    ],
)
def test_cuts_are_trained_before_rounding_and_rounding_behind_it(
    recipe: Recipe, expected: list[list[str]]
) -> None:
    found = []
    for stage in schedule.stages(recipe, seconds=90.0):
        recipe = schedule.trained(recipe, stage)
        found.append(names(recipe))
    assert found == expected


def test_the_stages_of_a_candidate_share_its_time() -> None:
    first, second = schedule.stages(passes(CUT, INTEGERS, STORED), seconds=90.0)
    assert (first.seconds, second.seconds) == (60.0, 30.0)


def test_untrained_is_the_same_recipe_without_its_last_training() -> None:
    recipe = passes(CUT, INTEGERS, STORED)
    assert schedule.untrained(recipe) is None
    first, second = schedule.stages(recipe, seconds=90.0)
    once = schedule.trained(recipe, first)
    twice = schedule.trained(once, second)
    for trained, before in ((twice, once), (once, recipe)):
        found = schedule.untrained(trained)
        assert found is not None
        assert found.passes == before.passes


def test_what_misses_by_least_is_trained_first_then_the_fastest_that_can_gain() -> None:
    cut, integers = passes(CUT, STORED), passes(INTEGERS, STORED)
    looks = [
        made_by(integers, 0.995, cpu=0.7),
        made_by(cut, 0.90, cpu=0.4),
        made_by(cut, 0.80, cpu=0.3),
        made_by(cut, 0.30, cpu=0.1),
        made_by(passes(STORED), 0.999, cpu=1.0),
    ]
    found = schedule.plans(looks, BUDGET, Bounds(), minutes=20)
    assert [one.look.key for one in found] == ["0.9 0.4", "0.8 0.3", "0.995 0.7"]
    seconds = sum(stage.seconds for one in found for stage in one.stages)
    assert seconds == pytest.approx(schedule.TRAINING * 20 * 60)


def test_short_minutes_are_not_spread_thin() -> None:
    looks = [made_by(passes(CUT, STORED), 0.9 - at / 20, cpu=0.5 - at / 20) for at in range(3)]
    (only,) = schedule.plans(looks, BUDGET, Bounds(), minutes=1)
    assert only.look.key == "0.9 0.5"
    assert only.stages[0].seconds == pytest.approx(45.0)


def test_what_is_beaten_or_out_of_bounds_or_perfect_is_not_trained() -> None:
    recipe = passes(INTEGERS, STORED)
    looks = [
        made_by(recipe, 1.0, cpu=0.5),
        made_by(recipe, 0.9, cpu=0.8),  # the one above is closer and faster
        made_by(recipe, 0.95, cpu=0.45),  # too large
    ]
    looks[2] = looks[2].model_copy(update={"size_bytes": 3 * 2**20})
    bounds = Bounds(size_bytes=2 * 2**20)
    assert schedule.plans(looks, BUDGET, bounds, minutes=20) == ()


def board(root: Path, *, available_kib: int, most: str = "max", used: int = 0) -> Path:
    """The files of a device that say how much memory there is."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text("0::/unit.slice/agent\n")
    group = root / "sys/fs/cgroup/unit.slice"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    return root


def test_too_little_memory_is_said_with_the_figures(tmp_path: Path) -> None:
    root = board(tmp_path, available_kib=300 * 1024)
    found = room.lacking(10.0, work_memory_mib=64.0, root=root)
    assert found is not None
    assert found.startswith("cannot recover: it needs about ")
    assert found.endswith("300 MiB are available")


def test_the_tightest_bound_counts(tmp_path: Path) -> None:
    root = board(tmp_path, available_kib=9000 * 1024, most=str(512 * 2**20), used=12 * 2**20)
    assert room.available_mib(root) == 500.0


def test_enough_memory_is_no_matter(tmp_path: Path) -> None:
    root = board(tmp_path, available_kib=9000 * 1024)
    assert room.lacking(10.0, work_memory_mib=64.0, root=root) is None


def test_a_device_that_tells_nothing_hinders_nothing(tmp_path: Path) -> None:
    assert room.available_mib(tmp_path) == float("inf")
