"""A StatusView as Prometheus metrics, in the text format or OpenMetrics, as the scraper asks.

Names follow the Prometheus naming practices: one prefix, base units, `_total` for counters.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from agent.telemetry.view import ModelTotals, StatusView
from agent.version import __version__

_MIB = 2**20
_MODEL = ("model", "version")
QUANTILES = (0.5, 0.95, 0.99)
# name, help, field of ModelTotals
_COUNTERS = (
    ("trimtab_inference_requests", "Requests answered, failures among them.", "requests"),
    ("trimtab_inference_failures", "Requests that failed.", "failures"),
    ("trimtab_inference_cpu_seconds", "CPU time of the server, by busy time.", "cpu_seconds"),
)


class _View(Collector):
    def __init__(self, view: StatusView):
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """The view's metric families."""
        yield from _of_models(self._view.totals)
        yield from _of_energy(self._view)
        yield from _of_deployments(self._view)
        yield from _of_idle_work(self._view)
        yield from _of_process(self._view)


def exposition(view: StatusView, *, accept: str = "") -> tuple[bytes, str]:
    """The metrics and their content type, by the Accept header of the scraper."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_View(view))
    encode, content_type = choose_encoder(accept)
    return bytes(encode(registry)), str(content_type)


def _of_models(totals: Iterable[ModelTotals]) -> Iterator[Metric]:
    rows = [((total.name, str(total.version)), total) for total in totals]
    for name, text, attribute in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=_MODEL)
        for labels, total in rows:
            counter.add_metric(labels, getattr(total, attribute))
        yield counter
    name = "trimtab_inference_duration_seconds"
    summary = SummaryMetricFamily(name, "Time to answer, within 1 %.", labels=_MODEL)
    for labels, total in rows:
        summary.add_metric(labels, total.latency_ms.count, total.latency_ms.sum / 1000)
        for q in QUANTILES:
            value = total.latency_ms.quantile(q)
            if value is not None:
                tags = {**dict(zip(_MODEL, labels, strict=True)), "quantile": str(q)}
                summary.add_sample(name, tags, value / 1000)
    yield summary


def _of_energy(view: StatusView) -> Iterator[Metric]:
    kind = view.energy_method.partition(":")[0]
    joules = CounterMetricFamily(
        "trimtab_energy_joules", "Energy above idle.", labels=(*_MODEL, "method")
    )
    for total in view.totals:
        joules.add_metric((total.name, str(total.version), kind), total.joules)
    yield joules
    info = InfoMetricFamily("trimtab_energy_method", "How the energy figures are made.")
    info.add_metric(
        (), {"method": kind, "description": view.energy_method,
             "relative_uncertainty": f"{view.relative_uncertainty:g}"},
    )  # fmt: skip
    yield info


def _of_deployments(view: StatusView) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "trimtab_deployment_state", "1 for the state that a model is in.", labels=(*_MODEL, "state")
    )
    meets = GaugeMetricFamily(
        "trimtab_model_meets_budget", "1: what serves keeps its budget.", labels=_MODEL
    )
    for model in view.status.models:
        state.add_metric((model.name, str(model.version), model.state), 1)
        if model.meets_budget is not None:
            meets.add_metric((model.name, str(model.version)), int(model.meets_budget))
    yield state
    yield meets


def _of_idle_work(view: StatusView) -> Iterator[Metric]:
    spent = GaugeMetricFamily(
        "trimtab_idle_work_seconds", "Time of work that waits for an idle device, since it began.",
        labels=(*_MODEL, "how"),
    )  # fmt: skip
    for work in view.idle_work:
        for how, seconds in (("worked", work.worked_s), ("waited", work.waited_s)):
            spent.add_metric((work.model, str(work.version), how), seconds)
    yield spent


def _of_process(view: StatusView) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "trimtab_memory_resident_bytes", "Resident memory.", labels=("process",)
    )
    memory.add_metric(("agent",), view.host.agent_rss_mib * _MIB)
    if view.server_rss_mib is not None:
        memory.add_metric(("server",), view.server_rss_mib * _MIB)
    yield memory
    available = view.host.memory_available_mib * _MIB
    for name, text, value in (
        ("trimtab_memory_available_bytes", "Memory free to take.", available),
        ("trimtab_cpu_busy_ratio", "Share of usable CPUs busy, by all.", view.host.cpu_share),
        ("trimtab_ready", "1: every model serves.", int(view.status.ready)),
        ("trimtab_start_time_seconds", "When the agent started.", view.started_at_s),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    for name, text, count in (
        ("trimtab_server_restarts", "Restarts of the server.", view.counts.server_restarts),
        ("trimtab_messages_dropped", "Messages that found no room.", view.counts.dropped_messages),
    ):
        yield CounterMetricFamily(name, text, value=count)
    build = InfoMetricFamily("trimtab_build", "What runs here.")
    build.add_metric((), {"version": __version__, "device": view.status.device})
    yield build
