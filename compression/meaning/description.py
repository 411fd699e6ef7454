"""What a model takes and gives, read from its file; what its outputs mean is guessed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compression import graph, runtime
from compression.errors import BadInputs
from compression.job import InputSpec, OutputSpec
from compression.meaning import tails


@dataclass(frozen=True)
class Description:
    """What a model takes and gives; `guessed` names the outputs whose kind is only a guess."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    guessed: tuple[str, ...]
    operators: dict[str, int]


def describe(model_path: Path) -> Description:
    """Say what a model takes and gives.

    Raises:
        BadModel: as `graph.load`; or it does not load in onnxruntime, or takes what is not numbers.
    """
    model = graph.load(model_path)
    session = runtime.session(model_path)
    inputs = tuple(runtime.input_spec(value) for value in session.get_inputs())
    given = tuple(runtime.input_spec(value) for value in session.get_outputs())
    outputs = tails.read(model.graph, inputs=inputs, outputs=given)
    operators = Counter(node.op_type for node in model.graph.node)
    names = tuple(spec.name for spec in outputs)
    return Description(inputs, outputs, names, dict(operators))


def told(guessed: Sequence[OutputSpec], named: Sequence[OutputSpec]) -> tuple[OutputSpec, ...]:
    """What outputs mean: as named where somebody did, else as guessed.

    Raises:
        BadInputs: a name that the model does not give.
    """
    known = [spec.name for spec in guessed]
    by_name = {spec.name: spec for spec in named}
    if unknown := sorted(set(by_name) - set(known)):
        raise BadInputs(
            f"cannot judge output {unknown[0]!r}: the model gives {', '.join(known)[:200]}"
        )
    return tuple(by_name.get(spec.name, spec) for spec in guessed)
