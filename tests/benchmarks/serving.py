"""What the server adds to a bare `session.run`, beside a server that does nothing.

`./dev run python -m tests.benchmarks.serving [--rounds N] [--out FILE]`. All ways of asking take
turns, burst by burst, so that what else the machine does falls on all of them; client and server
are pinned to one core, then to one each. Where a figure is in brackets it is the best round's:
what a quiet machine shows.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.benchmarks import beside, lean
from tests.benchmarks.beside import Nothing
from tests.benchmarks.lean import Address, Line, Question
from tests.simulators import models, serving
from tests.simulators.serving import Running

BURST_S = 0.03
PRESS_S = 0.4
CONNECTIONS = 8
CORES = {"one core": (0, 0), "two cores": (0, 1)}
"""Where the server is pinned, and where the client."""
WAYS = {
    "mlp": ("JSON TCP", "JSON Unix", "binary TCP", "binary Unix"),
    "cnn": ("binary TCP", "binary Unix"),
    "echo": ("binary TCP", "binary Unix"),
}
"""How each model is asked. `echo` passes 4.9 MB through."""


@dataclass(frozen=True)
class Case:
    """A model, its input, and the session that runs it without a server."""

    name: str
    input_name: str
    array: NDArray[np.float32]
    path: Path

    def bare(self) -> Callable[[], Any]:
        """A call of `session.run`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self.path), options)
        inputs = {self.input_name: self.array}
        return lambda: session.run(None, inputs)

    def question(self, form: str) -> Question:
        """Ask for it in JSON or binary."""
        return lean.infer(self.name, self.input_name, self.array, binary=form == "binary")


def cases(folder: Path) -> tuple[Case, ...]:
    """A model of microseconds, a CNN of milliseconds, and 4.9 MB through an Identity."""
    random = np.random.default_rng(0)
    row = random.normal(size=(1, 8)).astype("f4")
    image = random.normal(size=(1, 3, 32, 32)).astype("f4")
    frame = random.normal(size=(1280, 960)).astype("f4")
    return (
        Case("mlp", "x", row, models.mlp(folder / "mlp.onnx")),
        Case("cnn", "image", image, models.cnn(folder / "cnn.onnx", width=192)),
        Case("echo", "x", frame, serving.echo(folder / "echo.onnx", "FP32")),
    )


@dataclass(frozen=True)
class Way:
    """One way of asking for one model: ours, the null server's, and the bare call."""

    name: str
    transport: str
    bare: Callable[[], Any]
    ours: tuple[Line, ...]
    floors: tuple[Line, ...]


@dataclass(frozen=True)
class Figure:
    """One way on some cores: microseconds per call, requests per second of 8 connections."""

    way: str
    cores: str
    bare_us: float
    bare_best_us: float
    floor_us: float
    floor_best_us: float
    ours_us: float
    ours_best_us: float
    over_us: float
    """The median of the rounds' differences to the bare call."""
    ratio: float
    noise: float
    """Of the bare call: how far the middle half of the rounds' medians spreads."""
    per_s: float
    per_s_best: float
    floor_per_s: float


@contextlib.contextmanager
def ways(server: Running, unix: Path, folder: Path) -> Iterator[tuple[list[Way], Nothing]]:
    """Load the models and open the lines."""
    host, port = server.address.split(":")
    ours: dict[str, Address] = {"TCP": (host, int(port)), "Unix": unix}
    with contextlib.ExitStack() as stack:
        floors = stack.enter_context(beside.nothing(folder))
        found = []

        def line(*given: Any, **options: Any) -> Line:
            made = Line(*given, **options)
            stack.callback(made.close)
            return made

        for case in cases(folder):
            server.load(case.name, case.path)
            bare = case.bare()
            for name in WAYS[case.name]:
                form, transport = name.split()
                asked = case.question(form)
                lines = tuple(line(ours[transport], asked) for _ in range(CONNECTIONS))
                size, idle = lines[0].answer_bytes, floors.addresses[transport]
                empty = tuple(line(idle, asked, answer_bytes=size) for _ in lines)
                found.append(Way(f"{case.name} {name}", transport, bare, lines, empty))
        yield found, floors


def answered(line: Line) -> NDArray[np.float32]:
    """The only output of the answer that came first, flat."""
    lengths = [each for each in line.head.split(b"\r\n") if b"inference-header" in each.lower()]
    if lengths:
        text = int(lengths[0].split(b":")[1])
        return np.frombuffer(line.body[text:], "<f4")
    return np.array(json.loads(line.body)["outputs"][0]["data"], "f4")


