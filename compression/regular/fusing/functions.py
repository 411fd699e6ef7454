"""The functions that exporters write out, and the cheapest way to write each (a table, pure).

A function is known by its values. Where its parameters can be read off them, it is written anew
and compared: so no spelling has to be foreseen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
STEP = 1 / 32
NEAR = 64.0


@dataclass(frozen=True)
class Step:
    """One node of a replacement: reads `x`, constants (numbers) and earlier steps, by index."""

    operator: str
    inputs: tuple[str | int | float, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    since: int = 6
    """The first opset that has it so."""


Steps = tuple[Step, ...]
"""The last step makes the result; without any, it is `x` itself."""


def grid() -> Values:
    """Where functions are compared: finely about zero, then by powers of ten, then beyond.

    Finite values end at 1e18, whose square float32 still holds: behind that, what overflows on
    the way is a matter of spelling.
    """
    fine = np.arange(-NEAR, NEAR + STEP, STEP)
    small = 10.0 ** np.arange(-38, 2, 0.5)
    large = 10.0 ** np.arange(1.9, 18, 0.3)
    bent = np.array([6.0, 3.0, 2.5, 1.0, 20.0]) * (1 + 1e-3)
    beyond = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 88.0, -88.0, 104.0, -104.0])
    parts = (fine, small, -small, large, -large, bent, -bent, beyond)
    return np.concatenate(parts).astype(np.float32)


def same(x: Values, wanted: Values, got: Values) -> bool:
    """Whether two functions are equal to the rounding of float32, at each point of a grid.

    The kernels of the runtime are themselves a few roundings away from the truth, measured
    against what they read (its Sigmoid ends at 1e-8, not at 0): so is the bound.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(wanted.astype(np.float64) - got.astype(np.float64))
        size = np.maximum(np.abs(x.astype(np.float64)), np.abs(wanted.astype(np.float64)))
        close = gap <= ROUNDING * np.maximum(size, 1.0)
    known = np.isfinite(wanted)
    exactly = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    return bool(np.where(known, close, exactly).all())


ROUNDING = 2.0**-20
"""Eight steps of float32."""
_FIRST = 61
"""A function without parameters is compared at every so many points before all."""
_SPARSE = 4
"""Guessing takes every fourth point; checking takes all."""


def guesses(x: Values, y: Values, table: "Table") -> Iterator[tuple[str, Steps]]:
    """Ways to write the function y(x), each to be checked by running it; the cheapest first."""
    finite = np.isfinite(x) & np.isfinite(y) & (np.abs(x) <= NEAR)
    if finite.sum() < x.size // 2:
        return
    points, values = x[finite].astype(np.float64), y[finite].astype(np.float64)
    order = np.argsort(points, kind="stable")[::-_SPARSE][::-1]  # the last one stays
    order = order if order[0] == np.argmin(points) else np.append(np.argmin(points), order)
    for name, guess in table:
        steps = guess(points[order], values[order])
        if steps is not None:
            yield name, steps


