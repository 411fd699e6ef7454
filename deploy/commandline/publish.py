"""Put a model on the broker: its files as retained chunks, then its signed manifest.

What the outputs mean decides how agreement with the original is judged. It is guessed from the
graph; name it with --outputs where you know better. Publishing again is harmless.
"""

import argparse
import asyncio

from agent import outputs
from agent.protocol.manifest import Manifest
from deploy import publish
from deploy.commandline import offering, options
from deploy.commandline.bars import Bars

EXAMPLES = """examples:
  trimtab-fleet publish net.onnx --name net --version 3 --key ~/.trimtab/fleet.key
  trimtab-fleet publish net.onnx --name net --version 3 --calibration inputs.npz \\
      --evaluation labelled.npz --outputs probabilities=logits:1 --min-agreement 0.99
  trimtab-fleet publish detector.onnx --name eye --version 1 \\
      --outputs out=detections:0.4,columns=box+score+class,box_format=xyxy
"""
EXAMPLES += offering.KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    offering.add_arguments(parser)
    options.add_key(parser)
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish, with a bar per file."""
    signer = options.read_signer(arguments)
    offer = offering.read(arguments)
    publish.check(offer)  # before the broker is bothered

    async def send() -> Manifest:
        async with options.connected(arguments) as fleet:
            with Bars() as bars:
                return await publish.publish(
                    offer, link=fleet.link, topics=fleet.topics, by=signer, on_progress=bars.show
                )

    _report(asyncio.run(send()))
    return 0


def _report(manifest: Manifest) -> None:
    size_mib = manifest.files.model.size_bytes / 2**20
    print(f"published {manifest.name}@{manifest.version} ({size_mib:.1f} MiB)")
    for output in manifest.outputs:
        print(f"  output {outputs.describe(output)}")
