"""What a model takes and gives, read from its file; what its outputs mean is guessed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from compression import graph, kinds, runtime
from compression.job import InputSpec, OutputSpec


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
    makers = {name: node for node in model.graph.node for name in node.output}
    taken = {(spec.dtype, spec.shape) for spec in inputs[1:]}
    outputs = []
    for value in session.get_outputs():
        given = runtime.input_spec(value)
        outputs.append(
            kinds.guess(
                given.name,
                shape=given.shape,
                maker=_maker(makers, given.name),
                like_an_input=(given.dtype, given.shape) in taken,
            )
        )
    operators = Counter(node.op_type for node in model.graph.node)
    names = tuple(spec.name for spec in outputs)
    return Description(inputs, tuple(outputs), names, dict(operators))


def _maker(makers: Mapping[str, onnx.NodeProto], name: str) -> str:
    while name in makers and makers[name].op_type in {"Identity", "Cast", "Reshape"}:
        name = makers[name].input[0]
    return makers[name].op_type if name in makers else ""
