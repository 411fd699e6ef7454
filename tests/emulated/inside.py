"""What runs on an emulated processor: says what it sees, multiplies, answers, or is the product.

python -m tests.emulated.inside features | class | products | answers FOLDER | trimtab PYTHON ...
"""

import ctypes
import json
import platform
import runpy
import sys
import time
from pathlib import Path
from typing import Any

AT_HWCAP, AT_HWCAP2 = 16, 26
DEPTH, COLUMNS = 64, 32


def features() -> dict[str, Any]:
    """Return what the processor itself reports, without asking any file."""
    if platform.machine() == "aarch64":
        ask = ctypes.CDLL(None).getauxval
        ask.restype = ctypes.c_ulong
        return {"hwcap": ask(AT_HWCAP), "hwcap2": ask(AT_HWCAP2)}
    # numpy asks CPUID; it has no public word for its answer.
    from numpy._core._multiarray_umath import __cpu_features__  # noqa: PLC0415 - not on arm64

    return {"numpy": dict(__cpu_features__)}


def device_class() -> dict[str, Any]:
    """Return what the product itself takes this device for."""
    from agent.device import profile  # noqa: PLC0415 - reads files that are not there for all modes

    return profile.device_class().model_dump(mode="json")


def products() -> dict[str, bool]:
    """Return for each pair of 8-bit formats whether products of their extreme values are exact.

    255 x 127 + 255 x 127 does not fit into 16 bits, and neither does 128 x 128 + 128 x 128;
    "whole" formats have -128 among the weights, others end at 127 on both sides.
    """
    import numpy as np  # noqa: PLC0415 - the other modes start without it

    found = {}
    for left in ("uint8", "int8"):
        for right in ("uint8", "int8"):
            ends = np.iinfo(right).min, np.iinfo(right).max
            weights = {right: (-127, 127)} | {f"{right} whole": ends} if ends[0] else {right: ends}
            for name, values in weights.items():
                pairs = [(x, w) for x in (np.iinfo(left).min, np.iinfo(left).max) for w in values]
                found[f"{left} x {name}"] = all(
                    _exact(np.full((4, DEPTH), x, left), np.full((DEPTH, COLUMNS), w, right))
                    for x, w in pairs
                )
    return found


def _exact(x: Any, w: Any) -> bool:
    """Whether the runtime's MatMulInteger of two matrices is what whole numbers give."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - other modes lack it

    from compression import runtime  # noqa: PLC0415 - other modes lack it

    kind = getattr(TensorProto, str(x.dtype).upper())
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "products",
        [helper.make_tensor_value_info("x", kind, ["N", DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", COLUMNS])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    y = runtime.run(runtime.session(model), {"x": x})["y"]
    return bool((y == x.astype("i8") @ w.astype("i8")).all())


def answers(folder: Path) -> dict[str, Any]:
    """Run every model of a folder on all of its inputs; outputs go to `MODEL.answers.npz`.

    Returns the CPU seconds of one run by the model's name, or why it did not run.
    """
    import numpy as np  # noqa: PLC0415 - the other modes start without it

    from compression import runtime, samples  # noqa: PLC0415 - other modes lack it
    from compression.errors import BadModel  # noqa: PLC0415 - other modes lack it

    told: dict[str, Any] = {}
    original = runtime.session(folder / "original.onnx")
    with samples.open_samples(folder / "inputs.npz", runtime.inputs(original)) as inputs:
        rows = [inputs.sample(at) for at in range(len(inputs))]
    for path in sorted(folder.glob("*.onnx")):
        given: dict[str, Any] = {}
        started = time.process_time()
        try:
            session = runtime.session(path)
            for at, feeds in enumerate(rows):
                found = runtime.run(session, feeds)
                given |= {f"{at:04d}::{name}": array for name, array in found.items()}
        except BadModel as error:
            told[path.stem] = str(error)
            continue
        told[path.stem] = (time.process_time() - started) / len(rows)
        np.savez(path.with_suffix(".answers.npz"), **given)
    return told


def trimtab(python: str, *arguments: str) -> None:
    """Be the product's command; its children are started with `python`, which emulates again."""
    sys.executable = python
    sys.argv = ["trimtab", *arguments]
    runpy.run_module("agent", run_name="__main__")


def main() -> None:
    """Do what the arguments say and print the answer as one line of JSON."""
    modes = {"features": features, "class": device_class, "products": products}
    mode, *rest = sys.argv[1:]
    if mode == "trimtab":
        trimtab(*rest)
    found = answers(Path(rest[0])) if mode == "answers" else modes[mode]()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
