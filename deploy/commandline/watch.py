"""Show the events of all devices as they come, until Ctrl-C."""

import argparse
import asyncio

from deploy.commandline import options, telling

EXAMPLES = """examples:
  trimtab-fleet watch
  trimtab-fleet watch --json | jq 'select(.kind == "refused")'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON document per event")
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print until interrupted."""

    async def watch() -> None:
        async with options.connected(arguments) as fleet:
            async for event in fleet.events():
                telling.show(event, as_json=arguments.json)

    asyncio.run(watch())
    return 0
