"""What a model takes and gives, read from its file; what its outputs mean is guessed."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from compression import graph, runtime
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
