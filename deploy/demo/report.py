"""The one table at the end: the original beside what serves now, and how each was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.demo.figures import KindRow, Proportion, Served, quantile

Row = tuple[str, str, str, str]
NONE = "-"


@dataclass(frozen=True)
class Side:
    """One model as it served. `memory_mib` and the client's latencies are of this machine."""

    label: str
    size_bytes: int
    memory_mib: float | None
    client_ms: tuple[float, ...]
    served: Served


@dataclass(frozen=True)
class Report:
    """Everything that the table shows. The two of a pair are (original, variant)."""

    model: str
    original: Side
    variant: Side
    agreement: Proportion | None
    accuracy: tuple[Proportion, Proportion] | None = None
    kinds: tuple[KindRow, ...] = ()
    notes: tuple[str, ...] = ()


def rows(report: Report) -> list[Row]:
    """The table's rows: what, of the original, of the variant, the one against the other."""
    a, b = report.original, report.variant
    found: list[Row] = [
        ("file", f"{a.size_bytes / 1e6:.2f} MB", f"{b.size_bytes / 1e6:.2f} MB",
         _ratio(b.size_bytes, a.size_bytes)),
        ("memory that it adds", _figure(a.memory_mib, ".1f", "MiB"),
         _figure(b.memory_mib, ".1f", "MiB"), _ratio(b.memory_mib, a.memory_mib)),
        ("latency p50, HTTP client", _at(a.client_ms, 0.5), _at(b.client_ms, 0.5),
         _paired_ratio(a.client_ms, b.client_ms)),
        ("latency p95, HTTP client", _at(a.client_ms, 0.95), _at(b.client_ms, 0.95), ""),
        _in_server("latency p50, in the server", a.served, b.served, 0.5),
        _in_server("latency p95, in the server", a.served, b.served, 0.95),
        ("CPU time per inference", _figure(a.served.cpu_ms_per_inference, ".2f", "ms"),
         _figure(b.served.cpu_ms_per_inference, ".2f", "ms"),
         _ratio(b.served.cpu_ms_per_inference, a.served.cpu_ms_per_inference)),
        ("energy per inference", _millijoules(a.served), _millijoules(b.served),
         _ratio(b.served.joules_per_inference, a.served.joules_per_inference)),
    ]  # fmt: skip
    if report.agreement is not None:
        found.append(("same answer as the original", NONE, *_interval(report.agreement)))
    if report.accuracy is not None:
        before, after = report.accuracy
        title = "right by file extension" if report.kinds else "right by the labels given"
        found.append((title, _share(before), _share(after), f"of {after.count}"))
        found += [
            (f"  .{kind.extension}", str(kind.hits[0]), str(kind.hits[1]), f"of {kind.count}")
            for kind in report.kinds
        ]
    return found


def show(report: Report, *, on: Console) -> None:
    """Print the table and its notes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for title in (report.original.label, report.variant.label, ""):
        table.add_column(escape(title), justify="right", overflow="fold")
    for row in rows(report):
        table.add_row(*(escape(cell) for cell in row))
    on.print(f"\n[bold]{escape(report.model)}: the original and what serves now[/bold]\n")
    on.print(table)
    on.print("[bold]How it was measured[/bold]")
    for note in report.notes:
        wrapped = fill(note, on.width, initial_indent=" - ", subsequent_indent="   ")
        on.print(wrapped, markup=False, soft_wrap=True)


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}x" if value is not None and base else NONE


def _figure(value: float | None, form: str, unit: str) -> str:
    return NONE if value is None else f"{value:{form}} {unit}"


def _at(values: Sequence[float], q: float) -> str:
    return f"{quantile(values, q):.2f} ms" if values else NONE


def _paired_ratio(base: Sequence[float], values: Sequence[float]) -> str:
    """The median of the ratios of neighbours: what disturbed the machine hit both."""
    ratios = [b / a for a, b in zip(base, values, strict=False) if a > 0]
    return f"{quantile(ratios, 0.5):.2f}x" if ratios else NONE


def _in_server(title: str, a: Served, b: Served, q: float) -> Row:
    before, after = a.latency_ms.quantile(q), b.latency_ms.quantile(q)
    ratio = _ratio(after, before) if q == 0.5 else ""
    return title, _figure(before, ".2f", "ms"), _figure(after, ".2f", "ms"), ratio


def _millijoules(served: Served) -> str:
    joules = served.joules_per_inference
    return _figure(None if joules is None else 1000 * joules, ".2f", "mJ")


def _share(share: Proportion) -> str:
    return f"{share.value:.3f}"


def _interval(share: Proportion) -> tuple[str, str]:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]", f"of {share.count}"
