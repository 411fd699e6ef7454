"""The agent's port over a real socket: probes, metrics that a scraper reads, a page for people."""

import asyncio
import dataclasses
import http.client
import json
import signal
import socket
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import Unavailable
from agent.protocol.events import IdleWork, Live, Status
from agent.protocol.sketch import Sketch
from agent.telemetry import metrics, page, status_page
from agent.telemetry.view import Counts, HostFigures, ModelTotals, StatusView


def _view(**status: Any) -> StatusView:
    sketch = Sketch()
    for value in range(1, 101):
        sketch.add(float(value))
    live = Live(
        name="digits", version=3, state="LIVE", sha256="ab" * 32, variant="int8", meets_budget=True
    )
    given = {
        "device": "dev-1",
        "online": True,
        "at_s": 0.0,
        "agent_version": "0.1",
        "ready": True,
        "models": (live,),
    }
    return StatusView(
        status=Status(**(given | status)),
        started_at_s=5.0,
        host=HostFigures(agent_rss_mib=32.0, memory_available_mib=512.0, cpu_share=0.25),
        counts=Counts(server_restarts=2, dropped_messages=0),
        totals=(ModelTotals("digits", 3, 100, 4, 2.5, 5.0, sketch.freeze()),),
        server_rss_mib=None,
        energy_method="modelled: CPU seconds x 2 J (a test), +-25%",
        relative_uncertainty=0.25,
    )  # fmt: skip


class Port:
    """A served page, whose view a test may change."""

    def __init__(self, number: int) -> None:
        self.number, self.view = number, _view()

    async def get(
        self, path: str, *, method: str = "GET", accept: str = "*/*"
    ) -> tuple[http.client.HTTPResponse, bytes]:
        def ask() -> tuple[http.client.HTTPResponse, bytes]:
            line = http.client.HTTPConnection("127.0.0.1", self.number, timeout=10)
            try:
                line.request(method, path, headers={"Accept": accept})
                response = line.getresponse()
                return response, response.read()
            finally:
                line.close()

        return await asyncio.to_thread(ask)


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    listener = status_page.bind("127.0.0.1", 0)
    port = Port(listener.getsockname()[1])
    task = asyncio.create_task(status_page.serve(listener, lambda: port.view))
    yield port
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port.number), timeout=5)


async def test_live_answers_as_long_as_the_loop_turns(port: Port) -> None:
    port.view = _view(ready=False)
    response, body = await port.get("/live")
    assert (response.status, body) == (200, b"live\n")


async def test_ready_says_yes_in_words_and_in_json(port: Port) -> None:
    assert (await port.get("/ready"))[1] == b"ready\n"
    response, body = await port.get("/ready", accept="application/json")
    assert (response.status, json.loads(body)) == (200, {"ready": True})


async def test_not_ready_is_503_with_the_reason_in_both_forms(port: Port) -> None:
    port.view = _view(ready=False, not_ready_because="digits is COMPRESSING")
    response, body = await port.get("/ready")
    assert (response.status, body) == (503, b"not ready: digits is COMPRESSING\n")
    response, body = await port.get("/ready", accept="application/json")
    assert response.status == 503
    assert json.loads(body) == {"ready": False, "because": "digits is COMPRESSING"}


async def test_metrics_parse_and_carry_the_figures(port: Port) -> None:
    response, body = await port.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    samples = {
        (s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples
    }
    model = (("model", "digits"), ("version", "3"))
    assert samples["trimtab_inference_requests_total", *model] == 100
    assert samples["trimtab_inference_failures_total", *model] == 4
    assert samples["trimtab_inference_duration_seconds_count", *model] == 100
    assert samples["trimtab_inference_duration_seconds_sum", *model] == pytest.approx(5.05)
    p95 = samples["trimtab_inference_duration_seconds", model[0], ("quantile", "0.95"), model[1]]
    assert p95 == pytest.approx(0.095, rel=0.02)
    assert samples["trimtab_energy_joules_total", ("method", "modelled"), *model] == 5.0
    assert samples["trimtab_memory_resident_bytes", ("process", "agent")] == 32 * 2**20
    assert ("trimtab_memory_resident_bytes", ("process", "server")) not in samples
    assert samples["trimtab_server_restarts_total",] == 2
    assert samples["trimtab_deployment_state", model[0], ("state", "LIVE"), model[1]] == 1


async def test_openmetrics_is_given_to_who_asks_and_passes_its_strict_parser(port: Port) -> None:
    response, body = await port.get(
        "/metrics", accept="application/openmetrics-text; version=1.0.0"
    )
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics.text_string_to_metric_families(body.decode())}
    assert {"trimtab_inference_duration_seconds", "trimtab_build", "trimtab_ready"} <= names


