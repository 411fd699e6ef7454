"""Writes down what onnxruntime makes of the graph here: it loads sooner, and in less memory.

The kernels are the same, so the answers are. Loading a graph that is optimized already needs no
second copy of its weights beside the first, and none of the work. The file is for this device's
class: layouts of weights hang on the processor. It has to be loaded without optimizations
(`Runtime(optimization="disabled")`): anything else would do the work again.
"""

import tempfile
from pathlib import Path

import onnx

from compression import runtime
from compression.words import Words

NAME = "prepared"
OPTIMIZATION = "disabled"
"""How the file is loaded."""


class Settings(Words):
    """It has no parameters."""


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as onnxruntime runs it on this device.

    Raises:
        BadModel: onnxruntime does not load it.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        path = Path(folder) / "prepared.onnx"
        chosen = runtime.options()
        chosen.optimized_model_filepath = str(path)
        runtime.session(model, chosen)
        return onnx.load(path)
