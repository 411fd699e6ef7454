"""Have devices pull a published version, make it fit their budget and serve it.

With --wait it follows the devices' events: exit code 0 when the version is live on all of them,
3 when one refuses (with its reason), 4 when one fails or nobody answers.
"""

import argparse
import asyncio
import uuid
from collections.abc import AsyncIterator

from pydantic import ValidationError

from agent.errors import BadInput, Refused, TrimtabError, Unavailable
from agent.protocol.commands import Deploy
from agent.protocol.events import Event
from agent.protocol.topics import check_name
from compression.words import explain
from deploy.commandline import asking, options, telling
from deploy.fleet import Fleet, follow

EXAMPLES = """examples:
  trimtab-fleet deploy --model net --version 3 --device porch --wait
  trimtab-fleet deploy --model net --version 3 --group lab --budget latency_p95_ms=20 \\
      --budget size_mib=4 --strategy compress-first
"""
ENDS: dict[str, type[TrimtabError]] = {"refused": Refused, "failed": Unavailable}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--budget", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument(
        "--strategy", choices=("improve", "compress-first", "as-is"), default="improve"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for compressing (%(default)s)")
    parser.add_argument(
        "--allow-unverified", action="store_true",
        help="let a variant serve that no real inputs have judged, where none came with the model",
    )  # fmt: skip
    parser.add_argument("--priority", type=int, default=0, metavar="N",
                        help="0 to 9: where models do not fit together the lowest step down first "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--weight", type=float, default=1.0, metavar="W",
                        help="its part among those of its priority (%(default)s)")  # fmt: skip
    options.add_collecting(parser)
    options.add_observing(parser)
    parser.add_argument("--wait", action="store_true", help="follow it to its end")
    parser.add_argument(
        "--wait-timeout", type=float, default=3600.0, metavar="S", help="(%(default)s s)"
    )
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send the command and, with --wait, follow it."""
    signer = options.read_signer(arguments)
    budget = options.read_budget(arguments.budget)
    try:
        body = Deploy(
            model=check_name(arguments.model, what="model name"),
            version=arguments.version,
            budget=budget,
            strategy=arguments.strategy,
            minutes=arguments.minutes,
            allow_unverified=arguments.allow_unverified,
            priority=arguments.priority,
            weight=arguments.weight,
            **options.live_inputs(arguments),
        )
    except ValidationError as error:
        raise BadInput(f"cannot deploy: {explain(error)}") from error

    async def send() -> None:
        async with options.connected(arguments, signer) as fleet:
            await _deploy(fleet, body, arguments)

    asyncio.run(send())
    return 0


async def _deploy(fleet: Fleet, body: Deploy, arguments: argparse.Namespace) -> None:
    command_id = str(uuid.uuid4())
    heard: asyncio.Queue[Event] = asyncio.Queue()
    listening = asyncio.Event()

    async def listen() -> None:
        async for event in fleet.events(started=listening.set):
            heard.put_nowait(event)

    # The first events may come before the reply does.
    listener = asyncio.create_task(listen(), name="events")
    try:
        await asyncio.wait({asyncio.create_task(listening.wait()), listener},
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        replies = await fleet.ask(
            options.audience(arguments), body, command_id=command_id, timeout_s=arguments.timeout
        )
        for reply in replies:
            asking.show(reply, as_json=arguments.json)
        asking.raise_worst(replies)
        if arguments.wait:
            devices = {reply.device for reply in replies}
            await _wait(heard, command_id, devices=devices, arguments=arguments)
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def _wait(
    heard: "asyncio.Queue[Event]",
    command_id: str,
    *,
    devices: set[str],
    arguments: argparse.Namespace,
) -> None:
    async def events() -> AsyncIterator[Event]:
        while True:
            yield await heard.get()

    def seen(event: Event) -> None:
        telling.show(event, as_json=arguments.json)

    try:
        async with asyncio.timeout(arguments.wait_timeout):
            ends = await follow(events(), deployment=command_id, devices=devices, seen=seen)
    except TimeoutError:
        raise Unavailable(
            f"cannot wait longer than {arguments.wait_timeout:g} s; the deployment goes on"
        ) from None
    for state, error in ENDS.items():
        for device, event in sorted(ends.items()):
            if (event.state or "").lower() == state:
                raise error(f"{device} {state}: {event.message}")
