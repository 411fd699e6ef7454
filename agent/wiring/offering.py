"""What the configuration lets clients do, and from where."""

from agent.config import Settings
from agent.errors import BadConfig, BadInput
from agent.host.offer import Offer


def offer(settings: Settings) -> Offer:
    """The server's offer.

    Raises:
        BadConfig: others could reach it and nobody said that they may, or its token is none.
    """
    made = Offer(
        shared_memory=settings.http_shared_memory,
        most_waiting=settings.http_most_waiting,
        token_file=settings.http_token_file,
        to_anybody=settings.http_to_anybody,
    )
    try:
        made.check(settings.http_host)
    except BadInput as error:
        raise BadConfig(str(error)) from error
    return made
