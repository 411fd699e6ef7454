"""What the server offers, and to whom, as the configuration allows."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from agent.errors import BadInput

LEAST_TOKEN = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""


@dataclass(frozen=True)
class Offer:
    """Everything is off that lets clients do more than ask."""

    shared_memory: bool = False
    """Clients may register system shared memory. Only trusted ones: they can crash the server."""
    model_control: bool = False
    """Clients may unload what is served, and load it again."""
    most_waiting: int | None = None
    """Requests that may wait for one model; None: the server's own default."""

    token_file: Path | None = None
    """Clients must show the token that it holds, whatever they ask but health."""
    to_anybody: bool = False
    """Others in the network may ask too, without a token."""

    @property
    def arguments(self) -> list[str]:
        """As arguments of the server."""
        said = {"--shared-memory": self.shared_memory, "--model-control": self.model_control}
        waiting = [] if self.most_waiting is None else ["--most-waiting", str(self.most_waiting)]
        token = [] if self.token_file is None else ["--token-file", str(self.token_file)]
        return [*(name for name, on in said.items() if on), *waiting, *token]

    def check(self, host: str) -> None:
        """Check that it may be offered at this address.

        Raises:
            BadInput: whoever reaches the address could ask, and nobody said that they may; or
                the token's file has none.
        """
        if self.token_file is not None:
            read_token(self.token_file)
        elif not (self.to_anybody or is_loopback(host)):
            raise BadInput(
                f"cannot listen on {host}: whoever reaches it could use the models; "
                "name a token file, or allow anybody"
            )


def is_loopback(host: str) -> bool:
    """Whether only this device reaches the address; a name other than localhost may be any."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> str:
    """The token that a file holds, on a line of its own.

    Raises:
        BadInput: it cannot be read, or what it holds is no token or a short one.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadInput(f"cannot read the token in {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        token = ""
    if len(token) < LEAST_TOKEN or not _TOKEN.fullmatch(token):
        raise BadInput(
            f"cannot use the token in {path}: write one line of at least {LEAST_TOKEN} letters, "
            "digits or any of -._~+/"
        )
    return token


INFERENCE = Offer()
"""Nothing beyond it."""
