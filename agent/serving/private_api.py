"""What only the agent may ask of its server, on the private socket."""

from collections.abc import Callable
from urllib.parse import parse_qs

from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol.capturing import CAPTURE_PATH, CaptureOrder
from agent.protocol.private import OPEN_PATH, STATUS_PATH, LoadRequest
from agent.serving import api, public_api
from agent.serving.api import Answer, Match, Request, Routes, route
from agent.serving.capture import Captures
from agent.serving.service import Service
from compression.words import Words, explain

_REPOSITORY = r"/v2/repository/models/(?P<name>[^/]+)"


def routes(*, open_public: Callable[[], None]) -> Routes:
    """The public routes and the private ones; `open_public` begins to accept from outside."""

    captures: Captures | None = None

    def _capture(service: Service, request: Request, _match: Match) -> Answer:
        nonlocal captures
        captures = captures or Captures(service.slots)
        try:
            order = CaptureOrder.model_validate_json(bytes(request.body))
        except ValidationError as error:
            raise BadInput(f"cannot read the capture order: {explain(error)}") from error
        return _words(captures.follow(order))

    def _open(service: Service, _request: Request, _match: Match) -> Answer:
        service.slots.careful = True  # what served before is back
        open_public()
        return api.as_json({})

    return Routes(
        # Before the public ones, which have load and unload too.
        route("POST", _REPOSITORY + "/load", _load),
        route("POST", _REPOSITORY + "/unload", _unload),
        *public_api.ROUTES,
        route("GET", STATUS_PATH, _status),
        route("POST", OPEN_PATH, _open),
        route("POST", CAPTURE_PATH, _capture),
    )


async def _load(service: Service, request: Request, match: Match) -> Answer:
    try:
        wanted = LoadRequest.model_validate_json(bytes(request.body))
    except ValidationError as error:
        raise BadInput(f"cannot read the load request: {explain(error)}") from error
    if wanted.name != match["name"]:
        raise BadInput(f"cannot load '{wanted.name}' under the name '{match['name'][:80]}'")
    return _words(await service.slots.load(wanted, instead=True))


async def _unload(service: Service, _request: Request, match: Match) -> Answer:
    await service.slots.unload(match["name"])
    return api.as_json({})


def _status(service: Service, request: Request, _match: Match) -> Answer:
    given = parse_qs(request.query.decode("ascii", "replace")).get("ack", ["0"])[0]
    if not given.isdecimal():
        raise BadInput(f"cannot acknowledge {given[:40]!r}: not a sequence number")
    return _words(service.slots.status(acknowledged=int(given)))


def _words(words: Words) -> Answer:
    return Answer(200, [words.to_json()])
