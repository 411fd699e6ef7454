"""Joules from CPU time and a coefficient per board, with the method in words and how sure it is.

The model: energy above idle = (seconds that cores were busy) x (joules per busy core-second).
docs/energy.md says where each coefficient comes from and how to measure one's own.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuEnergy:
    """A modelled source of energy figures.

    `relative_uncertainty` is a fraction: 0.3 means that the truth is expected within 30 %.
    """

    joules_per_cpu_second: float
    relative_uncertainty: float
    origin: str

    def joules(self, cpu_seconds: float) -> float:
        """Joules above idle for `cpu_seconds` of busy cores."""
        return cpu_seconds * self.joules_per_cpu_second

    @property
    def method(self) -> str:
        """How the figures are made, in one line that travels with them."""
        return (
            f"modelled: CPU seconds x {self.joules_per_cpu_second:g} J "
            f"({self.origin}), +-{self.relative_uncertainty:.0%}"
        )


@dataclass(frozen=True)
class Coefficient:
    """One row of the board table: which boards (a pattern on their name), and their figure."""

    board: re.Pattern[str]
    energy: CpuEnergy


def _row(pattern: str, joules: float, uncertainty: float, origin: str) -> Coefficient:
    return Coefficient(re.compile(pattern), CpuEnergy(joules, uncertainty, origin))


# (power with all cores busy - power when idle) / cores, at the board's supply.
BOARDS: tuple[Coefficient, ...] = (
    _row(
        r"Raspberry Pi (5|500|Compute Module 5)", 1.6, 0.35,
        "Raspberry Pi 5: published readings of 1.8-2.7 W idle, 7.9-9.9 W busy, 4 cores",
    ),
    _row(
        r"Raspberry Pi (4|400|Compute Module 4)", 0.93, 0.25,
        "Raspberry Pi 4: published readings of 2.7 W idle, 6.4 W with 4 cores busy",
    ),
    _row(r"Raspberry Pi (3|Compute Module 3)", 0.8, 0.4, "Raspberry Pi 3: assumed"),
    _row(r"Raspberry Pi Zero 2", 0.4, 0.5, "Raspberry Pi Zero 2: assumed"),
    _row(r"(?i)jetson.*orin|orin.*developer kit", 1.2, 0.5, "Jetson Orin, CPU cores only: assumed"),
    _row(r"(?i)jetson", 1.2, 0.6, "Jetson, CPU cores only: assumed"),
)  # fmt: skip

BY_MACHINE: dict[str, CpuEnergy] = {
    "x86_64": CpuEnergy(
        3.0, 0.6, "x86_64: 2.8-3.6 W a busy virtual core, Cloud Carbon Footprint from SPECpower"
    ),
    "aarch64": CpuEnergy(1.2, 0.6, "aarch64: assumed, between the boards that are known"),
}
UNKNOWN = CpuEnergy(2.0, 0.8, "unknown board: assumed")


def for_board(board: str, *, machine: str, override: float | None = None) -> CpuEnergy:
    """The source for a board by its name, its machine, or an operator's own coefficient.

    `override` is `joules_per_cpu_second` of the settings; nobody knows how sure it is, so it
    is taken at 10 %, about what a USB power meter and a few minutes of load give.
    """
    if override is not None:
        return CpuEnergy(override, 0.1, "set by the operator")
    for row in BOARDS:
        if row.board.search(board):
            return row.energy
    return BY_MACHINE.get(machine, UNKNOWN)
