"""Ask a device's model once, over the broker: small tensors, in the JSON that its port takes too.

Requests and answers have at most 8 KiB; for more than a look, ask the device itself.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol.commands import MAX_BYTES, Infer
from agent.protocol.topics import check_name
from compression.words import explain
from deploy.commandline import asking

EXAMPLES = """examples:
  trimtab-fleet infer --model net --device porch --request \\
      '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1]}]}'
  trimtab-fleet infer --model net --group lab --request @request.json --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--version", type=int, help="refuse to ask another one")
    parser.add_argument(
        "--request", required=True, metavar="JSON",
        help="as the Open Inference Protocol has it, or @FILE",
    )  # fmt: skip
    parser.add_argument(
        "--within", type=float, default=2.0, metavar="S", help="for the model (%(default)s s)"
    )
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask and show the answers."""
    request = read_request(arguments.request)
    try:
        body = Infer(
            model=check_name(arguments.model, what="model name"),
            version=arguments.version,
            request=request,
            timeout_s=arguments.within,
        )
    except ValidationError as error:
        raise BadInput(f"cannot infer: {explain(error)}") from error
    return asking.run(arguments, body)


def read_request(given: str) -> dict[str, Any]:
    """The request of --request.

    Raises:
        BadInput: no such file, no JSON, no object, or more than a command may hold.
    """
    try:
        text = Path(given[1:]).read_text() if given.startswith("@") else given
        request = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the request {given[:80]!r}: {error}") from error
    if not isinstance(request, dict):
        raise BadInput(f"cannot read the request {given[:80]!r}: it is no JSON object")
    # The rest of the command takes about half a KiB.
    if len(json.dumps(request)) > MAX_BYTES - 512:
        raise BadInput(f"cannot send a request of {len(text)} characters: at most {MAX_BYTES}")
    return request
