"""Adam with steps in parts of each tensor's own size (Kingma & Ba 2015; Shazeer & Stern 2018).

Weights of a graph differ by orders of magnitude: one rate for all would be too large for some. So a
step of `rate` moves a tensor by about that share of its root mean square ("Adafactor", section 8).
"""

from collections.abc import Mapping
from typing import Any

import torch

from compression.recovery.parameters import Kind, Leaf

_FIRST, _SECOND, _EPSILON = 0.9, 0.99, 1e-12
LEAST_SIZE = 1e-2
"""Of a float tensor: biases often begin at nothing."""
OF_SCALES = 0.25
"""Scales of a whole tensor move all of its values at once."""


class Adam:
    """The moments of all leaves. `step` follows backward passes that added up gradients."""

    def __init__(self, leaves: Mapping[str, Any], kinds: Mapping[str, Leaf]) -> None:
        self._leaves = dict(leaves)
        self._sizes = {name: _size(one, kinds.get(name)) for name, one in leaves.items()}
        self._rounded = {name for name, leaf in kinds.items() if leaf.kind is Kind.ROUNDED}
        self.steps = 0
        self.first = {name: torch.zeros_like(one) for name, one in leaves.items()}
        self.second = {name: torch.zeros_like(one) for name, one in leaves.items()}

    def step(self, rate: float, *, weights: float = 1.0) -> None:
        """Take one step by the gradients and clear them; of weights of 8 bits that share of it."""
        self.steps += 1
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                if leaf.grad is None:
                    continue
                m, v, g = self.first[name], self.second[name], leaf.grad
                m.mul_(_FIRST).add_(g, alpha=1 - _FIRST)
                v.mul_(_SECOND).addcmul_(g, g, value=1 - _SECOND)
                root = (v / (1 - _SECOND**self.steps)).sqrt_().add_(_EPSILON)
                share = weights if name in self._rounded else 1.0
                size = share * rate * self._sizes[name] / (1 - _FIRST**self.steps)
                leaf.addcdiv_(m, root, value=-size)
                leaf.grad = None

    def sound(self) -> bool:
        """Whether all gradients are finite."""
        return all(
            bool(torch.isfinite(leaf.grad).all())
            for leaf in self._leaves.values()
            if leaf.grad is not None
        )

    def clear(self) -> None:
        """Forget the gradients."""
        for leaf in self._leaves.values():
            leaf.grad = None


def _size(tensor: Any, leaf: Leaf | None) -> float:
    if leaf is not None and leaf.kind is Kind.SCALE:
        return OF_SCALES
    size = float(tensor.detach().square().mean().sqrt())
    least = 1.0 if leaf is not None and leaf.kind is Kind.ROUNDED else LEAST_SIZE
    return max(size, least)
