"""Layers, forecasts and the problem that is made of them: what is known exactly, and what bends."""

import itertools
import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression import channels, runtime
from compression.choosing import allocation, bounds, pricing
from compression.choosing.options import Facts, GroupFacts, Option, Priced
from compression.job import Budget, PassSpec
from compression.latency import forecasting, layers
from compression.latency.forecasting import Whole
from compression.latency.layers import Layer
from compression.latency.surfaces import Surface, half
from compression.pruning import surgery
from tests.simulators import models, world

STATIC = (PassSpec(name="quantization", parameters={"weights": "s8-7bit"}),)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, channels.ChannelMap]:
    path = models.cnn(tmp_path_factory.mktemp("cnn") / "a.onnx", width=32)
    model = onnx.load(path)
    sample = {name: array[:1] for name, array in models.sample_inputs(path, 1).items()}
    return model, channels.find(model, sample=sample)


def test_layers_alone_have_the_shapes_that_a_cut_model_has(
    cnn: tuple[onnx.ModelProto, channels.ChannelMap],
) -> None:
    model, found = cnn
    widths = {group.id: half(group) for group in found.groups}
    cut = surgery.cut(model, found, {name: range(width) for name, width in widths.items()})
    wanted = {tensor.name: tuple(tensor.dims) for tensor in cut.graph.initializer}
    seen = 0
    for layer in layers.find(found):
        alone = layers.alone(model, found, layer, widths)
        runtime.run(runtime.session(alone), layers.feeds(alone))
        for tensor in alone.graph.initializer:
            assert tuple(tensor.dims) == wanted[tensor.name]
            seen += 1
        held = sum(math.prod(tensor.dims) for tensor in alone.graph.initializer)
        assert layers.elements(found, layer, widths) == held
    assert seen >= 4


def test_a_layer_runs_in_integers_where_the_recipe_takes_it_and_stays_float_where_it_does_not(
    cnn: tuple[onnx.ModelProto, channels.ChannelMap],
) -> None:
    model, found = cnn
    first = layers.find(found)[0]
    alone = layers.alone(model, found, first, {})
    changed = layers.in_integers(alone, STATIC)
    assert changed is not None
    assert "DequantizeLinear" in [node.op_type for node in changed.graph.node]
    runtime.run(runtime.session(changed), layers.feeds(changed))
    left_out = PassSpec(
        name="quantization", parameters={**STATIC[0].parameters, "exclude": [first.name]}
    )
    assert layers.in_integers(alone, (left_out,)) is None


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_surface_goes_through_its_four_points(read: float, made: float, both: float) -> None:
    one = Surface(10.0, read, made, both, (0.5, 0.5))
    assert one.at(1, 1) == pytest.approx(10)
    assert one.at(0.5, 1) == pytest.approx(10 * read)
    assert one.at(1, 0.5) == pytest.approx(10 * made)
    assert one.at(0.5, 0.5) == pytest.approx(10 * both)
    assert one.at(0.1, 0.1) > 0


@given(st.floats(0, 0.2), st.floats(0.05, 2), st.lists(st.floats(0.5, 20), min_size=2, max_size=6))
def test_a_line_that_was_measured_is_found_again(
    fixed: float, slope: float, costs: list[float]
) -> None:
    fixed = min(fixed, 0.15 * slope * min(costs))  # what hangs on nothing is little
    # Without any spread of costs there is no telling an intercept.
    costs = [*costs, 2 * max(costs)]
    known = [Whole("float", cost, fixed + slope * cost) for cost in costs]
    for cost in (0.7, 3.0, 15.0):
        found = forecasting.ratio(cost, "float", known)
        assert found == pytest.approx(fixed + slope * cost, rel=0.01)
        assert forecasting.cost_for(found, "float", known) == pytest.approx(cost, rel=1e-6)


def test_what_was_measured_is_forecast_as_it_was_where_it_is_alone_in_its_family() -> None:
    known = [Whole("float", 10, 1.0), Whole("int8", 10, 0.7)]
    assert forecasting.ratio(10, "float", known) == pytest.approx(1.0)
    assert forecasting.ratio(10, "int8", known) == pytest.approx(0.7)
    assert 0 < forecasting.ratio(5, "int8", known) < 0.7


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=8))
def test_a_forecast_of_any_measurements_is_positive_and_grows(
    measured: list[tuple[float, float]],
) -> None:
    known = [Whole("float", cost, ratio) for cost, ratio in measured]
    found = [forecasting.ratio(cost, "float", known) for cost in (0.1, 1, 10, 100)]
    assert all(math.isfinite(one) and one > 0 for one in found)
    assert found == sorted(found)


