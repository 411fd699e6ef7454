"""The stated grid: which settings of which public tools are tried on every model (pure).

Of onnxruntime's static quantization every combination of types, per-channel or per-tensor, all
operators or those with weights, in Q/DQ form; the operator form and histograms at the types that
are right for most (its SmoothQuant needs a package that is no longer made). Of its dynamic
quantization all, of MatMulNBits and NNCF what their guides name. Without a `raw`, a setting starts
from the prepared model.
"""

from typing import Any

Setting = dict[str, Any]
WITH_WEIGHTS = ["Conv", "MatMul", "Gemm"]
_CHANNELS = {"channel": True, "tensor": False}
_OPERATORS: dict[str, list[str] | None] = {"all": None, "weights": WITH_WEIGHTS}
_TYPES: dict[str, Setting] = {
    "u8s8": {"types": "us"},
    "u8s8-7bit": {"types": "us", "reduce_range": True},
    "s8s8": {"types": "ss"},
    "u8u8": {"types": "uu"},
}
_OPTIONS: dict[str, Setting] = {
    "QOperator": {"format": "QOperator"},
    "entropy": {"ranges": "Entropy"},
    "percentile": {"ranges": "Percentile"},
}


def settings() -> dict[str, Setting]:
    """Every setting by the name that tables show."""
    return _static() | _static_options() | _dynamic() | _weights_only() | _nncf()


def _static() -> dict[str, Setting]:
    found: dict[str, Setting] = {"ORT static default (raw)": {"tool": "static", "raw": True}}
    for kind, types in _TYPES.items():
        for channel, per_channel in _CHANNELS.items():
            for which, operators in _OPERATORS.items():
                found[f"ORT static {kind} {channel} {which}"] = {
                    "tool": "static", "per_channel": per_channel, "operators": operators, **types,
                }  # fmt: skip
    return found


def _static_options() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, option in _OPTIONS.items():
        for which, operators in _OPERATORS.items():
            for channel, per_channel in _CHANNELS.items():
                found[f"ORT static u8s8-7bit {channel} {which} {name}"] = {
                    "tool": "static", "per_channel": per_channel, "operators": operators,
                    **_TYPES["u8s8-7bit"], **option,
                }  # fmt: skip
    return found


def _dynamic() -> dict[str, Setting]:
    found: dict[str, Setting] = {"ORT dynamic default (raw)": {"tool": "dynamic", "raw": True}}
    kinds: dict[str, Setting] = {
        "s8": {"types": "s"},
        "s8-7bit": {"types": "s", "reduce_range": True},
        "u8": {"types": "u"},
    }
    for kind, types in kinds.items():
        for channel, per_channel in _CHANNELS.items():
            for which, operators in (("default", None), ("MatMul", ["MatMul"])):
                found[f"ORT dynamic {kind} {channel} {which}"] = {
                    "tool": "dynamic", "per_channel": per_channel, "operators": operators, **types,
                }  # fmt: skip
    return found


def _weights_only() -> dict[str, Setting]:
    return {
        f"ORT MatMulNBits {bits}-bit block {block}": {"tool": "nbits", "bits": bits, "block": block}
        for bits, block in ((8, 32), (8, 128), (4, 32))
    }


def _nncf() -> dict[str, Setting]:
    return {
        "NNCF default (raw)": {"tool": "nncf", "raw": True},
        "NNCF performance": {"tool": "nncf"},
        "NNCF mixed": {"tool": "nncf", "preset": "MIXED"},
        "NNCF transformer": {"tool": "nncf", "model_type": "TRANSFORMER"},
        "NNCF mixed 7-bit": {"tool": "nncf", "preset": "MIXED", "overflow_fix": True},
        "NNCF mixed full bias": {
            "tool": "nncf", "preset": "MIXED", "overflow_fix": True, "fast_bias_correction": False,
        },
    }  # fmt: skip
