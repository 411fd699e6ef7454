"""Have devices stop serving a model and forget its files."""

import argparse

from agent.protocol.commands import Remove
from agent.protocol.topics import check_name
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet remove --model net --device porch --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    return asking.run(arguments, Remove(model=check_name(arguments.model, what="model name")))
