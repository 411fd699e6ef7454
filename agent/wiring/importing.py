"""Takes up what was brought by hand: the same deployment as by command, without a network."""

import asyncio
import logging

from agent.control.announcer import Announcer
from agent.control.deployer import Deployer
from agent.control.states import State
from agent.errors import Corrupt, TrimtabError
from agent.protocol.events import Reply
from agent.store.imports import Imports, Order

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_TO_READ_S = 30.0
"""How long a refusal stays for whoever waits for it."""
_PULLING = (State.VERIFYING, State.FETCHING)


async def keep_importing(
    imports: Imports, *, deployer: Deployer, announcer: Announcer, device: str
) -> None:
    """Look for orders and obey them, until cancelled; what was taken is removed."""
    while True:
        try:
            for order in imports.orders():
                imports.answer(order, await _obey(order, deployer, announcer, device))
            _clear(imports, deployer)
        except Corrupt as error:
            announcer.trouble("corrupt", str(error))
        except OSError as error:
            log.warning("cannot look for imports: %s", error)
        await asyncio.sleep(_LOOK_S)


async def _obey(order: Order, deployer: Deployer, announcer: Announcer, device: str) -> Reply:
    try:
        message = await deployer.start(order.id, order.deploy)
    except TrimtabError as error:
        announcer.trouble("refused", f"an import: {error}")
        return Reply(id=order.id, device=device, outcome="refused", message=str(error))
    return Reply(id=order.id, device=device, outcome="accepted", message=message)


def _clear(imports: Imports, deployer: Deployer) -> None:
    """Remove versions that no deployment needs to read any more."""
    needed = {
        (record.model, record.deployment.version)
        for record in deployer.records()
        if record.deployment is not None and record.deployment.state in _PULLING
    }
    for name, version, reply, age_s in imports.answered():
        read = reply.outcome != "refused" or not 0 <= age_s < _TO_READ_S
        if read and (name, version) not in needed:
            imports.remove(name, version)
