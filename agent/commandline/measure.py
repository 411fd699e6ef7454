"""Measure a model on this device, beside its original (or beside itself, for the noise).

Peak memory is taken first, in a process that has loaded nothing else; then latency, in
interleaved rounds with the original, and agreement over all inputs.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from agent import outputs
from agent.commandline import as_measured, shapes
from agent.commandline.failures import as_exit_error
from agent.errors import BadInput
from agent.host import trials
from compression import report
from compression.errors import CompressionError
from compression.job import TrialJob

EXAMPLES = """examples:
  trimtab measure model.onnx --inputs inputs.npz
  trimtab measure smaller/rung-1a2b3c4d5e6f.onnx --original model.onnx \\
      --inputs held-out.npz --threads 2 --json
  trimtab measure small/rung-1a2b3c4d5e6f.onnx --original detector.onnx --inputs held-out.npz \\
      --outputs out=detections:0.4 --largest-shape image=1x3x960x960
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--original", type=Path, metavar="ORIGINAL.onnx",
                        help="what to compare with (the model itself)")  # fmt: skip
    parser.add_argument("--inputs", type=Path, required=True, metavar="X.npz")
    parser.add_argument("--outputs", action="append", default=[], metavar="OUTPUTS",
                        help=f"what an output means: {outputs.FORMAT}, JSON, or a file of JSON; "
                        "repeatable; only those named are judged")  # fmt: skip
    parser.add_argument("--largest-shape", action="append", default=[], metavar=shapes.FORMAT,
                        help="what memory is measured at, where larger than every sample; "
                        "repeatable")  # fmt: skip
    parser.add_argument("--threads", type=int,
                        help="to run it with (1, or as the ladder beside it says)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the rounds (20)")
    parser.add_argument("--json", action="store_true", help="print the measurement as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    original = arguments.original or arguments.model
    for path in (arguments.model, original, arguments.inputs):
        if not path.is_file():
            raise BadInput(f"cannot find {path}")
    how = as_measured.runtime(arguments.model, threads=arguments.threads)
    if not 0 < arguments.seconds < float("inf"):
        raise BadInput(f"cannot measure for {arguments.seconds} s: above 0")
    trial = TrialJob(
        candidate_path=str(arguments.model.resolve()),
        original_path=str(original.resolve()),
        inputs_path=str(arguments.inputs.resolve()),
        inputs=shapes.read(largest=arguments.largest_shape),
        outputs=outputs.read(arguments.outputs),
        runtime=how,
        seconds=arguments.seconds,
        rounds=200,
    )
    try:
        measurement = asyncio.run(trials.trial(trial))
    except CompressionError as error:
        raise as_exit_error(error) from error
    if arguments.json:
        sys.stdout.write(measurement.model_dump_json(indent=2, exclude_none=True) + "\n")
    else:
        sys.stdout.write(report.measurement(measurement) + "\n")
    return 0
