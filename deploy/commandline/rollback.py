"""Serve again what served before the last deployment; it is on the device already."""

import argparse

from agent.protocol.commands import Rollback
from agent.protocol.topics import check_name
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet rollback --model net --device porch --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument(
        "--version", type=int, help="which, of what is kept (default: before the last deployment)"
    )
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    name = check_name(arguments.model, what="model name")
    return asking.run(arguments, Rollback(model=name, version=arguments.version))
