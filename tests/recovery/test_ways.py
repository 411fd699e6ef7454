"""Which size of steps a training takes: that which came farthest, or a smaller one than all."""

import pytest
import torch

from compression.recovery import ways
from compression.recovery.optimizer import Adam
from compression.recovery.parameters import Kind, Leaf
from compression.recovery.ways import Way

CAREFUL, BOLD = Way(1e-3, weights=0.03), Way(5e-3)


@pytest.mark.parametrize(
    ("careful", "bold", "wanted"),
    [
        (0.8, 0.9, CAREFUL),
        (0.9, 0.8, BOLD),
        (1.4, 0.99, BOLD),
        (1.0, 1.0, Way(ways.LEAST * 1e-3, weights=0.03)),
        (1.2, float("inf"), Way(ways.LEAST * 1e-3, weights=0.03)),
    ],
)
def test_the_way_that_came_farthest_is_taken(careful: float, bold: float, wanted: Way) -> None:
    assert ways.best({CAREFUL: careful, BOLD: bold}) == wanted


@pytest.mark.parametrize("rounded", [False, True])
def test_careful_ways_are_tried_first(rounded: bool) -> None:
    moved = [way.rate * way.weights for way in ways.tried(rounded=rounded)]
    assert moved == sorted(moved)
    assert ways.USUAL[rounded].rate * ways.USUAL[rounded].weights < moved[1]


def test_weights_of_8_bits_move_by_their_share_and_all_else_by_the_rate() -> None:
    tensors = {"weights": torch.full((4,), 20.0), "bias": torch.full((4,), 20.0)}
    kinds = {
        name: Leaf(kind, tensors[name], (name,), base=torch.ones(4))
        for name, kind in (("weights", Kind.ROUNDED), ("bias", Kind.BIAS))
    }
    adam = Adam(tensors, kinds)
    for tensor in tensors.values():
        tensor.grad = torch.ones(4)
    adam.step(0.01, weights=0.1)
    assert tensors["bias"].tolist() == pytest.approx([20.0 - 0.2] * 4, rel=1e-4)
    assert tensors["weights"].tolist() == pytest.approx([20.0 - 0.02] * 4, rel=1e-4)
