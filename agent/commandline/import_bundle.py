"""Bring a model version to this device by hand, as a bundle: no broker and no network needed.

Everything is checked as if it had been pulled: the signature by the keys that this device obeys,
every chunk by its hash. Then the agent deploys it: at once where it runs, else at its next start.
With --wait exit code 0 says that it is live, 3 that it was refused.
"""

import argparse
import asyncio
import fcntl
import sys
import time
import uuid
from pathlib import Path

from pydantic import ValidationError

from agent import config
from agent.commandline import budget_options
from agent.config import Settings
from agent.control.record import Records
from agent.control.states import REST, State
from agent.errors import BadInput, Refused, TrimtabError, Unavailable
from agent.protocol import manifest as manifests
from agent.protocol import trust
from agent.protocol.commands import Deploy
from agent.protocol.manifest import Manifest
from agent.store import quota
from agent.store.bundle import Bundle
from agent.store.catalog import Catalog
from agent.store.download import fetch_file
from agent.store.imports import Imports, Order
from agent.store.quota import Bounds
from agent.wiring.ground import trusted
from compression.words import explain

EXAMPLES = """examples:
  trimtab import /media/usb/net-3.trimtab
  trimtab import net-3.trimtab --strategy as-is --wait
  trimtab import net-3.trimtab --latency-p95-ms 20 --size-mib 4

  trimtab-fleet bundle net.onnx --name net --version 3 --out net-3.trimtab makes one
"""
_LOOK_S = 0.3
_ENDS: dict[State, type[TrimtabError]] = {State.REFUSED: Refused, State.FAILED: Unavailable}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings of the agent")
    parser.add_argument(
        "--strategy", choices=("improve", "compress-first", "as-is"), default="improve"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for compressing (%(default)s)")
    parser.add_argument(
        "--allow-unverified", action="store_true",
        help="let a variant serve that no real inputs have judged, where none came with the model",
    )  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="follow it to its end")
    parser.add_argument(
        "--wait-timeout", type=float, default=3600.0, metavar="S", help="(%(default)s s)"
    )
    budget_options.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check it, hand it to the agent, and with --wait follow it."""
    settings = config.load(arguments.config)
    imports = Imports(settings.state_dir / "imports")
    running = agent_runs(settings.state_dir)
    with Bundle(arguments.bundle) as bundle:
        manifest = asyncio.run(bring(bundle, settings=settings, imports=imports))
    order = Order(id=uuid.uuid4().hex, deploy=_deploy(manifest, arguments))
    imports.hand_in(order)
    what = f"{manifest.name}@{manifest.version} ({manifest.files.model.size_bytes / 2**20:.1f} MiB)"
    when = "the agent deploys it" if running else "no agent runs here: it begins at the next start"
    sys.stdout.write(f"imported {what}: {when}\n")
    if arguments.wait:
        if not running:
            raise Unavailable("cannot wait: no agent runs here")
        follow(order, imports, settings=settings, timeout_s=arguments.wait_timeout)
    return 0


async def bring(bundle: Bundle, *, settings: Settings, imports: Imports) -> Manifest:
    """Check a bundle and unpack it into the folder of imports.

    Raises:
        Corrupt, Refused: it cannot be trusted.
        Unavailable: no room, or the medium or the disk fails.
    """
    payload = trust.open_sealed(
        bundle.sealed, payload_type=trust.MANIFEST, keys=trusted(settings.keys_dir)
    )
    manifest = manifests.parse(payload)
    version = (manifest.name, manifest.version)
    here = Catalog(settings.state_dir / "models").sources()
    imports.begin(bundle.sealed, payload)
    quota.make_room(
        imports.catalog, version, bounds=Bounds(int(settings.disk_reserve_mib * 2**20)),
        pinned={(entry.name, entry.version) for entry in imports.catalog.entries()}, has=here,
    )  # fmt: skip
    for path, ref in imports.catalog.missing(*version).items():
        await fetch_file(ref, get=bundle.get, target=path, has=here)
    return manifest


def agent_runs(state_dir: Path) -> bool:
    """Whether an agent works in this state folder now.

    Raises:
        BadInput: there is no such folder: no agent has ever run with these settings.
    """
    if not state_dir.is_dir():
        raise BadInput(f"cannot import: no agent has ever run in {state_dir}")
    try:
        with (state_dir / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def follow(order: Order, imports: Imports, *, settings: Settings, timeout_s: float) -> None:
    """Print the states of its deployment until it rests.

    Raises:
        Refused: by the agent, or at the end.
        Unavailable: it failed, or time ran out.
    """
    records, told = Records(settings.state_dir / "records"), ""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        reply = imports.answer_to(order)
        if reply is not None and reply.outcome == "refused":
            raise Refused(reply.message)
        deployment = records.load(order.deploy.model).deployment
        if deployment is not None and deployment.id == order.id:
            if deployment.state != told:
                told = deployment.state
                sys.stdout.write(f"  {told} {deployment.message}".rstrip() + "\n")
                sys.stdout.flush()
            if deployment.state in _ENDS:
                raise _ENDS[deployment.state](f"{deployment.state}: {deployment.message}")
            if deployment.state in REST:
                return
        time.sleep(_LOOK_S)
    raise Unavailable(f"cannot wait longer than {timeout_s:g} s; the deployment goes on")


def _deploy(manifest: Manifest, arguments: argparse.Namespace) -> Deploy:
    try:
        return Deploy(
            model=manifest.name,
            version=manifest.version,
            budget=budget_options.read(arguments),
            strategy=arguments.strategy,
            minutes=arguments.minutes,
            allow_unverified=arguments.allow_unverified,
        )
    except ValidationError as error:
        raise BadInput(f"cannot deploy: {explain(error)}") from error
