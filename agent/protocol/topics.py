"""The topics, made and read; at most seven slashes, one prefix."""

import re
from dataclasses import dataclass

from agent.errors import BadInput

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_PREFIX = re.compile(r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,3}\Z")
_SHA256 = re.compile(r"^[0-9a-f]{64}\Z")


def check_name(name: str, *, what: str) -> str:
    """Return `name` where it can stand in a topic and in a path.

    Raises:
        BadInput: it is not 1 to 63 letters, digits, dots, underscores and hyphens.
    """
    if not NAME.match(name):
        raise BadInput(
            f"cannot use {what} {name[:80]!r}: 1 to 63 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class Topics:
    """Every topic under one prefix."""

    prefix: str = "trimtab/v1"

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise BadInput(f"cannot use topic prefix {self.prefix!r}: at most four plain levels")

    def blob(self, sha256: str) -> str:
        """One chunk, named by the hash of exactly the bytes that are sent."""
        if not _SHA256.match(sha256):
            raise BadInput(f"cannot name a chunk {sha256[:80]!r}: not a sha256 in hex")
        return f"{self.prefix}/blob/{sha256}"

    def blob_name(self, topic: str) -> str:
        """The hash in a blob topic."""
        return topic.rpartition("/")[2]

    def model(self, name: str, version: int) -> str:
        """The signed manifest of one version."""
        return f"{self.prefix}/model/{check_name(name, what='model name')}/{version}"

    def every_model(self) -> str:
        """A filter over the manifests of all models and versions."""
        return f"{self.prefix}/model/+/+"

    def command(self, audience: str) -> str:
        """Commands for an audience: `device/ID` or `group/NAME`."""
        kind, _, name = audience.partition("/")
        if kind not in {"device", "group"}:
            raise BadInput(f"cannot address {audience[:80]!r}: use device/ID or group/NAME")
        return f"{self.prefix}/{kind}/{check_name(name, what=kind)}/command"

    def event(self, device: str) -> str:
        """What became of commands: state changes, refusals, rung changes."""
        return f"{self.prefix}/device/{check_name(device, what='device id')}/event"

    def status(self, device: str) -> str:
        """Retained: online or offline, and what really runs. Also the will."""
        return f"{self.prefix}/device/{check_name(device, what='device id')}/status"

    def telemetry(self, device: str) -> str:
        """Batches of measurements."""
        return f"{self.prefix}/device/{check_name(device, what='device id')}/telemetry"

    def reply(self, client: str) -> str:
        """Where an operator's client waits for replies (MQTT 5 response topic)."""
        return f"{self.prefix}/operator/{check_name(client, what='client id')}/reply"

    def is_reply(self, topic: str) -> bool:
        """Whether a reply may go there. The topic is not signed: whoever repeats a command of
        somebody else's must not make a device publish where only devices may."""
        prefix, _, rest = topic.partition("/operator/")
        name, _, leaf = rest.partition("/")
        return prefix == self.prefix and bool(NAME.match(name)) and leaf == "reply"

    def every(self, leaf: str) -> str:
        """A filter over all devices: `event`, `status` or `telemetry`."""
        return f"{self.prefix}/device/+/{leaf}"
