"""Take a model version off the broker: its manifest, and the chunks that no other version uses.

Devices that serve it go on serving it. Interrupted, it goes on when it is called again.
"""

import argparse
import asyncio

from deploy import shelf
from deploy.commandline import options

EXAMPLES = """examples:
  trimtab-fleet unpublish --name net --version 2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", type=int, required=True)
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Clear it and say what was kept for others."""

    async def clear() -> tuple[int, int]:
        async with options.connected(arguments) as fleet:
            return await shelf.unpublish(
                arguments.name, arguments.version, link=fleet.link, topics=fleet.topics
            )

    cleared, kept = asyncio.run(clear())
    print(
        f"unpublished {arguments.name}@{arguments.version}: {cleared} blobs cleared, "
        f"{kept} kept for other versions"
    )
    return 0
