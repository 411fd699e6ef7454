"""Tells models that are quantized already: they stay as they are, and are the only rung."""

from collections import Counter

import onnx

from compression import bodies

INTEGER = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
    "MatMulNBits", "GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QGemm",
    "QAttention", "QEmbedLayerNormalization", "QOrderedMatMul", "QMoE",
})  # fmt: skip
"""Operators that read or write quantized tensors; so does whatever begins with QLinear."""


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Count the quantized operators of a model, in bodies and functions too; empty where none."""
    used = list(bodies.nodes(model.graph))
    used += [node for function in model.functions for node in function.node]
    return dict(
        Counter(
            node.op_type
            for node in used
            if node.op_type in INTEGER or node.op_type.startswith("QLinear")
        )
    )


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a model is quantized already, whole or in part."""
    return bool(operators(model))


def reason(model: onnx.ModelProto) -> str:
    """Why a quantized model is not compressed further, in one line with the operators found."""
    found = sorted(operators(model).items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{count} {name}" for name, count in found[:3])
    more = f" and {len(found) - 3} more kinds" if len(found) > 3 else ""
    return f"cannot compress further: the model is quantized already ({named}{more})"
