"""What the server adds to a bare `session.run`, beside servers that do nothing and the least.

`./dev run python -m tests.benchmarks.serving [--rounds N] [--peer] [--out FILE]`. All ways of
asking take turns, burst by burst, so that what else the machine does falls on all of them; client
and server are pinned to one core, then to one each. The rounds are spread over bouts, in each of
which everything is started and loaded anew: where a model comes to lie in memory is worth several
per cent of a CNN's time, for the bare call as for ours. A figure in brackets is the best round's:
what a quiet machine shows. CPU is the server's own, by the kernel's account: on a busy machine it
says more than the time that a call took.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agent.host.offer import Offer
from tests.benchmarks import beside, lean, serving_peer, ways
from tests.benchmarks.ways import Way
from tests.simulators import serving

BURST_S = 0.03
PRESS_S = 0.4
CORES = {"one core": (0, 0), "two cores": (0, 1)}
"""Where the servers are pinned, and where the client."""


@dataclass(frozen=True)
class Spread:
    """One kind of call over the rounds: the median of their medians, and the best of them."""

    median_us: float
    best_us: float

    def __str__(self) -> str:
        return f"{self.median_us:.1f} ({self.best_us:.1f})"


@dataclass(frozen=True)
class Figure:
    """One way of asking on some cores."""

    way: str
    cores: str
    bare: Spread
    floor: Spread
    """The null server's, with as many bytes."""
    ours: Spread
    others: dict[str, Spread]
    over_us: float
    """The median of the rounds' differences to the bare call."""
    ratio: float
    """The median over the bouts of what ours takes, as a ratio to the bare call."""
    cpu_us: float
    """Of our server for each request, its run of the model included."""
    noise: float
    """Of the bare call: how far the middle half of the rounds' medians spreads."""
    per_s: float = 0.0
    """Requests per second over eight connections: median, best, and the null server's best."""
    best_per_s: float = 0.0
    floor_per_s: float = 0.0

    @property
    def over_best_us(self) -> float:
        """Between the best rounds."""
        return self.ours.best_us - self.bare.best_us


@dataclass
class Taken:
    """What the rounds brought for one way: rows of microseconds, and of requests per second."""

    times: list[dict[str, float]]
    cpu_us: list[float]
    pressed: list[tuple[float, float]]
    ratios: list[float]
    """To the bare call, by bouts."""


def measure(
    found: Sequence[Way],
    pids: Sequence[int],
    taken: dict[tuple[str, str], Taken],
    *,
    rounds: int,
    cores: str,
) -> None:
    """Let all ways take turns; `taken` is by way and cores."""
    for way in found:
        taken.setdefault((way.name, cores), Taken([], [], [], []))
    for turn in range(rounds):
        for way in found:
            row = taken[way.name, cores]
            for line in (way.ours[0], way.floors[0], *way.others.values()):
                line.revive()
            calls = {"bare": way.bare, "floor": way.floors[0].ask, "ours": way.ours[0].ask}
            calls |= {name: line.ask for name, line in way.others.items()}
            times = {}
            for name, call in calls.items():
                before_ns = sum(map(beside.cpu_ns, pids))
                burst = lean.timed_us(call, seconds=BURST_S)
                times[name] = float(np.median(burst))
                if name == "ours":
                    row.cpu_us.append(
                        (sum(map(beside.cpu_ns, pids)) - before_ns) / 1e3 / len(burst)
                    )
            row.times.append(times)
            if way.name.startswith("mlp") and turn % 4 == 0:
                ours, floor = (
                    lean.pressed(lines, seconds=PRESS_S) for lines in (way.ours, way.floors)
                )
                row.pressed.append((ours, floor))
    for way in found:
        row = taken[way.name, cores]
        bout = row.times[-rounds:]
        ours, bare = (statistics.median(each[name] for each in bout) for name in ("ours", "bare"))
        row.ratios.append(ours / bare)


