"""Show every device as it last reported: online or not, what it serves, and why not.

Read from the retained statuses, so it needs no answer from anybody.
"""

import argparse
import asyncio

from rich.console import Console
from rich.table import Table

from agent.protocol.events import Live, Status
from deploy.commandline import options

EXAMPLES = """examples:
  trimtab-fleet status
  trimtab-fleet status --json | jq 'select(.online | not) | .device'
"""
COLUMNS = ("device", "online", "agent", "class", "model", "state", "runs", "in budget", "note")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON document per device")
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""

    async def read() -> list[Status]:
        async with options.connected(arguments) as fleet:
            return await fleet.statuses()

    statuses = asyncio.run(read())
    if arguments.json:
        for status in statuses:
            print(status.to_json().decode())
        return 0
    table = Table(*COLUMNS, box=None)
    for status in statuses:
        for row in rows(status):
            table.add_row(*row)
    Console().print(table if statuses else "no device has reported yet")
    return 0


def rows(status: Status) -> list[tuple[str, ...]]:
    """The rows of one device: one for each model, at least one."""
    about = status.device_class
    device = (
        status.device,
        "yes" if status.online else "no",
        status.agent_version,
        "" if about is None else f"{about.machine}, {about.cores} cores",
    )
    models = [_model(live) for live in status.models]
    return [device + model for model in models or [("", "", "", "", status.not_ready_because)]]


def _model(live: Live) -> tuple[str, ...]:
    in_budget = {True: "yes", False: "no", None: ""}[live.meets_budget]
    doubt = "(unverified)" if live.verified is False else ""
    runs = " ".join(part for part in (live.variant, (live.sha256 or "")[:12], doubt) if part)
    return (f"{live.name}@{live.version}", live.state, runs, in_budget, live.message)
