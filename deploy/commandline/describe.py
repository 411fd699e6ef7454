"""Ask devices what they are, what they can afford and what they serve."""

import argparse

from agent.protocol.commands import Describe
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet describe --device porch --json --key ~/.trimtab/fleet.key
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    return asking.run(arguments, Describe())
