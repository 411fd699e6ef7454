"""Delete the live inputs that devices have collected of a model, and end work that needs them."""

import argparse

from agent.protocol.commands import Forget
from agent.protocol.topics import check_name
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet forget-inputs --model net --group lab --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    return asking.run(arguments, Forget(model=check_name(arguments.model, what="model name")))
