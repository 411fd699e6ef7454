"""Options that several commands of the operator share, and what is made of them."""

import argparse
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pydantic import ValidationError
from securesystemslib.signer import Signer

from agent.config import Broker
from agent.errors import BadInput
from agent.link.mqtt import Link
from agent.protocol import trust
from agent.protocol.topics import Topics
from compression.job import Budget
from compression.words import explain
from deploy.fleet import Fleet

CONNECT_S = 10.0
PORTS = {False: 1883, True: 8883}


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Declare how to reach the broker."""
    group = parser.add_argument_group("broker")
    group.add_argument(
        "--broker", default=os.environ.get("TRIMTAB_FLEET_BROKER", "localhost"),
        metavar="HOST[:PORT]", help="default: $TRIMTAB_FLEET_BROKER, or localhost:1883",
    )  # fmt: skip
    group.add_argument("--prefix", default="trimtab/v1", help="of all topics (%(default)s)")
    group.add_argument("--username", help="password from $TRIMTAB_FLEET_PASSWORD")
    group.add_argument("--ca-file", type=Path, metavar="PEM", help="use TLS and check with this")
    group.add_argument("--certificate", type=Path, metavar="PEM", help="of this client")
    group.add_argument("--certificate-key", type=Path, metavar="PEM")


def add_key(parser: argparse.ArgumentParser) -> None:
    """Declare the key to sign with."""
    parser.add_argument(
        "--key", type=Path, metavar="FILE", default=os.environ.get("TRIMTAB_FLEET_KEY"),
        help="private key of the fleet; default: $TRIMTAB_FLEET_KEY",
    )  # fmt: skip


def add_audience(parser: argparse.ArgumentParser) -> None:
    """Declare whom a command is for."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--device", metavar="ID")
    group.add_argument("--group", metavar="NAME")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="for an answer (%(default)s s)"
    )


def add_collecting(parser: argparse.ArgumentParser) -> None:
    """Declare how live inputs are collected."""
    parser.add_argument(
        "--collect-inputs", type=int, default=200, metavar="N",
        help="live requests to keep where there are none yet; 0: none (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--collect-hours", type=float, default=24.0, metavar="H",
        help="how long to wait for them (%(default)s)",
    )  # fmt: skip


def add_observing(parser: argparse.ArgumentParser) -> None:
    """Declare how long a new variant is observed."""
    parser.add_argument(
        "--observe-minutes", type=float, default=10.0, metavar="M",
        help="how long live answers of a new variant are compared; 0: not (%(default)s)",
    )  # fmt: skip


def live_inputs(arguments: argparse.Namespace) -> dict[str, float]:
    """What was said of collecting and observing, as fields of a command."""
    return {
        "collect_inputs": arguments.collect_inputs,
        "collect_hours": arguments.collect_hours,
        "collect_minutes": min(10.0, arguments.collect_hours * 60),
        "observe_minutes": arguments.observe_minutes,
    }


def audience(arguments: argparse.Namespace) -> str:
    """`device/ID` or `group/NAME`."""
    return f"device/{arguments.device}" if arguments.device else f"group/{arguments.group}"


def read_signer(arguments: argparse.Namespace) -> Signer:
    """The signer of --key.

    Raises:
        BadInput: none is given, or it cannot be used.
    """
    if arguments.key is None:
        raise BadInput("cannot sign: give --key FILE or set TRIMTAB_FLEET_KEY")
    try:
        return trust.signer(Path(arguments.key).read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read the key {arguments.key}: {error.strerror}") from error


def read_broker(arguments: argparse.Namespace) -> Broker:
    """The broker of the options; an IPv6 address stands in brackets.

    Raises:
        BadInput: a port or an option that cannot be.
    """
    address = arguments.broker
    host, _, port = address.rpartition(":")
    if not host or address.endswith("]"):
        host, port = address, str(PORTS[arguments.ca_file is not None])
    try:
        return Broker.model_validate(
            {
                "host": host.strip("[]"),
                "port": port,
                "username": arguments.username,
                "password": os.environ.get("TRIMTAB_FLEET_PASSWORD"),
                "ca_file": arguments.ca_file,
                "certificate_file": arguments.certificate,
                "key_file": arguments.certificate_key,
                "reconnect_most_s": 10.0,
            }
        )
    except ValidationError as error:
        raise BadInput(f"cannot use the broker {address!r}: {explain(error)}") from error


@contextlib.asynccontextmanager
async def connected(
    arguments: argparse.Namespace, signer: Signer | None = None
) -> AsyncIterator[Fleet]:
    """A fleet, connected under a client id of its own.

    Raises:
        Unavailable: the broker cannot be reached in 10 s.
    """
    topics = Topics(arguments.prefix)
    link = Link(
        read_broker(arguments), client_id=f"trimtab-fleet-{uuid.uuid4().hex[:12]}", clean=True
    )
    async with link:
        await link.connected(CONNECT_S)
        yield Fleet(link, topics, signer)


def read_budget(pairs: Sequence[str]) -> Budget:
    """The budget of repeated `FIELD=VALUE`.

    Raises:
        BadInput: an unknown field (named) or a value out of range.
    """
    given: dict[str, object] = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator:
            raise BadInput(f"cannot read budget {pair!r}: write FIELD=VALUE")
        try:
            given[field] = json.loads(value)
        except json.JSONDecodeError as error:
            raise BadInput(f"cannot read budget {pair!r}: {value!r} is no number") from error
    try:
        return Budget.model_validate(given)
    except ValidationError as error:
        known = ", ".join(Budget.model_fields)
        raise BadInput(f"cannot use the budget: {explain(error)}; known: {known}") from error
