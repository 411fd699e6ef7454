"""The fields of a Budget as command-line options, made from its own definition."""

import argparse

from pydantic import ValidationError

from agent.errors import BadInput
from compression.job import Budget
from compression.words import explain

_HELP = {
    "latency_p95_ms": "95th percentile of latency, milliseconds",
    "latency_ratio": "median latency against the original's",
    "peak_memory_mib": "what the model adds above the imported runtime, MiB",
    "memory_ratio": "the same against the original's",
    "size_mib": "the file, MiB (2**20 bytes)",
    "size_ratio": "the file against the original's",
    "cpu_share": "share of all cores at --request-rate-hz, 0 to 1",
    "request_rate_hz": "requests per second",
    "min_agreement": "least agreement with the original on held-out inputs, 0 to 1",
    "threads": "threads to run it with",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add one option per Budget field."""
    group = parser.add_argument_group("budget", "what is not given is not bounded")
    for name in Budget.model_fields:
        kind = int if name == "threads" else float
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=kind, metavar="N", help=_HELP[name])


def read(arguments: argparse.Namespace) -> Budget:
    """The budget that was given.

    Raises:
        BadInput: a value is out of range; its field is named.
    """
    given = {name: getattr(arguments, name) for name in Budget.model_fields}
    try:
        return Budget(**given)
    except ValidationError as error:
        raise BadInput(f"cannot use the budget: {explain(error)}") from error
