"""Polls become intervals: merged without loss, numbered, and handed over whatever happens."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.device.energy import CpuEnergy
from agent.errors import Unavailable
from agent.protocol.events import Telemetry
from agent.protocol.private import ModelStatus, ServerStatus
from agent.protocol.sketch import Quantiles, Sketch
from agent.telemetry.reporter import Reporter
from agent.telemetry.view import Counts, HostFigures, HostMeter

SOURCE = CpuEnergy(2.0, 0.25, "a test")


class Clock:
    """Seconds that move when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _reporter(wall: Clock | None = None, monotonic: Clock | None = None) -> Reporter:
    return Reporter(
        "dev-1", source=SOURCE, host=lambda: HostFigures(20.0, 300.0, 0.25),
        counts=lambda: Counts(server_restarts=2, dropped_messages=5),
        wall=wall or Clock(), monotonic=monotonic or Clock(),
    )  # fmt: skip


def _quantiles(values: list[float]) -> Quantiles:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch.freeze()


def _poll(
    sequence: int, latencies: dict[tuple[str, int, str], list[float]], *, cpu_s: float = 0.0
) -> ServerStatus:
    models = tuple(
        ModelStatus(
            name=name, version=version, sha256=digit * 64, state="READY", requests=len(values),
            failures=len(values) // 2, busy_s=sum(values) / 1000, latency_ms=_quantiles(values),
        )
        for (name, version, digit), values in latencies.items()
    )  # fmt: skip
    return ServerStatus(sequence=sequence, pid=7, process_cpu_s=cpu_s, rss_mib=81.0, models=models)


KEYS = st.sampled_from([("a", 1, "0"), ("a", 1, "1"), ("a", 2, "2"), ("b", 1, "0")])
LATENCIES = st.lists(st.floats(0.01, 1e5), max_size=12)


@given(st.lists(st.dictionaries(KEYS, LATENCIES, max_size=4), min_size=1, max_size=8))
def test_an_interval_holds_exactly_what_its_polls_held(
    polls: list[dict[tuple[str, int, str], list[float]]],
) -> None:
    reporter = _reporter()
    for number, latencies in enumerate(polls):
        reporter.observe(_poll(number, latencies, cpu_s=number * 1.0))
    found = {(m.name, m.version, m.sha256[0]): m for m in reporter.snapshot().models}
    for key in {key for latencies in polls for key in latencies}:
        values = [value for latencies in polls for value in latencies.get(key, [])]
        if not values:
            assert key not in found
            continue
        whole = _quantiles(values)
        assert found[key].requests == len(values)
        assert found[key].failures == sum(len(each.get(key, [])) // 2 for each in polls)
        assert (found[key].latency_ms.keys, found[key].latency_ms.counts) == (
            whole.keys,
            whole.counts,
        )
        assert (found[key].latency_ms.min, found[key].latency_ms.max) == (whole.min, whole.max)
        assert math.isclose(found[key].latency_ms.sum, whole.sum, rel_tol=1e-9)


@given(st.lists(st.tuples(LATENCIES, st.booleans()), max_size=10))
def test_totals_are_the_sum_of_all_intervals(steps: list[tuple[list[float], bool]]) -> None:
    reporter, reports = _reporter(), []
    for number, (values, cut) in enumerate(steps):
        reporter.observe(_poll(number, {("a", 1, "0"): values}, cpu_s=2.0 * number))
        if cut:
            reports.append(reporter.snapshot())
    reports.append(reporter.snapshot())
    models = [model for report in reports for model in report.models]
    for total in reporter.totals():
        assert total.requests == sum(model.requests for model in models)
        assert total.latency_ms.count == total.requests
        assert math.isclose(total.joules, sum(model.joules or 0 for model in models), abs_tol=1e-9)
    assert [report.sequence for report in reports] == list(range(len(reports)))


def test_a_snapshot_says_what_the_energy_is_and_how_it_was_made() -> None:
    reporter = _reporter()
    reporter.observe(_poll(1, {("a", 1, "0"): [10.0, 10.0]}, cpu_s=3.0))
    (model,) = reporter.snapshot().models
    assert (model.cpu_seconds, model.joules, model.joules_per_inference) == (3.0, 6.0, 3.0)
    assert model.energy_method == SOURCE.method


def test_a_poll_that_comes_twice_counts_once() -> None:
    reporter, poll = _reporter(), _poll(4, {("a", 1, "0"): [1.0]}, cpu_s=1.0)
    reporter.observe(poll)
    reporter.observe(poll)
    assert reporter.snapshot().models[0].requests == 1
    assert reporter.totals()[0].requests == 1


def test_a_new_interval_starts_empty_and_where_the_last_one_ended() -> None:
    wall, monotonic = Clock(), Clock()
    reporter = _reporter(wall, monotonic)
    reporter.observe(_poll(1, {("a", 1, "0"): [1.0]}))
    wall.now, monotonic.now = 1060.0, 1060.0
    first = reporter.snapshot()
    wall.now, monotonic.now = 1090.0, 1090.0
    second = reporter.snapshot()
    assert (first.from_s, first.to_s, second.from_s, second.to_s) == (1000, 1060, 1060, 1090)
    assert second.models == ()


def test_a_clock_that_is_set_back_does_not_turn_an_interval_round() -> None:
    wall, monotonic = Clock(), Clock()
    reporter = _reporter(wall, monotonic)
    wall.now, monotonic.now = 10.0, 1060.0
    telemetry = reporter.snapshot()
    assert telemetry.to_s - telemetry.from_s == 60.0


def test_more_versions_than_are_kept_forget_the_one_that_was_quiet_the_longest() -> None:
    reporter = _reporter()
    for number in range(300):
        reporter.observe(_poll(number, {("a", number, "0"): [1.0], ("b", 1, "1"): [1.0]}))
    kept = {(total.name, total.version): total.requests for total in reporter.totals()}
    assert len(kept) == 256
    assert kept["b", 1] == 300
    assert ("a", 0) not in kept


async def test_what_is_left_is_handed_over_when_the_reports_are_stopped() -> None:
    reporter, out = _reporter(), list[Telemetry]()
    reporter.observe(_poll(1, {("a", 1, "0"): [1.0]}))
    task = asyncio.create_task(reporter.run(3600.0, enqueue=out.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [report.models[0].requests for report in out] == [1]


async def test_a_spool_that_cannot_take_one_report_gets_the_next() -> None:
    reporter, taken = _reporter(), list[Telemetry]()
    enough = asyncio.Event()

    def enqueue(telemetry: Telemetry) -> None:
        if telemetry.sequence == 0:
            raise Unavailable("cannot write the spool: no space left")
        taken.append(telemetry)
        enough.set()

    task = asyncio.create_task(reporter.run(0.001, enqueue=enqueue))
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert taken[0].sequence == 1


def test_the_host_meter_reads_this_process_and_this_device() -> None:
    figures = HostMeter().read()
    assert 1 < figures.agent_rss_mib < 4096
    assert figures.memory_available_mib > 1
    assert 0 <= figures.cpu_share <= 1
