"""What stands while the demo runs: broker, keys and agent, set up and taken down as one."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import TrimtabError
from agent.protocol import trust
from deploy.demo import broker, device
from deploy.demo.screen import Screen
from deploy.demo.services import Service


@dataclass
class Stage:
    """What stands while the demo runs."""

    folders: device.Folders
    services: list[Service] = field(default_factory=list)
    broker_port: int = 0
    complete: bool = False
    """Whether the show is over; what still runs is kept because somebody asked for it."""

    def check(self) -> None:
        """Do nothing while all children run.

        Raises:
            Unavailable: one has ended.
        """
        for service in self.services:
            service.check()


@contextlib.contextmanager
def standing(screen: Screen) -> Iterator[Stage]:
    """Set up broker, keys and agent in a temporary folder; take all of it down at the end.

    An error of the tree that passes through gets the path of the agent's log, which then
    outlives the folder.

    Raises:
        Unavailable: a child cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-demo-") as name:
        stage = Stage(device.Folders(Path(name)))
        try:
            _set_up(stage, screen)
            yield stage
        except TrimtabError as error:
            raise type(error)(f"{error}{_keep_log(stage.folders.agent_log)}") from error
        finally:
            for service in reversed(stage.services):
                service.stop()


def _set_up(stage: Stage, screen: Screen) -> None:
    folders = stage.folders
    folders.make()
    started = broker.start(folders.root)
    stage.services.append(started.service)
    stage.broker_port = started.port
    screen.say("broker", f"MQTT 5 on 127.0.0.1:{started.port} (iotcore {started.version})")
    private, public = trust.generate()
    folders.private_key.touch(0o600)
    folders.private_key.write_bytes(private)
    (folders.keys / "demo.pub").write_bytes(public)
    screen.say("keys", "a fresh Ed25519 pair; the agent obeys nobody else")
    stage.services.append(device.start(folders, broker_port=started.port))


def _keep_log(log: Path) -> str:
    """Copy the agent's log out of the folder that goes away; say where to."""
    if not log.exists():
        return ""
    with tempfile.NamedTemporaryFile(
        prefix="trimtab-demo-agent-", suffix=".log", delete=False
    ) as kept:
        with log.open("rb") as file:
            shutil.copyfileobj(file, kept)
        return f"\nthe agent's log: {kept.name}"