def measured(found: list[Way], *, rounds: int, cores: str) -> list[Figure]:
    """Let all ways take turns."""
    taken: dict[str, list[tuple[float, ...]]] = {way.name: [] for way in found}
    pressed: dict[str, list[tuple[float, ...]]] = {way.name: [] for way in found}
    for turn in range(rounds):
        for way in found:
            calls = (way.bare, way.floors[0].ask, way.ours[0].ask)
            bursts = (lean.timed_us(call, seconds=BURST_S) for call in calls)
            taken[way.name].append(tuple(float(np.median(burst)) for burst in bursts))
            if way.name.startswith("mlp") and turn % 4 == 0:
                pair = (way.ours, way.floors)
                pressed[way.name].append(
                    tuple(lean.pressed(lines, seconds=PRESS_S) for lines in pair)
                )
    return [_figure(way.name, cores, taken[way.name], pressed[way.name]) for way in found]


def _figure(
    name: str, cores: str, taken: list[tuple[float, ...]], pressed: list[tuple[float, ...]]
) -> Figure:
    bare, floor, ours = (list(column) for column in zip(*taken, strict=True))
    low, middle, high = statistics.quantiles(bare, n=4)
    ours_per_s, floor_per_s = zip(*pressed, strict=True) if pressed else ((0.0,), (0.0,))
    return Figure(
        way=name,
        cores=cores,
        bare_us=middle,
        bare_best_us=min(bare),
        floor_us=statistics.median(floor),
        floor_best_us=min(floor),
        ours_us=statistics.median(ours),
        ours_best_us=min(ours),
        over_us=statistics.median(o - b for o, b in zip(ours, bare, strict=True)),
        ratio=statistics.median(o / b for o, b in zip(ours, bare, strict=True)),
        noise=(high - low) / middle,
        per_s=statistics.median(ours_per_s),
        per_s_best=max(ours_per_s),
        floor_per_s=statistics.median(floor_per_s),
    )


def table(figures: list[Figure]) -> str:
    """The figures as text."""
    lines = [
        f"{'way':18} {'cores':9} {'bare us':>16} {'null us':>16} {'ours us':>16} "
        f"{'over bare':>16} {'x bare':>12} {'8 lines /s':>16} {'null /s':>8} {'noise':>5}"
    ]
    for each in figures:
        over_best, ratio_best = (
            each.ours_best_us - each.bare_best_us,
            each.ours_best_us / each.bare_best_us,
        )
        cells = [
            f"{each.bare_us:.1f} ({each.bare_best_us:.1f})",
            f"{each.floor_us:.1f} ({each.floor_best_us:.1f})",
            f"{each.ours_us:.1f} ({each.ours_best_us:.1f})",
            f"{each.over_us:.1f} ({over_best:.1f})",
        ]
        speed = f"{each.per_s:.0f} ({each.per_s_best:.0f})" if each.per_s else "-"
        lines.append(
            f"{each.way:18} {each.cores:9} " + " ".join(f"{cell:>16}" for cell in cells)
            + f" {f'{each.ratio:.2f} ({ratio_best:.2f})':>12} {speed:>16} {each.floor_per_s:8.0f}"
            + f" {each.noise:5.0%}"
        )  # fmt: skip
    return "\n".join(lines)


def run(*, rounds: int) -> list[Figure]:
    """Measure all ways on one core and on two."""
    figures = []
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            serving.running(unix_path=folder / "oip.sock") as server,
            ways(server, folder / "oip.sock", folder) as (found, floors),
        ):
            status = server.supervisor.status
            assert status is not None
            try:
                for cores, (theirs, ours) in CORES.items():
                    for pid in (status.pid, *floors.pids):
                        beside.pin(pid, theirs)
                    beside.pin(os.getpid(), ours)
                    figures += measured(found, rounds=rounds, cores=cores)
            finally:
                os.sched_setaffinity(0, allowed)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    arguments = parser.parse_args()
    starts = [beside.start() for _ in range(arguments.starts)]
    figures = run(rounds=arguments.rounds)
    print(table(figures))
    print(
        f"start: {statistics.median(each.ready_s for each in starts):.2f} s "
        f"(best {min(each.ready_s for each in starts):.2f}), "
        f"{min(each.cpu_s for each in starts):.2f} s of CPU; "
        f"{max(each.rss_mib for each in starts):.0f} MiB RSS before any model"
    )
    if arguments.out:
        document = {
            "figures": [asdict(each) for each in figures],
            "starts": [asdict(each) for each in starts],
        }
        arguments.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