def test_a_model_without_requests_has_no_quantiles_but_counts_zero() -> None:
    view = dataclasses.replace(_view(), totals=(ModelTotals("new", 1),))
    text = metrics.exposition(view)[0].decode()
    assert 'trimtab_inference_duration_seconds_count{model="new",version="1"} 0.0' in text
    assert 'quantile="' not in text


class _Outside(HTMLParser):
    """Collects what a page would load, and every element that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag in {"script", "link", "img", "iframe", "b"} or "src" in names:
            self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


async def test_the_page_shows_the_models_and_loads_nothing_from_outside(port: Port) -> None:
    response, body = await port.get("/")
    seen = _Outside()
    seen.feed(body.decode())
    assert seen.found == []
    assert "default-src 'none'" in response.headers["content-security-policy"]
    text = " ".join(seen.text)
    for shown in ("dev-1", "digits", "version 3", "int8", "ab" * 6, "100", "modelled", "512 MiB"):
        assert shown in text
    assert b'name="viewport"' in body


def test_what_comes_from_outside_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script><b>"
    live = Live(name=evil, version=1, state=evil, variant=evil, message=evil, meets_budget=False)
    seen = _Outside()
    seen.feed(
        page.render(
            _view(device=evil, models=(live,), ready=False, not_ready_because=evil)
        ).decode()
    )
    assert seen.found == []
    assert "".join(seen.text).count(evil) >= 6


async def test_an_unknown_path_names_the_known_ones(port: Port) -> None:
    response, body = await port.get("/wp-login.php")
    assert response.status == 404
    assert b"/ready, /metrics" in body


async def test_another_method_is_refused_and_head_has_no_body(port: Port) -> None:
    response, _ = await port.get("/ready", method="POST")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    response, body = await port.get("/", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["content-length"]) > 100


async def test_bytes_that_are_not_http_do_not_stop_the_port(port: Port) -> None:
    for junk in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 100, b"\0" * 5000):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
        writer.write(junk)
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
    assert (await port.get("/live"))[0].status == 200


async def test_a_view_that_fails_is_a_500_and_the_port_stays(port: Port) -> None:
    good, port.view = port.view, None  # type: ignore[assignment] # a bug in the agent
    assert (await port.get("/ready"))[0].status == 500
    port.view = good
    assert (await port.get("/ready"))[0].status == 200


async def test_the_agents_signal_handlers_are_left_alone(port: Port) -> None:
    assert (await port.get("/live"))[0].status == 200
    for number in (signal.SIGTERM, signal.SIGINT):
        assert "handle_exit" not in repr(signal.getsignal(number))  # uvicorn's own


def test_a_busy_port_is_named() -> None:
    with status_page.bind("127.0.0.1", 0) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"cannot listen on 127.0.0.1:{number}: .*in use"):
            status_page.bind("127.0.0.1", number)


def test_an_address_of_another_device_is_named() -> None:
    with pytest.raises(Unavailable, match=r"cannot listen on 192.0.2.1:0"):
        status_page.bind("192.0.2.1", 0)


def test_work_that_waits_for_an_idle_device_is_shown_with_its_reason() -> None:
    work = IdleWork(
        model="digits", version=3, working=False, because="it is <hot>", worked_s=90, waited_s=30,
        pauses=2,
    )  # fmt: skip
    view = dataclasses.replace(_view(), idle_work=(work,))
    assert b"digits version 3, 2 min done, waits: it is &lt;hot&gt;" in page.render(view)
    assert b"While idle" not in page.render(_view())
    text, _ = metrics.exposition(view)
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    spent = families["trimtab_idle_work_seconds"].samples
    assert {sample.labels["how"]: sample.value for sample in spent} == {"worked": 90, "waited": 30}
