"""What a request can fail with beside the errors of the house; api.py gives each its status."""

from agent.errors import BadInput, Refused, TrimtabError, Unavailable


class NotFound(BadInput):
    """Nothing is served under that name and version."""


class Forbidden(Refused):
    """Clients may not do this here, unless the configuration allows it."""


class NotOffered(Refused):
    """The protocol has an extension for it, which this server lacks."""


class Expired(TrimtabError):
    """The time that the client gave was over before there was an answer."""


class Busy(Unavailable):
    """As many requests as may wait are waiting."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
