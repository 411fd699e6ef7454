"""The tree of errors, sorted by what the caller should do next; the exit codes follow from it.

    TrimtabError
    ├── BadInput      fix what was given, then call again       exit 2
    ├── Refused       never retry: the answer will not change   exit 3
    ├── Unavailable   try again later                           exit 4
    ├── Corrupt       discard it and fetch it again             exit 5
    └── BadConfig     fix the configuration, then start again   exit 78 (EX_CONFIG)

Messages start with "cannot" and carry the values. Anything else that is raised is a bug.
"""

from typing import ClassVar


class TrimtabError(Exception):
    """An error that a person or a fleet controller is meant to read."""

    exit_code: ClassVar[int] = 1


class BadInput(TrimtabError):
    """What was given is wrong: a model, a manifest, a command, a request, inputs."""

    exit_code = 2


class Refused(TrimtabError):
    """Understood, judged and declined; the same question gets the same answer."""

    exit_code = 3


class Unavailable(TrimtabError):
    """Something that is needed is not there now: a broker, a chunk, memory, a port."""

    exit_code = 4


class Corrupt(TrimtabError):
    """Bytes are not what their hash or signature says; never use them."""

    exit_code = 5


class BadConfig(TrimtabError):
    """The configuration cannot be used; systemd does not restart on this exit code."""

    exit_code = 78


EXIT_CODES: dict[int, str] = {0: "done"} | {
    kind.exit_code: (kind.__doc__ or "").splitlines()[0]
    for kind in (BadInput, Refused, Unavailable, Corrupt, BadConfig)
}
