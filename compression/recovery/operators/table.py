"""All operators that torch computes, by name; what is not here stays in onnxruntime's hands."""

from compression.recovery.nodes import Operator
from compression.recovery.operators import (
    convolutions,
    elementwise,
    moving,
    normalizations,
    pooling,
    quantizing,
    recurrence,
    reductions,
    resizing,
)

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **convolutions.OPERATORS,
    **pooling.OPERATORS,
    **normalizations.OPERATORS,
    **moving.OPERATORS,
    **reductions.OPERATORS,
    **resizing.OPERATORS,
    **recurrence.OPERATORS,
    **quantizing.OPERATORS,
}
