"""Running a model in stages gives what running it whole gives, whatever is kept between them."""

import numpy as np
import onnx
import pytest

from compression import runtime
from compression.calibration import taps
from compression.pruning import stages
from tests.compression import channel_graphs as small

ROWS = [
    {"x": np.random.default_rng(at).normal(size=(1, 3, 8, 8)).astype(np.float32)} for at in range(3)
]


def made(model: onnx.ModelProto, names: list[str]) -> list[dict[str, np.ndarray]]:
    session = taps.session(taps.outputs(model, names), threads=1)
    return [runtime.run(session, row) for row in ROWS]


@pytest.mark.parametrize("every", [1, 2, 99])
@pytest.mark.parametrize("room", [0, 2**30])
def test_stages_give_what_the_whole_model_gives(
    every: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "EVERY", every)
    monkeypatch.setattr(stages, "MOST_BYTES", room)
    model = small.residual()
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    stage = stages.depths(model, names)
    assert max(stage) == 4
    expected = made(model, names)
    staged = stages.Staged(model, stage, 1)
    for at in range(max(stage) + 1):
        mine = [
            node.output[0]
            for node, depth in zip(model.graph.node, stage, strict=True)
            if depth == at and node.output[0] in names
        ]
        for last in (False, True):  # the same stage may be asked about again
            found = list(staged.values(at, mine, enumerate(ROWS), count=3, last=last))
            assert [number for number, _ in found] == [0, 1, 2]
            for (_, values), whole in zip(found, expected, strict=True):
                for name in mine:
                    np.testing.assert_allclose(values[name], whole[name], rtol=1e-5, atol=1e-6)
    staged.close()
    staged.close()


def test_depths_count_what_lies_one_after_the_other() -> None:
    model = small.residual()
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    found = dict(
        zip((n.output[0] for n in model.graph.node), stages.depths(model, names), strict=True)
    )
    assert [found[name] for name in names] == [0, 1, 2, 3]
    assert set(stages.depths(model, [])) == {0}
