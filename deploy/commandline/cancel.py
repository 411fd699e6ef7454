"""Stop the work on a model's deployment; what serves goes on serving."""

import argparse

from agent.protocol.commands import Cancel
from agent.protocol.topics import check_name
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet cancel --model net --group lab --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    return asking.run(arguments, Cancel(model=check_name(arguments.model, what="model name")))
