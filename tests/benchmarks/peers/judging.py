"""Runs variants beside the original on the evaluation file; what was found is kept by content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compression import runtime, samples
from compression.errors import CompressionError
from tests.benchmarks.peers import builds
from tests.benchmarks.peers.material import Material, sha256
from tests.benchmarks.peers.scores import Tally

VERSION = 1
"""Raise it where scores.py changes what a sample adds."""


def load(paths: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Sessions by label, and why others do not load."""
    sessions, failed = {}, {}
    for label, path in paths.items():
        try:
            sessions[label] = runtime.session(path)
        except CompressionError as error:
            failed[label] = f"invalid: {error}"[:160]
    return sessions, failed


def judge(
    material: Material, paths: Mapping[str, Path], *, count: int
) -> tuple[dict[str, Tally], dict[str, str]]:
    """Tallies over the first `count` samples, by label; and why others have none."""
    kept = {label: _kept(material, path, count) for label, path in paths.items()}
    found = {label: Tally.load(path) for label, path in kept.items() if path.exists()}
    sessions, failed = load({label: paths[label] for label in paths if label not in found})
    tallies = {label: Tally() for label in sessions}
    if tallies:
        original = runtime.session(material.model)
        with samples.open_samples(material.evaluation, runtime.inputs(original)) as inputs:
            labels = inputs.labels()
            for at in range(min(count, len(inputs))):
                feeds = inputs.sample(at)
                answers, more = _answers(sessions, feeds, without=failed)
                failed |= more
                expected = runtime.run(original, feeds)
                label = None if labels is None else labels[at]
                for name, answer in answers.items():
                    tallies[name].add(material.outputs, expected, answer, label)
    for label in set(tallies) - set(failed):
        tallies[label].save(kept[label])
        found[label] = Tally.load(kept[label])
    return found, failed


def _answers(
    sessions: Mapping[str, Any], feeds: samples.Arrays, *, without: Mapping[str, str]
) -> tuple[dict[str, samples.Arrays], dict[str, str]]:
    """What each variant that still runs answers to one sample; and why others do not."""
    found: dict[str, samples.Arrays] = {}
    failed: dict[str, str] = {}
    for name in sessions.keys() - without.keys():
        try:
            found[name] = runtime.run(sessions[name], feeds)
        except CompressionError as error:
            failed[name] = f"fails: {error}"[:160]
    return found, failed


def _kept(material: Material, path: Path, count: int) -> Path:
    what = "\n".join(
        [str(VERSION), str(count), sha256(material.model), sha256(path),
         material.evaluation_sha256(), *(one.model_dump_json() for one in material.outputs)]
    )  # fmt: skip
    into = builds.folder() / material.name
    into.mkdir(exist_ok=True)
    return into / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.tally.npz"
