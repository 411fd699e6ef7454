"""The status page: one HTML document without outside parts, readable on a phone."""

import time
from html import escape

from agent.protocol.events import IdleWork, Live
from agent.telemetry.view import ModelTotals, StatusView

# Nothing may be loaded or run, whatever a model's name holds.
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 44rem; }
h1 { font-size: 1.3rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0; }
p { margin: .3rem 0; }
small { opacity: .75; }
section { border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
section { margin: 1rem 0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
dl { gap: .6rem; margin: .6rem 0 0; }
dt { font-size: .8rem; opacity: .75; }
dd { margin: 0; overflow-wrap: anywhere; }
.good, .bad { font-weight: 600; }
.good { color: #18794e; }
.bad { color: #c62a2f; }
.good::before { content: "\\2713  "; }
.bad::before { content: "\\2717  "; }
@media (prefers-color-scheme: dark) { .good { color: #4cc38a; } .bad { color: #ff8080; } }
"""
_FIT = {
    None: "",
    True: '<p class="good">within its budget</p>',
    False: '<p class="bad">over its budget</p>',
}


def render(view: StatusView) -> bytes:
    """The page for one view, as UTF-8 HTML that asks to be loaded again every 10 s."""
    status = view.status
    totals = {(total.name, total.version): total for total in view.totals}
    cards = "".join(_card(live, totals.get((live.name, live.version))) for live in status.models)
    ready = (
        '<p class="good">ready</p>' if status.ready
        else f'<p class="bad">not ready: {escape(status.not_ready_because or "starting")}</p>'
    )  # fmt: skip
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>{escape(status.device)} - trimtab</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(status.device)}</h1>{ready}</header>
<main>
{cards or "<section><p>No model is deployed.</p></section>"}
{_device(view)}
</main>
<footer><small>Energy is {escape(view.energy_method)}. Latencies are within 1 %.
As of {_utc(status.at_s)}; also at <a href="/metrics">/metrics</a>.</small></footer>
</body>
</html>
""".encode()


def _card(live: Live, total: ModelTotals | None) -> str:
    facts: dict[str, str | None] = {
        "State": live.state,
        "Variant": f"{live.variant} (unverified)" if live.verified is False else live.variant,
        "File": (live.sha256 or "")[:12],
    }
    if total is not None:
        p50, p95 = total.latency_ms.quantile(0.5), total.latency_ms.quantile(0.95)
        each = f"{total.joules / total.requests:.3g} J" if total.requests else None
        facts |= {
            "Requests": f"{total.requests:,}",
            "Failures": f"{total.failures:,}",
            "Latency p50 / p95": None if p50 is None else f"{p50:.3g} / {p95:.3g} ms",
            "Energy": f"{total.joules:.3g} J",
            "Energy per request": each,
        }
    note = f"<p>{escape(live.message)}</p>" if live.message else ""
    return (
        f"<section><h2>{escape(live.name)} <small>version {live.version}</small></h2>"
        f"{_FIT[live.meets_budget]}{note}{_facts(facts)}</section>"
    )


def _device(view: StatusView) -> str:
    server = None if view.server_rss_mib is None else f"{view.server_rss_mib:.0f} MiB"
    cpu = view.status.device_class
    return "<section><h2>Device</h2>" + _facts(
        {
            "Memory available": f"{view.host.memory_available_mib:,.0f} MiB",
            "CPU busy": f"{view.host.cpu_share:.0%}",
            "Agent's memory": f"{view.host.agent_rss_mib:.0f} MiB",
            "Server's memory": server,
            "Server restarts": str(view.counts.server_restarts),
            "Dropped messages": str(view.counts.dropped_messages),
            "While idle": "; ".join(map(_idle, view.idle_work)) or None,
            "Processor": f"{cpu.cores} x {cpu.machine} {' '.join(cpu.isa)}" if cpu else None,
            "Agent": view.status.agent_version,
            "Running since": _utc(view.started_at_s),
        }
    ) + "</section>"  # fmt: skip


def _idle(work: IdleWork) -> str:
    how = "at work" if work.working else f"waits: {work.because}"
    return f"{work.model} version {work.version}, {work.worked_s / 60:.0f} min done, {how}"


def _facts(facts: dict[str, str | None]) -> str:
    shown = [
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
        if value
    ]
    return f"<dl>{''.join(shown)}</dl>"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
