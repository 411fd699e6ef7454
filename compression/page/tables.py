"""The tables of the page: what can be served, what lost and why, what each node costs (pure)."""

from collections.abc import Sequence

from compression import judging, report
from compression.findings import (
    Agreement,
    Ladder,
    Measurement,
    Paired,
    Recovered,
    Rejected,
    Rung,
    Sensitivity,
)
from compression.forecasts import Forecast
from compression.page.markup import Child, Markup, element, join

_RUNGS = ("", "Variant", "Size", "Latency", "CPU time", "Memory", "Agreement", "Budget")
_LOST = ("Candidate", "Why it lost", "Size", "Latency", "Agreement")
_FORECASTS = ("Variant", "Forecast", "Measured", "Off by")
_TRAINED = ("Variant", "", "Agreement", "Loss", "On", "Training", "Why")
_NODES = ("Node", "Operator", "Alone, dB", "Weights", "Float in")


def table(caption: str, head: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table that scrolls sideways where it is wider than the screen, also by keyboard."""
    names = [element("th", name, scope="col") for name in head]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *names)),
        element("tbody", *rows),
    )
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def rungs(found: Ladder) -> Markup:
    """All rungs, best first, each figure beside the original's."""
    rows = [_rung(place, rung) for place, rung in enumerate(found.rungs, start=1)]
    return table(
        "Best first: the highest agreement among those that meet the budget. In brackets the "
        "95 % interval; ratios are to the original",
        _RUNGS,
        rows,
    )


def _rung(place: int, rung: Rung) -> Markup:
    m = rung.measurement
    bounds = "" if m.ratio_low is None else f"[{m.ratio_low:.2f}, {m.ratio_high:.2f}]"
    slow = element("small", "slower than the original", class_="bad")
    whole = None if m.expanded_mib is None else f"{m.expanded_mib:.2f} MiB expanded, on load"
    return element(
        "tr",
        element("td", str(place), class_="n"),
        element("th", rung.recipe.label, element("small", rung.file), scope="row"),
        _pair(f"{m.size_mib:.2f} MiB",
              times(ratio(m.size_mib, m.original_size_mib)),
              element("small", whole) if whole else None),
        _pair(f"{times(m.latency_ratio)} {bounds}",
              f"by {m.ratio_basis} time",
              slow if report.slower(m) else None,
              element("small", f"p50 {m.latency_p50_ms:.2f}, p95 {m.latency_p95_ms:.2f} ms")),
        _pair(times(m.cpu_ratio), f"{m.cpu_ms_per_inference:.2f} ms each"),
        _pair(f"{m.peak_memory_mib:.1f} MiB",
              times(ratio(m.peak_memory_mib, m.original_peak_memory_mib))),
        _agreement(rung),
        element("td", *_standing(rung), class_="budget"),
        class_="best" if place == 1 else None,
    )  # fmt: skip


def _pair(value: str, small: str, *more: Child) -> Markup:
    return element("td", value, element("small", small), *more, class_="n")


def _agreement(rung: Rung) -> Markup:
    m = rung.measurement
    lines = [how(m.agreement)]
    if rung.chosen_by is not None:
        lines.append(f"chosen by {rung.chosen_by.value:.3f} on {on_what(rung.chosen_by)}")
    lines += [report.labelled(one) for one in m.labelled]
    if rung.recipe.passes and m.agreement.output in m.sqnr_db:
        lines.append(f"SQNR {m.sqnr_db[m.agreement.output]:.1f} dB")
    return element("td", interval(m.agreement), *(element("small", line) for line in lines),
                   class_="range")  # fmt: skip


def _standing(rung: Rung) -> list[Markup]:
    good = element("span", "✓ meets it", class_="good")
    bad = element("span", "✗ misses it", class_="bad")
    parts = [good if rung.meets_budget else bad]
    parts += [element("small", miss) for miss in rung.misses]
    if not rung.verified:
        parts.append(element("small", "unverified", class_="bad"))
    return parts


def lost(rejected: Sequence[Rejected]) -> Markup:
    """Candidates that were tried and did not become rungs, with their figures where one ran."""
    return table("What was tried and why it lost", _LOST, [_lost(one) for one in rejected])


def _lost(one: Rejected) -> Markup:
    m = one.measurement
    figures = [element("td")] * 3 if m is None else _figures(m)
    return element(
        "tr",
        element("th", one.recipe.label, scope="row"),
        element("td", one.reason, class_="why"),
        *figures,
    )


def _figures(m: Measurement) -> list[Markup]:
    return [
        element("td", times(ratio(m.size_mib, m.original_size_mib)), class_="n"),
        element("td", times(m.latency_ratio), class_="n"),
        element("td", interval(m.agreement), element("small", how(m.agreement))),
    ]


def nodes(found: Sequence[Sensitivity], recipes: Sequence[str]) -> Markup:
    """Every node that was looked at; `recipes` are the labels of the rungs but the original."""
    return table("Every node that was looked at, the worst first", _NODES,
                 [_node(one, recipes) for one in found])  # fmt: skip


def _node(one: Sensitivity, recipes: Sequence[str]) -> Markup:
    every = len(one.left_float_in) == len(recipes) > 1
    names = "all variants" if every else ", ".join(one.left_float_in)
    return element(
        "tr",
        element("th", one.node, scope="row"),
        element("td", one.operator),
        element("td", f"{one.sqnr_db:.1f}", class_="n"),
        element("td", f"{one.weight_share:.1%}", class_="n"),
        element("td", names),
    )


def forecast(found: Sequence[Forecast]) -> Markup:
    """What was forecast of variants whose channels were cut, beside what was measured."""
    caption = "CPU time over the original's: forecast by what kernels cost here, and measured"
    return table(caption, _FORECASTS, [
        element(
            "tr",
            element("th", one.label, scope="row"),
            element("td", f"{one.predicted:.2f}", class_="n"),
            element("td", f"{one.measured:.2f}", class_="n"),
            element("td", f"{one.error:+.0%}", class_="n"),
        )
        for one in found
    ])  # fmt: skip


def trained(found: Sequence[Recovered]) -> Markup:
    """What was trained, beside the very same variant untrained."""
    caption = (
        "Trained without labels, beside the same variant untrained, on inputs that were not "
        "trained on. Let in only where agreement and loss are both better beyond chance"
    )
    return table(caption, _TRAINED, [_trained(one) for one in found])


def _trained(one: Recovered) -> Markup:
    good = element("span", "✓ let in", class_="good")
    bad = element("span", "✗ not let in", class_="bad")
    return element(
        "tr",
        element("th", one.recipe.label, scope="row"),
        element("td", good if one.accepted else bad),
        _change(one.agreement, "{:.4f}"),
        _change(one.loss, "{:.4g}"),
        element("td", f"{one.samples} samples" if one.samples else "", class_="n"),
        element("td", f"{one.minutes:.1f} min" if one.minutes else "", class_="n"),
        element("td", one.reason, class_="why"),
    )


def _change(found: Paired | None, form: str) -> Markup:
    if found is None:
        return element("td")
    shown = f"{form.format(found.before)} → {form.format(found.after)}"
    chance = element("small", f"by chance: {found.chance:.3f}")
    return element("td", shown, chance, class_="n")


def interval(agreement: Agreement) -> str:
    """A value with its interval."""
    return f"{agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}]"


def how(agreement: Agreement) -> str:
    """By which rule, and on what."""
    guess = ", guessed" if agreement.guessed else ""
    return f"{agreement.kind}{guess}, {on_what(agreement)}"


def on_what(agreement: Agreement) -> str:
    """How many samples of which part."""
    return f"{agreement.samples} {agreement.split} samples"


def times(value: float) -> str:
    """A ratio to the original."""
    return f"\N{MULTIPLICATION SIGN} {value:.2f}"


def ratio(value: float, original: float) -> float:
    """Against the original, which may be next to nothing."""
    return value / max(original, 1e-9)


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names and values, one under the other."""
    rows = [join(element("dt", name), element("dd", value)) for name, value in pairs if value]
    return element("dl", *rows, class_="facts")


def bounds(found: Ladder) -> str:
    """The budget in one line."""
    given = found.budget.model_dump(exclude_none=True)
    names = {name: title for name, (title, _, _) in judging.BOUNDS.items()}
    shown = [
        f"{names.get(name, name.replace('_', ' '))} {value:g}" for name, value in given.items()
    ]
    return ", ".join(shown) or "nothing is bounded"
