"""The side-by-side table: for people, as Markdown, and as JSON (pure)."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from tests.benchmarks.peers.frontier import LEAST_AGREEMENT, Verdict
from tests.benchmarks.peers.judgement import Judged, Row

HEAD = ("variant", "size", "CPU", "agreement", "dB", "scores", "quantized", "s / MiB", "verdict")


def rows(judged: Judged) -> list[tuple[str, ...]]:
    """The lines of one model: the original, the peers' frontier, our rungs."""
    verdicts = {one.peer: one for one in judged.verdicts}
    found = [_row(judged.original, judged.original, "")]
    for row in judged.peers:
        useless = "" if row.agreement >= LEAST_AGREEMENT else "of no use"
        found.append(_row(row, judged.original, verdict(verdicts.get(row.label)) or useless))
    return found + [_row(row, judged.original, "") for row in judged.ours]


def _row(row: Row, original: Row, judgement: str) -> tuple[str, ...]:
    low, high = row.cpu[1:]
    return (
        row.label,
        f"{row.size / original.size:.3f} ({row.size / 1e6:.3f} MB)",
        f"{row.cpu[0]:.3f} [{low:.3f}, {high:.3f}]",
        f"{row.agreement:.4f}",
        f"{row.sqnr_db:.1f}",
        ", ".join(f"{name} {value:.4f}" for name, value in row.metrics.items()),
        f"{row.quantized:.2f}",
        f"{row.user_s:.1f} / {row.peak_mib:.0f}" if row.user_s else "",
        judgement,
    )


def verdict(found: Verdict | None) -> str:
    """One verdict in words."""
    if found is None:
        return ""
    if found.nearest is None:
        return "MISSED: no rungs"
    near = found.nearest
    figures = (
        f"size x{near.size:.3f}, CPU x{near.cpu[0]:.3f} [{near.cpu[1]:.3f}, {near.cpu[2]:.3f}], "
        f"agreement {near.agreement[0]:+.4f} [{near.agreement[1]:+.4f}, {near.agreement[2]:+.4f}]"
    )
    if found.met:
        return f"met by {near.rung}: {figures}"
    return f"MISSED ({', '.join(near.misses())}); nearest {near.rung}: {figures}"


def heading(judged: Judged) -> str:
    """What stands above a model's lines."""
    taken = judged.taken
    text = (
        f"{judged.name}: {judged.samples} samples, evaluation {judged.evaluation_sha256[:16]}; "
        f"{len(judged.failed)} settings fail, {judged.beaten} are beaten"
    )
    if taken.wall_s:
        text += (
            f"; ours took {taken.wall_s:.0f} s, {taken.cpu_s:.0f} CPU s, "
            f"{taken.peak_mib:.0f} MiB at most in one process"
        )
    return text


def rich_table(judged: Judged) -> Table:
    """For a terminal."""
    table = Table(*HEAD, title=heading(judged), title_justify="left")
    for row in rows(judged):
        table.add_row(*row)
    return table


def markdown(judged: Judged) -> str:
    """For a file."""
    lines = [f"## {heading(judged)}", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(judged)]
    if judged.failed:
        why = "; ".join(f"{label}: {reason}" for label, reason in judged.failed.items())
        lines += ["", f"Fail: {why}"]
    return "\n".join(lines) + "\n"


def as_json(found: Sequence[Judged], failed: dict[str, str]) -> str:
    """For machines."""
    models = []
    for one in found:
        fields = asdict(one)
        fields["taken"].pop("rungs")
        models.append(fields)
    return json.dumps({"models": models, "failed": failed}, indent=1)


def summary(found: Sequence[Judged], failed: dict[str, str]) -> str:
    """One line over all models."""
    verdicts = [verdict for one in found for verdict in one.verdicts]
    met = sum(one.met for one in verdicts)
    whole = sum(all(verdict.met for verdict in one.verdicts) for one in found if one.verdicts)
    text = (
        f"{met} of {len(verdicts)} of the peers' points are met, all of them on {whole} of "
        f"{sum(bool(one.verdicts) for one in found)} models"
    )
    return text + (f"; not judged: {', '.join(failed)}" if failed else "")
