"""Runs one setting of one public tool and prints as JSON what it took. Stands alone.

    PEERS_PYTHON quantize_one.py '{"tool": "static", ...}' model.onnx calibration.npz out.onnx

It runs in the peers' virtual environment, which has nothing of this project.
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import onnx

CEILING_GIB = 4
"""Of address space: what takes more than a large device has is of no use, and says so."""
OPSET = 17
"""Of the prepared model: per-channel Q/DQ needs 13, and 17 has LayerNormalization."""


class Reader:
    """Samples of an .npz, one by one, as onnxruntime's calibrators take them."""

    def __init__(self, path: Path, model: Path) -> None:
        import onnxruntime  # noqa: PLC0415  # a door of the peers' environment

        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._ranks = {one.name: len(one.shape) for one in session.get_inputs()}
        with np.load(path, allow_pickle=False) as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files if not key.startswith("::")}
        first = next(iter(self._ranks))
        ragged = [key for key in self._arrays if key.startswith(f"{first}::")]
        self.count = len(ragged) or len(self._arrays[first])
        self._next = 0

    def sample(self, at: int) -> dict[str, np.ndarray]:
        """Sample `at` by input name, with a batch axis."""
        found = {}
        for name, rank in self._ranks.items():
            if name not in self._arrays:
                found[name] = self._arrays[f"{name}::{at:04d}"]
            elif self._arrays[name].ndim == rank + 1:
                found[name] = np.asarray(self._arrays[name][at])
            else:
                found[name] = self._arrays[name][at : at + 1]
        return found

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample, or None."""
        self._next += 1
        return self.sample(self._next - 1) if self._next <= self.count else None

    def rewind(self) -> None:
        """Begin anew."""
        self._next = 0


def prepare(_: dict, model: Path, __: Path, out: Path) -> None:
    """What the tools' own guides ask for first: folding, shapes, a later operator set."""
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - other peers lack it

    part = out.with_suffix(".first.onnx")
    _first_that_works(model, part, quant_pre_process)
    loaded = onnx.load(part)
    opset = max(one.version for one in loaded.opset_import if one.domain in {"", "ai.onnx"})
    if opset < OPSET:
        loaded = onnx.version_converter.convert_version(loaded, OPSET)
        onnx.save(loaded, part)
    _first_that_works(part, out, quant_pre_process)
    part.unlink()


def _first_that_works(model: Path, out: Path, process) -> None:
    for skipped in ((), ("skip_symbolic_shape",), ("skip_symbolic_shape", "skip_optimization")):
        try:
            process(str(model), str(out), **dict.fromkeys(skipped, True))
        except Exception as error:  # each step less is tried
            print(f"{skipped}: {error}"[:200], file=sys.stderr)
        else:
            return
    shutil.copyfile(model, out)


def static(setting: dict, model: Path, calibration: Path, out: Path) -> float:
    """onnxruntime's quantize_static; the seconds that ranges took which lay there already."""
    from onnxruntime import quantization  # noqa: PLC0415 - other peers lack it

    kinds = {"u": quantization.QuantType.QUInt8, "s": quantization.QuantType.QInt8}
    activation, weight = setting.get("types", "ss")
    ranges = Path(setting["ranges_path"])
    known_s = json.loads(_taken(ranges).read_text()) if _taken(ranges).exists() else 0.0
    quantization.quantize_static(
        str(model),
        str(out),
        Reader(calibration, model),
        quant_format=quantization.QuantFormat[setting.get("format", "QDQ")],
        op_types_to_quantize=setting.get("operators"),
        per_channel=setting.get("per_channel", False),
        reduce_range=setting.get("reduce_range", False),
        activation_type=kinds[activation],
        weight_type=kinds[weight],
        calibrate_method=quantization.CalibrationMethod[setting.get("ranges", "MinMax")],
        extra_options=setting.get("extra"),
        calibration_cache_path=ranges,
    )
    if not known_s:
        _taken(ranges).write_text(json.dumps(time.process_time()))
    return known_s


def _taken(ranges: Path) -> Path:
    """Where it stands what finding these ranges took, for those who find them there."""
    return ranges.with_suffix(".seconds")


def dynamic(setting: dict, model: Path, _: Path, out: Path) -> None:
    """onnxruntime's quantize_dynamic."""
    from onnxruntime import quantization  # noqa: PLC0415 - other peers lack it

    kinds = {"u": quantization.QuantType.QUInt8, "s": quantization.QuantType.QInt8}
    quantization.quantize_dynamic(
        str(model),
        str(out),
        op_types_to_quantize=setting.get("operators"),
        per_channel=setting.get("per_channel", False),
        reduce_range=setting.get("reduce_range", False),
        weight_type=kinds[setting.get("types", "s")],
        extra_options=setting.get("extra"),
    )


def nbits(setting: dict, model: Path, _: Path, out: Path) -> None:
    """onnxruntime's MatMulNBitsQuantizer: weights in blocks."""
    from onnxruntime.quantization import matmul_nbits_quantizer as tool  # noqa: PLC0415 - other peers lack it

    config = tool.DefaultWeightOnlyQuantConfig(
        block_size=setting["block"], is_symmetric=True, accuracy_level=4, bits=setting["bits"]
    )
    quantizer = tool.MatMulNBitsQuantizer(onnx.load(model), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


def nncf(setting: dict, model: Path, calibration: Path, out: Path) -> None:
    """NNCF's ONNX backend."""
    import nncf as tool  # noqa: PLC0415 - other peers lack it
    from nncf.quantization import advanced_parameters as advanced  # noqa: PLC0415 - other peers lack it

    reader = Reader(calibration, model)
    options = {}
    if "preset" in setting:
        options["preset"] = tool.QuantizationPreset[setting["preset"]]
    if "model_type" in setting:
        options["model_type"] = tool.ModelType[setting["model_type"]]
    if setting.get("overflow_fix"):
        fix = advanced.OverflowFix.ENABLE
        options["advanced_parameters"] = advanced.AdvancedQuantizationParameters(overflow_fix=fix)
    data = tool.Dataset([reader.sample(at) for at in range(reader.count)])
    fast = setting.get("fast_bias_correction", True)
    quantized = tool.quantize(
        onnx.load(model), data, subset_size=reader.count, fast_bias_correction=fast, **options
    )
    onnx.save(quantized, out)


TOOLS = {"prepare": prepare, "static": static, "dynamic": dynamic, "nbits": nbits, "nncf": nncf}


def main() -> None:
    """Print {failed or "", user_s, peak_mib, bytes}; the model lies at the last argument."""
    resource.setrlimit(resource.RLIMIT_AS, (CEILING_GIB * 2**30, CEILING_GIB * 2**30))
    # One core, so that every tool runs on one thread whatever it would choose.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    setting, paths = json.loads(sys.argv[1]), [Path(one) for one in sys.argv[2:5]]
    answer, known_s = {"failed": ""}, 0.0
    try:
        known_s = TOOLS[setting["tool"]](setting, *paths) or 0.0
    except Exception as error:  # a table that says how it failed is wanted
        answer["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    if not answer["failed"] and not paths[2].exists():
        answer["failed"] = "no file was written"
    answer["user_s"] = time.process_time() + known_s
    answer["peak_mib"] = _peak_mib()
    print("\n" + json.dumps(answer))


def _peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
