"""Let what serves of a model keep another budget; the best variant that meets it takes over.

Where none on the device does, it makes more. The new budget replaces the old one as a whole.
"""

import argparse

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol.commands import SetBudget
from agent.protocol.topics import check_name
from compression.words import explain
from deploy.commandline import asking, options

EXAMPLES = """examples:
  trimtab-fleet set-budget --model net --device porch --budget latency_p95_ms=12
  trimtab-fleet set-budget --model net --group lab --budget size_mib=2 --budget min_agreement=0.97
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument(
        "--budget", action="append", required=True, metavar="FIELD=VALUE",
        help="once for each field; what is left open comes from the manifest, then the device",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10.0, help="for compressing (%(default)s)")
    options.add_observing(parser)
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the replies."""
    try:
        body = SetBudget(
            model=check_name(arguments.model, what="model name"),
            budget=options.read_budget(arguments.budget),
            minutes=arguments.minutes,
            observe_minutes=arguments.observe_minutes,
        )
    except ValidationError as error:
        raise BadInput(f"cannot set the budget: {explain(error)}") from error
    return asking.run(arguments, body)
