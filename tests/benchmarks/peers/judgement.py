"""Brings one model's variants together: builds, screening, the frontier, verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compression import runtime, samples
from compression.alike import numbers
from tests.benchmarks.peers import builds, frontier, judging, race, scores, weights
from tests.benchmarks.peers.frontier import Comparison, Interval, Point, Verdict
from tests.benchmarks.peers.grid import Setting
from tests.benchmarks.peers.material import Material
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.scores import Tally

ORIGINAL = "original"
SCREENING_SAMPLES, SCREENING_ROUNDS = 48, 5
SCREENING_SLACK = 0.05
"""About two standard errors of a share near .97 of so many samples."""


@dataclass(frozen=True)
class Row:
    """One variant on the evaluation file. `cpu` is the ratio to the original."""

    label: str
    size: int
    cpu: Interval
    agreement: float
    sqnr_db: float
    metrics: Mapping[str, float]
    user_s: float
    peak_mib: float
    quantized: float


@dataclass(frozen=True)
class Judged:
    """All that the table says of one model."""

    name: str
    evaluation_sha256: str
    samples: int
    original: Row
    peers: Sequence[Row]
    ours: Sequence[Row]
    verdicts: Sequence[Verdict]
    failed: Mapping[str, str]
    """Settings that crashed, wrote an invalid model, or one that does not run; and why."""
    beaten: int
    """Settings that work and are on no frontier."""
    taken: Ours = field(default_factory=lambda: Ours({}))


@dataclass(frozen=True)
class Bench:
    """Variants of one model: where they lie, their tallies and their times."""

    material: Material
    paths: Mapping[str, Path]
    tallies: Mapping[str, Tally]
    times: race.Race
    sources: Sequence[int] | None

    def point(self, label: str) -> Point:
        """A variant as a point of the frontier."""
        shares = self.tallies[label].shares().sum(axis=0)
        agreement = float(shares[0] / shares[1]) if shares[1] else 1.0
        size, cpu = self.paths[label].stat().st_size, self.times.ratio(label)
        return Point(label, size, cpu, agreement, self.tallies[label].sqnr_db())

    def compare(self, rung: str, peer: str) -> Comparison:
        """A rung beside a peer: the same samples, the same rounds."""
        a, b = (self.tallies[label].shares() for label in (rung, peer))
        return Comparison(
            rung=rung,
            size=self.paths[rung].stat().st_size / self.paths[peer].stat().st_size,
            cpu=self.times.ratio(rung, peer),
            agreement=scores.difference(a, b, sources=self.sources),
        )

    def row(self, label: str, built: builds.Built | None = None) -> Row:
        """What the table says of a variant."""
        point, tally = self.point(label), self.tallies[label]
        scored = {}
        if self.material.score is not None:
            session = runtime.session(self.paths[label])
            scored["score"] = self.material.score(lambda feeds: runtime.run(session, feeds))
        return Row(
            label=label, size=point.size, cpu=point.cpu, agreement=point.agreement,
            sqnr_db=tally.sqnr_db(), metrics=tally.metric_values() | scored,
            user_s=built.user_s if built else 0.0, peak_mib=built.peak_mib if built else 0.0,
            quantized=weights.share_quantized(self.material.model, self.paths[label]),
        )  # fmt: skip


def build_all(
    material: Material, settings: Mapping[str, Setting], report: Callable[[str], None]
) -> list[builds.Built]:
    """Every setting, one after the other; `report(text)` hears of each."""
    prepared = builds.prepare(material)
    found = []
    for label, setting in settings.items():
        given = dict(setting)
        raw = given.pop("raw", False) or not prepared.path
        start = material.model if raw else Path(prepared.path)
        one = builds.build(label, given, material, start)
        report(f"{material.name}: {label}: {one.failed or f'{one.user_s:.1f} s'}")
        found.append(one)
    return found


def screen(material: Material, built: Sequence[builds.Built]) -> tuple[list[str], dict[str, str]]:
    """Which settings may be on the frontier, by a few samples and rounds; and which fail, why."""
    failed = {one.label: one.failed for one in built if one.failed}
    paths = {one.label: Path(one.path) for one in built if one.path}
    bench, more = measure(material, paths, count=SCREENING_SAMPLES, rounds=SCREENING_ROUNDS)
    points = [bench.point(label) for label in paths if label not in more]
    kept = frontier.screened(points, original_point(material), slack=SCREENING_SLACK)
    return [one.label for one in kept], failed | more


def measure(
    material: Material, paths: Mapping[str, Path], *, count: int, rounds: int
) -> tuple[Bench, dict[str, str]]:
    """Tallies and times of variants; and why others have none."""
    tallies, failed = judging.judge(material, paths, count=count)
    works = {label: path for label, path in paths.items() if label not in failed}
    original = runtime.session(material.model)
    with samples.open_samples(material.evaluation, runtime.inputs(original)) as inputs:
        times = race.run(material.model, works, inputs, rounds=rounds)
        sources = inputs.sources()
    return Bench(material, works, tallies, times, sources), failed


def original_point(material: Material) -> Point:
    """The original as a point: nothing that is larger and slower is worth anything."""
    size = material.model.stat().st_size
    return Point(ORIGINAL, size, (1.0, 1.0, 1.0), 1.0, numbers.EXACT_DB)


def judge(
    material: Material, built: Sequence[builds.Built], ours: Ours, *, count: int, rounds: int
) -> Judged:
    """The frontier of the peers, our rungs beside it, and the verdicts."""
    likely, failed = screen(material, built)
    by_label = {one.label: one for one in built}
    peers = {label: Path(by_label[label].path) for label in likely}
    paths = {ORIGINAL: material.model, **peers, **ours.rungs}
    bench, more = measure(material, paths, count=count, rounds=rounds)
    points = [bench.point(label) for label in peers if label not in more]
    best = frontier.frontier(points, original_point(material))
    rungs = [label for label in ours.rungs if label not in more]
    judged = [
        frontier.judge(point.label, rungs, bench.compare)
        for point in best
        if point.agreement >= frontier.LEAST_AGREEMENT
        and (ours.rungs or ours.failed or ours.wall_s)
    ]
    return Judged(
        name=material.name,
        evaluation_sha256=material.evaluation_sha256(),
        samples=len(bench.tallies[ORIGINAL].powers),
        original=bench.row(ORIGINAL),
        peers=[bench.row(point.label, by_label[point.label]) for point in best],
        ours=[bench.row(label) for label in rungs],
        verdicts=judged,
        failed=failed | more | ({"ours": ours.failed} if ours.failed else {}),
        beaten=len(built) - len(failed) - len(best),
        taken=ours,
    )
