"""What only the agent may ask of its server, on the private socket."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol.private import OPEN_PATH, STATUS_PATH, LoadRequest
from agent.serving import api
from agent.serving.api import Answer, Request, Route, route
from agent.serving.slot import Slots
from compression.words import Words, explain

_REPOSITORY = r"/v2/repository/models/(?P<name>[^/]+)"


def routes(*, open_public: Callable[[], None]) -> tuple[Route, ...]:
    """The public routes and the private ones; `open_public` begins to accept from outside."""

    async def _open(_slots: Slots, _request: Request, _match: "re.Match[str]") -> Answer:
        open_public()
        return api.as_json({})

    return (
        *api.PUBLIC,
        route("GET", STATUS_PATH, _status),
        route("POST", _REPOSITORY + "/load", _load),
        route("POST", _REPOSITORY + "/unload", _unload),
        route("POST", OPEN_PATH, _open),
    )


async def _load(slots: Slots, request: Request, match: "re.Match[str]") -> Answer:
    try:
        wanted = LoadRequest.model_validate_json(bytes(request.body))
    except ValidationError as error:
        raise BadInput(f"cannot read the load request: {explain(error)}") from error
    if wanted.name != match["name"]:
        raise BadInput(f"cannot load '{wanted.name}' under the name '{match['name'][:80]}'")
    return _words(await slots.load(wanted))


async def _unload(slots: Slots, _request: Request, match: "re.Match[str]") -> Answer:
    await slots.unload(match["name"])
    return api.as_json({})


async def _status(slots: Slots, request: Request, _match: "re.Match[str]") -> Answer:
    given = parse_qs(request.query.decode("ascii", "replace")).get("ack", ["0"])[0]
    if not given.isdecimal():
        raise BadInput(f"cannot acknowledge {given[:40]!r}: not a sequence number")
    return _words(slots.status(acknowledged=int(given)))


def _words(words: Words) -> Answer:
    return Answer(200, [words.to_json()])
