"""How large steps are: which ways a training tries before it begins, and which one it takes (pure).

Adam's first steps move every weight by the whole rate. Some models bear 1 % of that, some lose an
answer in twenty: which one this is, short runs tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Way:
    """`rate` is in parts of each tensor's root mean square."""

    rate: float
    weights: float = 1.0
    """The share of it for weights of 8 bits: there are a thousand times as many as biases and
    scales, and what they do at random adds up."""

    def told(self) -> str:
        """It, in words."""
        share = "" if self.weights == 1 else f" ({self.weights:g} of it for weights)"
        return f"rate {self.rate:g}{share}"


FLOAT = (Way(1e-4), Way(7e-4), Way(5e-3))
ROUNDED = (Way(1e-3, weights=0.03), Way(7e-4), Way(5e-3))
"""First mostly what has few values (PP-OCRv4's recogniser gains by that, and loses answers where
its weights move as fast); of a model that rounding spoiled the weights have to learn as well."""
USUAL = {False: Way(5e-4), True: ROUNDED[0]}
"""Where there is no time to try, by whether the model is rounded."""
LEAST = 0.2


def tried(*, rounded: bool) -> tuple[Way, ...]:
    """The ways to try, the most careful one first."""
    return ROUNDED if rounded else FLOAT


def best(scores: Mapping[Way, float]) -> Way:
    """The way that came farthest; `scores` are in parts of the error before: less is better.

    If all only made it worse, a smaller step may not.
    """
    found = min(scores, key=lambda way: scores[way])
    careful = next(iter(scores))
    return found if scores[found] < 1.0 else replace(careful, rate=LEAST * careful.rate)
