"""Have devices look for better variants of what serves, on live inputs, while they are idle.

What is better goes through the usual admission and observation. Events tell when a device pauses
the work for others, and why.
"""

import argparse

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol.commands import Recompress
from agent.protocol.topics import check_name
from compression.words import explain
from deploy.commandline import asking, options

EXAMPLES = """examples:
  trimtab-fleet recompress --model net --group lab --recover-minutes 60
  trimtab-fleet recompress --model net --device porch --now --collect-inputs 0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--now", action="store_true", help="also while the device is at work")
    parser.add_argument("--minutes", type=float, default=10.0, help="for compressing (%(default)s)")
    parser.add_argument(
        "--recover-minutes", type=float, default=0.0, metavar="T",
        help="beside them, for training variants on the inputs (%(default)s: not)",
    )  # fmt: skip
    options.add_collecting(parser)
    options.add_observing(parser)
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    try:
        body = Recompress(
            model=check_name(arguments.model, what="model name"),
            when="now" if arguments.now else "idle",
            minutes=arguments.minutes,
            recover_minutes=arguments.recover_minutes,
            **options.live_inputs(arguments),
        )
    except ValidationError as error:
        raise BadInput(f"cannot recompress: {explain(error)}") from error
    return asking.run(arguments, body)