def _identity(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    return () if np.allclose(x, y, rtol=1e-6, atol=1e-6) else None


def _affine(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    slope = _nice((y[-1] - y[0]) / (x[-1] - x[0]))
    shift = _nice(float(np.interp(0.0, x, y)))
    if not slope or not np.allclose(slope * x + shift, y, rtol=1e-5, atol=1e-5):
        return None
    scaled = (Step("Mul", ("x", slope)),) if slope != 1 else ()
    if shift == 0:
        return scaled
    return (*scaled, Step("Add", (0 if scaled else "x", shift)))


def _clip(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    low, high = float(y[0]), float(y[-1])
    if low == 0 and high == x[-1]:
        return (Step("Relu", ("x",)),)
    if low >= high or not np.allclose(np.clip(x, low, high), y, rtol=1e-6, atol=1e-6):
        return None
    return (Step("Clip", ("x", low, high), since=11),) if high < x[-1] and low > x[0] else None


def _leaky(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    alpha = _nice(y[0] / x[0])
    wanted = np.where(x < 0, alpha * x, x)
    if alpha in {0, 1} or not np.allclose(wanted, y, rtol=1e-5, atol=1e-6):
        return None
    return (Step("LeakyRelu", ("x",), {"alpha": alpha}),)


def _hard_sigmoid(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    found = _ramp(x, y)
    return (Step("HardSigmoid", ("x",), found),) if found else None


def _hard_swish(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
    away = np.abs(x) > STEP / 2
    found = _ramp(x[away], y[away] / x[away])
    return (Step("HardSigmoid", ("x",), found), Step("Mul", ("x", 0))) if found else None


def _ramp(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float] | None:
    """The slope and the middle of a straight line from 0 up to 1, where y is that."""
    inside = (y > 0.05) & (y < 0.95)
    if abs(y[0]) > 1e-6 or abs(y[-1] - 1) > 1e-6 or inside.sum() < 3:
        return None
    slope, middle = np.polyfit(x[inside], y[inside], 1)
    alpha, beta = _nice(slope), _nice(middle)
    if alpha <= 0 or not np.allclose(np.clip(alpha * x + beta, 0, 1), y, atol=1e-5):
        return None
    return {"alpha": alpha, "beta": beta}


def _fixed(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], *steps: Step
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], Steps | None]:
    """A function without parameters."""

    def guess(x: NDArray[np.float64], y: NDArray[np.float64]) -> Steps | None:
        for some in (slice(None, None, _FIRST), slice(None)):
            if np.abs(function(x[some]) - y[some]).max() > 1e-4:
                return None
        return steps

    return guess


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def _tanh_gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016."""
    return np.asarray(0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))))


def _erf_gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same paper, exactly: x times the normal distribution."""
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / 2**0.5)))


def _mish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019."""
    return np.asarray(x * np.tanh(np.logaddexp(0, x)))


def _nice(value: float) -> float:
    """The fraction that was meant, where rounding has hidden one: 1/6, 0.044715."""
    near = float(Fraction(float(value)).limit_denominator(1000))
    return near if abs(near - value) <= 1e-6 * max(1.0, abs(value)) else float(value)


Guess = Callable[[NDArray[np.float64], NDArray[np.float64]], Steps | None]
Table = tuple[tuple[str, Guess], ...]
STRAIGHT = frozenset({"Add", "Div", "Identity", "Mul", "Neg", "Sub"})
"""What lines are written in; a curve needs another operator too."""
LINES: Table = (("identity", _identity), ("affine", _affine))
CURVES: Table = (
    ("clip", _clip),
    ("leaky relu", _leaky),
    ("hard sigmoid", _hard_sigmoid),
    ("hard swish", _hard_swish),
    ("sigmoid", _fixed(_sigmoid, Step("Sigmoid", ("x",)))),
    ("tanh", _fixed(np.tanh, Step("Tanh", ("x",)))),
    ("silu", _fixed(lambda x: x * _sigmoid(x), Step("Sigmoid", ("x",)), Step("Mul", ("x", 0)))),
    ("tanh gelu", _fixed(_tanh_gelu, Step("Gelu", ("x",), {"approximate": "tanh"}, since=20))),
    ("tanh gelu", _fixed(_tanh_gelu, Step("FastGelu", ("x",), domain="com.microsoft"))),
    # onnxruntime fuses most spellings itself; but int8 nodes must not get between them.
    ("gelu", _fixed(_erf_gelu, Step("Gelu", ("x",), since=20))),
    ("gelu", _fixed(_erf_gelu, Step("Gelu", ("x",), domain="com.microsoft"))),
    # tanh(log(1 + e^x)) = p / (2 - p) with p = s (2 - s), s = sigmoid(x): the runtime computes
    # Softplus and Tanh of Softplus value by value, six times slower than all of these.
    ("mish", _fixed(
        _mish,
        Step("Sigmoid", ("x",)), Step("Sub", (2.0, 0)), Step("Mul", (0, 1)),
        Step("Sub", (2.0, 2)), Step("Div", (2, 3)), Step("Mul", ("x", 4)),
    )),
)  # fmt: skip
"""What a function may be, and how the runtime computes it in the least time."""