def facts(*, integers: bool, crossing: float = 0.0) -> Facts:
    """Three layers in a row: the first makes group 0, the second group 1, the last neither."""
    rows = (
        Layer(0, "a", None, 0, 100), Layer(1, "b", 0, 1, 300), Layer(2, "c", 1, None, 100),
    )  # fmt: skip
    kinds = (False, True) if integers else (False,)
    surfaces = {
        (number, kind): Surface(cost * (0.5 if kind else 1.0), *left)
        for kind in kinds
        for number, (cost, left) in enumerate([
            (10.0, (1, 0.5, 0.5)), (30.0, (0.5, 0.5, 0.25)), (10.0, (0.5, 1, 0.5)),
        ])
    }  # fmt: skip
    groups = tuple(
        GroupFacts(f"g{n}", 64, tuple(range(64, 7, -8)), (0.01, 0.04, 0.2), (0.25, 0.5, 0.75), 0.4)
        for n in range(2)
    )
    whole = {False: 60.0, True: 35.0} if integers else {False: 60.0}
    return Facts(
        rows, groups, surfaces, elements={0: 100, 1: 300, 2: 100}, values={0: 50, 1: 50, 2: 10},
        whole=whole, rounding_loss=0.001, crossing=crossing,
    )  # fmt: skip


def chosen(priced: Priced, **wanted: tuple[int, bool]) -> tuple[int, ...]:
    """Options by group (`rest` for parts without one)."""
    found = []
    for group, options in zip(priced.groups, priced.options, strict=True):
        width, integers = wanted.get(group or "rest", (64 if group else 1, False))
        found.append(options.index(Option(width, integers)))
    return tuple(found)


def test_the_whole_model_costs_what_was_measured_of_it() -> None:
    priced = pricing.price(facts(integers=True))
    assert priced.problem.cost(chosen(priced)).time == pytest.approx(60)
    everything = chosen(priced, g0=(64, True), g1=(64, True), rest=(1, True))
    in_integers = priced.problem.cost(everything)
    assert in_integers.time == pytest.approx(35)
    assert in_integers.error == pytest.approx(0.001)
    assert in_integers.size == 500


def test_a_layer_between_two_cut_groups_shrinks_with_both() -> None:
    priced = pricing.price(facts(integers=False))
    before = priced.problem.cost(chosen(priced))
    both = priced.problem.cost(chosen(priced, g0=(24, False), g1=(24, False)))
    one = priced.problem.cost(chosen(priced, g0=(24, False)))
    assert priced.widths(chosen(priced, g0=(24, False))) == {"g0": 24}
    assert before.time > one.time > both.time
    share = 24 / 64
    assert both.size == pytest.approx(100 * share + 300 * share**2 + 100 * share)
    assert both.error == pytest.approx(2 * one.error)


def test_a_change_of_precision_costs_a_crossing() -> None:
    without = pricing.price(facts(integers=True))
    dear = pricing.price(facts(integers=True, crossing=0.1))
    mixed = {"g0": (64, True), "g1": (64, False), "rest": (1, False)}
    apart = dear.problem.cost(chosen(dear, **mixed)).time
    assert apart - without.problem.cost(chosen(without, **mixed)).time == pytest.approx(5)
    assert dear.floats(chosen(dear, **mixed)) == (1, 2)


def test_integers_that_are_slower_are_given_back() -> None:
    slow = facts(integers=True)
    surfaces = {
        key: Surface(one.whole * (3 if key[1] and key[0] == 1 else 1), one.read, one.made, one.both)
        for key, one in slow.surfaces.items()
    }
    slow = Facts(**{**slow.__dict__, "surfaces": surfaces, "whole": {False: 60.0}})
    priced = pricing.price(slow)
    least = min(priced.problem.cost(one).time for one in _every(priced))
    found = allocation.cheapest(priced.problem, time=least * 1.02)
    assert found is not None
    assert 1 in priced.floats(found.options)


def _every(priced: Priced) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(one)) for one in priced.options)))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.0))
def test_what_is_chosen_is_within_the_bound_and_loses_least(share: float) -> None:
    priced = pricing.price(facts(integers=True, crossing=0.01))
    found = allocation.cheapest(priced.problem, time=60 * share)
    costs = [priced.problem.cost(one) for one in _every(priced)]
    # Steps of time may leave out what fits to the last per cent.
    surely = [one.error for one in costs if one.time <= 0.99 * 60 * share]
    assert found is not None or not surely
    if found is not None:
        assert found.time <= 60 * share
        assert found.error <= min([*surely, found.error])


def test_groups_of_which_nothing_is_known_stay_whole() -> None:
    known = facts(integers=False)
    silent = [GroupFacts(g.id, g.width, g.steps, (), (), g.spread) for g in known.groups]
    priced = pricing.price(Facts(**{**known.__dict__, "groups": tuple(silent)}))
    assert all(len({one.width for one in options}) == 1 for options in priced.options)


def test_a_budget_is_a_share_of_the_time_and_bytes_with_a_margin_for_noise() -> None:
    seen = world.measured(
        noise=0.03, original_latency_p95_ms=20.0, original_size_mib=10.0,
        original_cpu_ms_per_inference=10.0,
    )  # fmt: skip
    assert bounds.of(Budget(), seen, cores=2) == bounds.Bounds()
    found = bounds.of(Budget(latency_p95_ms=10, size_ratio=0.5), seen, cores=2)
    assert found.ratio == pytest.approx(0.5 * 0.94)
    assert found.size_bytes == 5 * 2**20
    share = bounds.of(Budget(cpu_share=0.1, request_rate_hz=50), seen, cores=2)
    assert share.ratio == pytest.approx(0.4 * 0.94)
    assert np.isfinite(share.ratio or np.nan)
