"""A ladder as one page of HTML that needs nothing else: no network, script or other file (pure).

It shows the same data as ladder.json. All that comes from a model (names of nodes, outputs, files)
is escaped in markup.py; nothing else makes markup of text.
"""

import time
from dataclasses import dataclass

from compression import bought, forecasts, report
from compression.findings import Ladder, Rung
from compression.page import bars, style, tables, tradeoff
from compression.page.markup import Child, Markup, element, join


@dataclass(frozen=True)
class Made:
    """By what a page was made, and when (seconds since 1970)."""

    by: str
    at_s: float


def render(found: Ladder, *, made: Made) -> str:
    """The page of one ladder, as the text of an HTML file in UTF-8."""
    name = found.model.name
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Nothing is fetched, whatever a name in the model tries.
        element("meta", http_equiv="Content-Security-Policy",
                content="default-src 'none'; style-src 'unsafe-inline'"),
        element("title", f"{name}: variants on this device"),
        element("style", Markup(style.SHEET)),
    )  # fmt: skip
    main = element("main", *_sections(found))
    header = element("header", element("h1", name), _verdict(found), _cards(found))
    body = element("body", header, main, _footer(made))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(found: Ladder) -> list[Markup | None]:
    return [
        _unverified(found),
        _section("What is traded for what", tradeoff.figures(found)),
        _section("Variants", tables.rungs(found), _bought(found), _sparse(found)),
        _lost(found),
        _trained(found),
        _forecast(found),
        _nodes(found),
        _section("How it was measured", _method(found)),
    ]


def _section(title: str, *children: Child) -> Markup:
    return element("section", element("h2", title), *children)


def best(found: Ladder) -> Rung | None:
    """The first rung, where it is not the original and meets the budget."""
    first = found.rungs[0] if found.rungs else None
    return first if first is not None and first.meets_budget and first.recipe.passes else None


def _verdict(found: Ladder) -> Markup:
    first = best(found)
    if first is not None:
        m = first.measurement
        size = tables.ratio(m.size_mib, m.original_size_mib)
        slow = " (slower)" if report.slower(m) else ""
        return element(
            "p", element("span", "✓ ", class_="good"), "Best is ", element("b", first.recipe.label),
            f": {size:.2f} of the original's size, {m.latency_ratio:.2f} of its time{slow}, "
            f"agreement {tables.interval(m.agreement)} ({tables.how(m.agreement)}).",
        )  # fmt: skip
    if any(rung.meets_budget for rung in found.rungs):
        text = "Only the original meets the budget; no variant is better."
        return element("p", element("span", "✓ ", class_="good"), text)
    nearest = found.rungs[0] if found.rungs else None
    why = f" Nearest is {nearest.recipe.label!r}: {'; '.join(nearest.misses)}." if nearest else ""
    return element("p", element("span", "✗ ", class_="bad"), f"Nothing meets the budget.{why}")


def _cards(found: Ladder) -> Markup | None:
    if not found.rungs:
        return None
    m = found.rungs[0].measurement
    cards = [
        ("Size", f"{m.size_mib:.2f} MiB", f"original {m.original_size_mib:.2f}"),
        ("Latency p50", f"{m.latency_p50_ms:.2f} ms", f"original {m.original_latency_p50_ms:.2f}"),
        ("CPU time each", f"{m.cpu_ms_per_inference:.2f} ms",
         f"original {m.original_cpu_ms_per_inference:.2f}"),
        ("Peak memory", f"{m.peak_memory_mib:.1f} MiB",
         f"original {m.original_peak_memory_mib:.1f}"),
        ("Agreement", f"{m.agreement.value:.3f}", tables.on_what(m.agreement)),
    ]  # fmt: skip
    shown = [
        element("div", element("dt", name), element("dd", value, element("small", small)))
        for name, value, small in cards
    ]
    return element("dl", *shown, class_="cards")


def _unverified(found: Ladder) -> Markup | None:
    if all(rung.verified for rung in found.rungs):
        return None
    text = (
        f"{report.UNVERIFIED[0].upper()}{report.UNVERIFIED[1:]}. A device lets such a variant "
        "serve only where its deployment says allow_unverified."
    )
    return element("section", element("h2", "Unverified"), element("p", text), class_="warn")


def _bought(found: Ladder) -> Markup | None:
    text = bought.text(found)
    return element("p", f"{text[0].upper()}{text[1:]}.") if text else None


def _sparse(found: Ladder) -> Markup | None:
    if not any(report.is_sparse(rung) for rung in found.rungs):
        return None
    return element("p", f"{report.UNSTRUCTURED[0].upper()}{report.UNSTRUCTURED[1:]}.")


def _lost(found: Ladder) -> Markup | None:
    tried = [one for one in found.rejected if one.tried]
    left = report.untried(found.rejected)
    if not tried and not left:
        return None
    parts: list[Child] = [tables.lost(tried)] if tried else []
    parts += [element("p", left, class_="soft")] if left else []
    return _section("What lost", *parts)


def _trained(found: Ladder) -> Markup | None:
    return (
        _section("What recovery did", tables.trained(found.recovered)) if found.recovered else None
    )


def _forecast(found: Ladder) -> Markup | None:
    known = forecasts.of(found)
    return _section("What was forecast", tables.forecast(known)) if known else None


def _nodes(found: Ladder) -> Markup | None:
    if not found.sensitivities:
        return None
    recipes = [rung.recipe.label for rung in found.rungs if rung.recipe.passes]
    what = (
        "Signal to quantization noise of the judged output when one node alone is quantized. The "
        f"nodes below {bars.GOOD_DB:.0f} dB are those to leave float first."
    )
    chart = element(
        "figure", bars.draw(found.sensitivities), element("figcaption", what), class_="bars"
    )
    every = element(
        "details",
        element("summary", f"all {len(found.sensitivities)} nodes as a table"),
        tables.nodes(found.sensitivities, recipes),
    )
    return _section("What each node costs", chart, every)


def _method(found: Ladder) -> Markup:
    device = found.device_class
    first = found.rungs[0].measurement if found.rungs else None
    noise = "" if first is None else f"{first.noise:.1%} of the original against itself"
    method = [] if first is None else [(name, how) for name, how in first.method.items()]
    rounds = "" if first is None else (
        f"{first.rounds} rounds, interleaved with the original, on {first.threads} "
        f"thread{'' if first.threads == 1 else 's'}"
    )  # fmt: skip
    return join(
        tables.facts(
            [
                ("Budget", tables.bounds(found)),
                ("Inputs", report.division(found.division) if found.division else None),
                ("Rounds", rounds),
                ("Noise", noise),
                *method,
                ("Device", f"{device.machine}, {device.cores} cores"),
                ("Instructions", " ".join(device.isa)),
                ("int8 products", _products(found)),
                ("Runtime", f"onnxruntime {device.onnxruntime}"),
                ("Model", element("code", found.model.sha256)),
            ]
        )
    )


def _products(found: Ladder) -> str:
    if found.device_class.int8_saturates:
        return "summed in 16 bits, which saturates: weights need 7 bits"
    return "summed in 32 bits" if found.device_class.int8_dot else "no instruction of their own"


def _footer(made: Made) -> Markup:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made.at_s))
    text = f"Made by {made.by}, {when}. The same data lies beside it in ladder.json."
    return element("footer", element("p", text))
