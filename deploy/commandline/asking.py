"""What the commands that ask devices share: send, show the replies, choose the exit code."""

import argparse
import asyncio
import json

from agent.errors import Refused, TrimtabError, Unavailable
from agent.protocol.commands import Body
from agent.protocol.events import Reply
from deploy.commandline import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare whom to ask, how to sign and where the broker is."""
    options.add_audience(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document per reply")
    options.add_key(parser)
    options.add_connection(parser)


def run(arguments: argparse.Namespace, body: Body) -> int:
    """Send `body` to the audience and show what comes back; raise the worst of it."""
    signer = options.read_signer(arguments)

    async def ask() -> list[Reply]:
        async with options.connected(arguments, signer) as fleet:
            return await fleet.ask(options.audience(arguments), body, timeout_s=arguments.timeout)

    replies = asyncio.run(ask())
    for reply in replies:
        show(reply, as_json=arguments.json)
    raise_worst(replies)
    return 0


def show(reply: Reply, *, as_json: bool) -> None:
    """Print one reply."""
    if as_json:
        print(reply.to_json().decode())
        return
    print(f"{reply.device}: {reply.outcome}{': ' if reply.message else ''}{reply.message}")
    if reply.result:
        print(json.dumps(reply.result, indent=2))


def raise_worst(replies: list[Reply]) -> None:
    """Turn a reply that refuses or failed into its error.

    Raises:
        Refused: a device refused.
        Unavailable: a device failed.
    """
    errors: dict[str, type[TrimtabError]] = {"refused": Refused, "failed": Unavailable}
    for outcome, error in errors.items():
        for reply in replies:
            if reply.outcome == outcome:
                raise error(f"{reply.device} {outcome}: {reply.message}")
