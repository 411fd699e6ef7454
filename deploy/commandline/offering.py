"""What is offered, to a broker or in a bundle: the options, and the offer that they make."""

import argparse
from pathlib import Path

from agent import outputs
from deploy.commandline import options
from deploy.publish import Offer

KINDS = """\
  kinds of outputs: logits:AXIS steps:BLANK embedding:AXIS detections:THRESHOLD
      mask:THRESHOLD score:THRESHOLD state tensor (the number may be left out)
  fields: axis, blank, threshold, classes=FILE; of detections also role=boxes|scores|classes|
      count|rows, columns=box+score+class, box_format=xyxy|yxyx|xywh|cxcywh, iou_threshold
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the model, its inputs, and what is said of it."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--name", required=True, help="of the model, on the wire and in URLs")
    parser.add_argument("--version", type=int, required=True, help="an integer that only grows")
    parser.add_argument("--display-version", default="", help="the version for people")
    parser.add_argument("--calibration", type=Path, metavar="X.npz", help="typical inputs")
    parser.add_argument("--evaluation", type=Path, metavar="X.npz", help="other inputs, labelled")
    parser.add_argument(
        "--outputs", action="append", default=[], metavar=outputs.FORMAT,
        help="what an output means; repeatable",
    )  # fmt: skip
    parser.add_argument("--min-agreement", type=float, default=0.98, metavar="SHARE")
    parser.add_argument("--licence", default="", help="SPDX name")
    parser.add_argument(
        "--budget", action="append", default=[], metavar="FIELD=VALUE",
        help="default budget of this version; repeatable",
    )  # fmt: skip


def read(arguments: argparse.Namespace) -> Offer:
    """The offer of the options.

    Raises:
        BadInput: an output or a budget cannot be read.
    """
    return Offer(
        model=arguments.model,
        name=arguments.name,
        version=arguments.version,
        display_version=arguments.display_version,
        calibration=arguments.calibration,
        evaluation=arguments.evaluation,
        outputs=outputs.read(arguments.outputs),
        min_agreement=arguments.min_agreement,
        budget=options.read_budget(arguments.budget),
        licence=arguments.licence,
    )
