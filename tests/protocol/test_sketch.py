"""Sketches survive the wire and merge without loss."""

from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.sketch import Quantiles, Sketch, merged

VALUES = st.lists(st.floats(0.0, 1e6, allow_subnormal=False), max_size=200)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(VALUES)
def test_the_wire_changes_nothing(values: list[float]) -> None:
    sent = sketch_of(values).freeze()
    back = Sketch.thaw(Quantiles.model_validate_json(sent.to_json())).freeze()
    assert back == sent
    assert sent.count == len(values)


@given(VALUES, VALUES)
def test_merging_is_as_if_one_sketch_had_seen_all(left: list[float], right: list[float]) -> None:
    parts = merged([sketch_of(left).freeze(), sketch_of(right).freeze()])
    whole = sketch_of(left + right).freeze()
    assert (parts.keys, parts.counts, parts.zeros) == (whole.keys, whole.counts, whole.zeros)
    assert (parts.min, parts.max) == (whole.min, whole.max)


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_one_per_cent(values: list[float], q: float) -> None:
    found = sketch_of(values).freeze().quantile(q)
    exact = sorted(values)[int(q * (len(values) - 1))]
    assert found is not None
    assert abs(found - exact) <= 0.0101 * exact


def test_an_empty_sketch_has_no_quantile() -> None:
    assert Quantiles().quantile(0.5) is None
