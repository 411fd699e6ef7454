"""How far a student's tensors are from the original's, by what they mean (torch).

Classes: the divergence of distributions softened by a temperature (Hinton et al. 2015, "Distilling
the knowledge in a neural network", section 2), times its square, as there. Odds: cross-entropy with
the original's own probability. Directions: one less the cosine, and a tenth of the values. Values:
the error's power over the signal's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from compression.recovery.aims import Aim, Way

TEMPERATURE = 2.0
_LEAST = 1e-8


def of(aim: Aim, wanted: Any, found: Any) -> Any:
    """The loss of one aim: a scalar with a gradient; the mean over all places."""
    return _LOSSES[aim.way](aim, wanted, found)


def values(wanted: Any, found: Any) -> Any:
    """The error's power over the variance of what is wanted."""
    power = (wanted - wanted.mean()).square().mean().clamp(min=1e-12)
    return (found - wanted).square().mean() / power


def _classes(aim: Aim, wanted: Any, found: Any) -> Any:
    axis = aim.axis
    if aim.direct and _shares(wanted, axis):
        p, q = wanted.clamp(min=_LEAST), found.clamp(min=_LEAST)
        return (p * (p.log() - q.log())).sum(axis).mean()
    p = functional.log_softmax(wanted / TEMPERATURE, axis)
    q = functional.log_softmax(found / TEMPERATURE, axis)
    return TEMPERATURE**2 * (p.exp() * (p - q)).sum(axis).mean()


def _odds(aim: Aim, wanted: Any, found: Any) -> Any:
    if aim.direct:
        if not bool(((wanted >= 0) & (wanted <= 1)).all()):
            return values(wanted, found)
        return functional.binary_cross_entropy(found.clamp(_LEAST, 1 - 1e-7), wanted)
    target = torch.sigmoid(wanted)
    return functional.binary_cross_entropy_with_logits(found, target)


def _shares(wanted: Any, axis: int) -> bool:
    """Whether these are probabilities already."""
    sums = wanted.sum(axis)
    return bool((wanted >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all())


def _direction(aim: Aim, wanted: Any, found: Any) -> Any:
    cosine = functional.cosine_similarity(wanted, found, dim=aim.axis)
    return (1 - cosine).mean() + 0.1 * values(wanted, found)


def _values(aim: Aim, wanted: Any, found: Any) -> Any:
    del aim
    return values(wanted, found)


_LOSSES: dict[Way, Callable[[Aim, Any, Any], Any]] = {
    "classes": _classes,
    "odds": _odds,
    "direction": _direction,
    "values": _values,
}
