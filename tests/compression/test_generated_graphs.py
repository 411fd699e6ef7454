"""Whatever is wired from known operators becomes regular: accepted, equal, and never a crash."""

import tempfile
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from compression import graph, runtime
from compression.errors import BadModel
from compression.regular import equality
from tests.compression.generated import graphs

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def judge(model: onnx.ModelProto) -> bool:
    """Whether it is accepted; what is accepted must answer the same on inputs unseen before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(model, path)
        try:
            regular = graph.regular(path)
        except BadModel as error:
            print("refused:", error)
            return False
        oracle = equality.ask(path, sample=None, seed=7, tolerance=equality.HALF_TOLERANCE)
        assert len(oracle.cases) == 2
        changed = Path(folder) / "changed.onnx"
        onnx.save(regular, changed)
        assert oracle.accepts(changed)
    assert [v.name for v in regular.graph.input] == [v.name for v in model.graph.input]
    assert [v.name for v in regular.graph.output] == [v.name for v in model.graph.output]
    assert [(one.key, one.value) for one in regular.metadata_props] == [("labels", "a,b")]
    assert runtime.inputs(runtime.session(regular)) == runtime.inputs(runtime.session(model))
    return True


def run(count: int) -> tuple[int, int]:
    seen = {True: 0, False: 0}

    @settings(max_examples=count, deadline=None, suppress_health_check=SLOW, database=None)
    @given(model=graphs())
    def every(model: onnx.ModelProto) -> None:
        seen[judge(model)] += 1

    every()
    return seen[True], seen[False]


def test_a_few_generated_graphs_become_regular() -> None:
    accepted, refused = run(40)
    assert accepted >= 0.95 * (accepted + refused)


@pytest.mark.prove
def test_hundreds_of_generated_graphs_become_regular() -> None:
    accepted, refused = run(400)
    print(f"{accepted} accepted, {refused} refused of {accepted + refused}")
    assert accepted + refused >= 300
    assert accepted >= 0.95 * (accepted + refused)
