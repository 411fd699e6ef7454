"""On any graph that is wired from known blocks: cutting is the same as zeroing, to rounding."""

import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from compression import channels
from tests.compression import generated_channels
from tests.compression.masked import Oracle, random_units

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
CONTRACT = "reaches a graph output"


def reach(found: channels.ChannelMap) -> tuple[int, int]:
    """How many of the channels that are made can be cut, and how many stay beyond a contract."""
    made = {
        (group.id, slot.initializer, slot.axis): int((slot.units >= 0).sum())
        for group in found.groups
        for slot in group.producers
    }
    stays = sum(one.count for one in found.frozen if one.reason != CONTRACT)
    return sum(made.values()), stays


def judge(model: onnx.ModelProto, seed: int) -> tuple[int, int]:
    found = channels.find(model)
    oracle = Oracle(model, found)
    for share in (0.5, 0.8):
        assert oracle.gap(random_units(found, share=share, seed=seed)) <= 1e-4
    return reach(found)


def run(count: int) -> tuple[int, int, int]:
    seen = [0, 0, 0]

    @settings(max_examples=count, deadline=None, suppress_health_check=SLOW, database=None)
    @given(model=generated_channels.graphs())
    def every(model: onnx.ModelProto) -> None:
        cut, stays = judge(model, seed=len(model.graph.node))
        seen[:] = [seen[0] + 1, seen[1] + cut, seen[2] + stays]

    every()
    return seen[0], seen[1], seen[2]


def test_a_few_generated_graphs_are_cut_as_they_are_zeroed() -> None:
    _, cut, stays = run(25)
    assert cut > stays  # so few graphs tell no share: it is asked of hundreds


@pytest.mark.prove
def test_hundreds_of_generated_graphs_are_cut_as_they_are_zeroed() -> None:
    graphs, cut, stays = run(300)
    print(f"{graphs} graphs: {cut} of {cut + stays} channels can be cut")
    assert graphs >= 300
    assert cut >= 0.9 * (cut + stays)
