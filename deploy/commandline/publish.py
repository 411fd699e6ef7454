"""Put a model on the broker: its files as retained chunks, then its signed manifest.

What the outputs mean decides how agreement with the original is judged. It is guessed from the
graph; name it with --outputs where you know better. Publishing again is harmless.
"""

import argparse
import asyncio
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from agent import outputs
from agent.protocol.manifest import Manifest
from deploy import publish
from deploy.commandline import options

EXAMPLES = """examples:
  trimtab-fleet publish net.onnx --name net --version 3 --key ~/.trimtab/fleet.key
  trimtab-fleet publish net.onnx --name net --version 3 --calibration inputs.npz \\
      --evaluation labelled.npz --outputs probabilities=logits:1 --min-agreement 0.99
  trimtab-fleet publish detector.onnx --name eye --version 1 \\
      --outputs out=detections:0.4,columns=box+score+class,box_format=xyxy
  kinds of outputs: logits:AXIS steps:BLANK embedding:AXIS detections:THRESHOLD
      mask:THRESHOLD score:THRESHOLD state tensor (the number may be left out)
  fields: axis, blank, threshold, classes=FILE; of detections also role=boxes|scores|classes|
      count|rows, columns=box+score+class, box_format=xyxy|yxyx|xywh|cxcywh, iou_threshold
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
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
    options.add_key(parser)
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish, with a bar per file."""
    signer = options.read_signer(arguments)
    offer = publish.Offer(
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
    publish.check(offer)  # before the broker is bothered

    async def send() -> Manifest:
        async with options.connected(arguments) as fleet:
            with _Bars() as bars:
                return await publish.publish(
                    offer, link=fleet.link, topics=fleet.topics, by=signer, on_progress=bars.show
                )

    _report(asyncio.run(send()))
    return 0


class _Bars(Progress):
    """One bar per file; its last steps are the index blobs."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("chunks"),
        )
        self._of: dict[str, TaskID] = {}

    def show(self, file: str, sent: int, total: int) -> None:
        if file not in self._of:
            self._of[file] = self.add_task(file, total=total)
        self.update(self._of[file], completed=min(sent, total), total=total)


def _report(manifest: Manifest) -> None:
    size_mib = manifest.files.model.size_bytes / 2**20
    print(f"published {manifest.name}@{manifest.version} ({size_mib:.1f} MiB)")
    for output in manifest.outputs:
        print(f"  output {outputs.describe(output)}")
