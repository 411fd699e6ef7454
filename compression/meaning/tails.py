"""What stands at the end of a graph, before each output; from it kinds.py guesses meanings."""

from collections import deque
from collections.abc import Mapping, Sequence

import onnx

from compression.job import InputSpec, OutputSpec
from compression.meaning import kinds
from compression.meaning.seen import Seen

PASS_ON = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that change no meaning."""
ENDS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "LayerNormalization",
     "BatchNormalization", "NonMaxSuppression", "Softmax", "LogSoftmax", "Loop", "Scan", "If"}
)  # fmt: skip
"""What lies before them says nothing of the output."""
MOST = 64
"""Operators that are looked at for one output."""

Makers = Mapping[str, onnx.NodeProto]


def read(
    graph: onnx.GraphProto, *, inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]
) -> tuple[OutputSpec, ...]:
    """Guess what the outputs of a graph mean, from its nodes and from names, dtypes and shapes."""
    makers = {name: node for node in graph.node for name in node.output}
    image = next((each.shape[2:] for each in inputs if _is_image(each)), None)
    seen = []
    for output in outputs:
        nodes = _tail(output.name, makers)
        like = (each for each in inputs if (each.shape, each.dtype) == (output.shape, output.dtype))
        seen.append(
            Seen(
                name=output.name,
                shape=output.shape,
                tail=tuple(node.op_type for node in nodes),
                axis=_axis(nodes[0]) if nodes else None,
                integers=output.dtype.startswith(("int", "uint")),
                like=tuple(each.name for each in like),
                image=None if image is None else (image[0], image[1]),
            )
        )
    return kinds.guess_all(seen)


def _tail(name: str, makers: Makers) -> list[onnx.NodeProto]:
    """The operators before an output, nearest first, until one that does the work."""
    waiting, known, found = deque([name]), {name}, list[onnx.NodeProto]()
    while waiting and len(found) < MOST:
        node = makers.get(waiting.popleft())
        if node is None:
            continue
        if node.op_type not in PASS_ON:
            found.append(node)
        if node.op_type in ENDS:
            continue
        for before in node.input:
            if before not in known:
                known.add(before)
                waiting.append(before)
    return found


def _axis(node: onnx.NodeProto) -> int | None:
    return next((each.i for each in node.attribute if each.name == "axis"), None)


def _is_image(spec: InputSpec) -> bool:
    return len(spec.shape) == 4 and spec.shape[1] in {1, 3, 4}
