"""Joules follow the board table, and every figure says how it was made and how sure it is."""

import pytest

from agent.device import energy
from tests.simulators import boards


@pytest.mark.parametrize(
    ("board", "machine", "joules"),
    [
        (boards.PI4_NAME, "aarch64", 0.93),
        ("Raspberry Pi Compute Module 4 Rev 1.0", "aarch64", 0.93),
        (boards.PI5_NAME, "aarch64", 1.6),
        ("Raspberry Pi 500 Rev 1.0", "aarch64", 1.6),
        ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", 0.4),
        (boards.ORIN_NAME, "aarch64", 1.2),
        ("Advantech UNO-348", "x86_64", 3.0),
        ("Somebody's board", "riscv64", 2.0),
    ],
)
def test_each_board_has_its_coefficient(board: str, machine: str, joules: float) -> None:
    assert energy.for_board(board, machine=machine).joules(10.0) == pytest.approx(10 * joules)


def test_the_operators_coefficient_wins_and_says_so() -> None:
    source = energy.for_board(boards.PI4_NAME, machine="aarch64", override=1.25)
    assert source.joules(4.0) == 5.0
    assert "set by the operator" in source.method


def test_every_method_names_its_coefficient_and_its_uncertainty() -> None:
    rows = [row.energy for row in energy.BOARDS]
    for source in (*rows, *energy.BY_MACHINE.values(), energy.UNKNOWN):
        assert f"{source.joules_per_cpu_second:g} J" in source.method
        assert f"+-{source.relative_uncertainty:.0%}" in source.method
        assert 0 < source.relative_uncertainty < 1


def test_a_board_that_is_only_assumed_is_less_sure_than_a_measured_one() -> None:
    rows = [row.energy for row in energy.BOARDS]
    assumed = [row.relative_uncertainty for row in rows if "assumed" in row.origin]
    measured = [row.relative_uncertainty for row in rows if "assumed" not in row.origin]
    assert min(assumed) > max(measured)