def _figure(name: str, cores: str, taken: Taken) -> Figure:
    columns = {key: [row[key] for row in taken.times] for key in taken.times[0]}
    spreads = {key: Spread(statistics.median(each), min(each)) for key, each in columns.items()}
    low, middle, high = statistics.quantiles(columns["bare"], n=4)
    known = {"bare", "floor", "ours"}
    speeds = {}
    if taken.pressed:
        ours, floor = zip(*taken.pressed, strict=True)
        speeds = {
            "per_s": statistics.median(ours), "best_per_s": max(ours), "floor_per_s": max(floor),
        }  # fmt: skip
    return Figure(
        way=name,
        cores=cores,
        bare=spreads["bare"],
        floor=spreads["floor"],
        ours=spreads["ours"],
        others={key: each for key, each in spreads.items() if key not in known},
        over_us=statistics.median(row["ours"] - row["bare"] for row in taken.times),
        ratio=statistics.median(taken.ratios),
        cpu_us=min(taken.cpu_us),
        noise=(high - low) / middle,
        **speeds,
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures as text."""
    lines = [
        f"{'way':17} {'cores':9} {'bare us':>16} {'null us':>16} {'ours us':>17} {'over bare':>17}"
        f" {'x bare':>6} {'CPU us':>7} {'8 lines, /s':>15} {'null':>6} {'noise':>5}"
    ]
    for each in figures:
        over = f"{each.over_us:.1f} ({each.over_best_us:.1f})"
        speed = f"{each.per_s:.0f} ({each.best_per_s:.0f})" if each.per_s else ""
        lines.append(
            f"{each.way:17} {each.cores:9} {each.bare!s:>16} {each.floor!s:>16} {each.ours!s:>17}"
            f" {over:>17} {each.ratio:6.2f} {each.cpu_us:7.1f} {speed:>15}"
            f" {each.floor_per_s:6.0f} {each.noise:5.0%}"
        )
        lines += [
            f"{'':8}{name:>9} {'':9} {'':33}{other!s:>18}" for name, other in each.others.items()
        ]
    return "\n".join(lines)


def run(*, rounds: int, bouts: int = 1, peer: bool = False) -> list[Figure]:
    """Measure all ways on one core and on two, in several bouts of several rounds."""
    taken: dict[tuple[str, str], Taken] = {}
    for _ in range(bouts):
        _bout(taken, rounds=max(2, rounds // bouts), peer=peer)
    by_cores = sorted(taken.items(), key=lambda each: list(CORES).index(each[0][1]))
    return [_figure(name, cores, row) for (name, cores), row in by_cores]


def _bout(taken: dict[tuple[str, str], Taken], *, rounds: int, peer: bool) -> None:
    allowed = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        unix = folder / "oip.sock"
        server = stack.enter_context(
            serving.running(unix_path=unix, offer=Offer(shared_memory=True))
        )
        apart = folder / "apart.sock"
        alone = stack.enter_context(serving.running(unix_path=apart))
        cases = ways.cases(folder)
        models = {case.name: case.path for case in cases}
        others = [stack.enter_context(beside.least(folder, models))]
        if peer:
            others.append(stack.enter_context(serving_peer.running(cases)))
        found, floors = stack.enter_context(
            ways.opened(server, unix, folder, others, alone=(alone, apart))
        )
        statuses = [each.supervisor.status for each in (server, alone)]
        ours = [status.pid for status in statuses if status is not None]
        stack.callback(os.sched_setaffinity, 0, allowed)
        for cores, (theirs, mine) in CORES.items():
            for pid in (*ours, *floors.pids, *(other.pid for other in others)):
                beside.pin(pid, theirs)
            beside.pin(os.getpid(), mine)
            measure(found, ours, taken, rounds=rounds, cores=cores)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=42)
    parser.add_argument("--bouts", type=int, default=7, help="what the rounds are spread over")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help="KServe's SDK beside ours")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    arguments = parser.parse_args()
    starts = [beside.start() for _ in range(arguments.starts)]
    figures = run(rounds=arguments.rounds, bouts=arguments.bouts, peer=arguments.peer)
    print(table(figures))
    print(beside.told(starts))
    if arguments.out:
        document = {"figures": list(map(asdict, figures)), "starts": list(map(asdict, starts))}
        arguments.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
