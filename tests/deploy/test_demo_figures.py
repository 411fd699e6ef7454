"""What the demo computes from answers and telemetry, worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.events import ModelTelemetry, Telemetry
from agent.protocol.sketch import Quantiles, Sketch
from compression.findings import Agreement, Measurement
from deploy.demo import figures

SHA_A, SHA_B = "a" * 64, "b" * 64


def sketch(*values: float) -> Quantiles:
    made = Sketch()
    for value in values:
        made.add(value)
    return made.freeze()


def batch(sequence: int, *models: ModelTelemetry) -> Telemetry:
    return Telemetry(
        device="demo", from_s=0, to_s=1, sequence=sequence, agent_rss_mib=1, server_rss_mib=1,
        memory_available_mib=1, cpu_share=0, server_restarts=0, dropped_messages=0, models=models,
    )  # fmt: skip


def part(sha256: str, requests: int, *, joules: float | None = 1.0) -> ModelTelemetry:
    return ModelTelemetry(
        name="m", version=1, sha256=sha256, requests=requests, failures=0,
        latency_ms=sketch(*[10.0] * requests), cpu_seconds=0.5, joules=joules,
        joules_per_inference=None, energy_method="by hand",
    )  # fmt: skip


def measurement() -> Measurement:
    agreement = Agreement(
        value=0.99, low=0.97, high=1.0, kind="logits", output="y", samples=100, split="held-out"
    )
    return Measurement(
        latency_p50_ms=9, latency_p95_ms=11, original_latency_p50_ms=10,
        original_latency_p95_ms=12, latency_ratio=0.9, ratio_basis="wall", wall_ratio=0.9,
        cpu_ratio=0.9, noise=0.02, cpu_ms_per_inference=9, original_cpu_ms_per_inference=10,
        peak_memory_mib=8, original_peak_memory_mib=16, agreement=agreement,
        size_mib=1_000_000 / 2**20, original_size_mib=4_000_000 / 2**20, sqnr_db={"y": 30.0},
        threads=1, samples=100, rounds=40, method={},
    )  # fmt: skip


def test_wilsons_interval_is_the_textbooks() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263 and 15 of 148.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = figures.proportion([True] * hits + [False] * (count - hits))
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_share_lies_in_its_interval_and_the_interval_in_0_to_1(truths: list[bool]) -> None:
    found = figures.proportion(truths)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_no_cases_have_no_share() -> None:
    with pytest.raises(ValueError, match="cannot give the share of no cases"):
        figures.proportion([])


def test_quantiles_are_values_that_were_seen() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert figures.quantile(values, 0.5) == 3.0
    assert figures.quantile(values, 0.95) == 5.0
    assert figures.quantile([7.0], 0.0) == 7.0


def test_an_extension_is_right_when_one_of_its_meanings_is_predicted() -> None:
    meanings = {"pl": {"perl", "prolog"}, "py": {"python"}}
    assert figures.right(["prolog", "perl", "perl"], ["pl", "pl", "py"], meanings) == [
        True,
        True,
        False,
    ]


def test_the_commonest_extensions_come_first_with_the_hits_of_each_model() -> None:
    rows = figures.by_extension(
        ["a", "b", "b", "c", "c"],
        [[True] * 5, [True, False, False, True, False]],
        most=2,
    )
    assert [(row.extension, row.count, row.hits) for row in rows] == [
        ("b", 2, (2, 0)),
        ("c", 2, (2, 1)),
    ]


def test_telemetry_of_one_file_adds_up_and_a_repeated_batch_counts_once() -> None:
    batches = [
        batch(1, part(SHA_A, 10), part(SHA_B, 1)),
        batch(2, part(SHA_A, 30)),
        batch(2, part(SHA_A, 30)),
    ]
    found = figures.served(batches, model="m", sha256=SHA_A)
    assert found.requests == 40
    assert found.joules_per_inference == pytest.approx(2.0 / 40)
    assert found.cpu_ms_per_inference == pytest.approx(1000 * 1.0 / 40)
    assert found.latency_ms.count == 40
    assert found.energy_method == "by hand"


def test_energy_that_was_not_measured_all_the_time_is_not_given() -> None:
    batches = [batch(1, part(SHA_A, 10)), batch(2, part(SHA_A, 10, joules=None))]
    assert figures.served(batches, model="m", sha256=SHA_A).joules_per_inference is None
    assert figures.served([], model="m", sha256=SHA_A).joules_per_inference is None
