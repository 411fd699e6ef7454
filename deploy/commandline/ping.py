"""Ask devices for a sign of life."""

import argparse

from agent.protocol.commands import Ping
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet ping --device porch --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    return asking.run(arguments, Ping())
